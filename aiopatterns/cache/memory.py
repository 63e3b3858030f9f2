"""The near tier: values in the memory of this process, bounded, each with the end of its life.

::

    find(key) --> table --> entry --> over? gone : a use is counted
    put(key)  --> a few entries are looked at, and go if they are over     (the hand)
              --> until there is room, the policy names who leaves
              --> table, newest of its queue

An entry that is over goes when somebody asks for it or when the hand comes by: every sixteenth
``put`` looks at 32 entries, and every single one at 512 while a quarter of those 32 or more are
over. So what expires all at once is gone after a few puts, and no step is long.

Guarantees:

* Never more than ``max_size`` entries, nor more than ``max_weight``.
* ``find`` never gives out an entry that is over.
* No call does more than a bounded number of steps, whatever the size: a ``put`` looks at 512
  entries for their life, at 1,024 for one that leaves, and at 2,048 for all that do;
  :meth:`Near.clear` cuts everything off at once and takes it apart a little at a time.

Not guaranteed: that a value which is over, or was cleared, is freed at once; that a value which
weighs more than a thousand others is stored at the first attempt; that Python's collector of
garbage takes no longer. It looks at all objects of a program when many were added, 0.3 s for a
million entries; ``gc.freeze()`` after the first filling takes them out of its sight.

Works without a loop and for one thread.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast, final

from aiopatterns.cache.policy import MOST_USES, Node, policy_for
from aiopatterns.cache.table import table_for
from aiopatterns.core.clock import monotonic
from aiopatterns.core.validate import count

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.cache.policy import LRU, S3FIFO
    from aiopatterns.cache.table import Table
    from aiopatterns.cache.terms import Eviction

__all__ = ["MOST_EXPIRED", "MOST_STEPS", "Entry", "Near"]

K = TypeVar("K")
V = TypeVar("V")

#: Entries that one ``put`` looks at for their life, at most.
MOST_EXPIRED: Final = 512
#: Looks after which a ``put`` that is not done makes no more room.
MOST_STEPS: Final = 1024
# How many it looks at first, and calls of ``put`` until the next look if less than a quarter of
# them was over. Where much is over it has to go in few calls: while more is freed than made,
# Python's collector waits, and then has all that was made meanwhile to look at in one go.
_GLANCE: Final = 32
_REST: Final = 16
# Cleared entries that are taken apart in one go: 1 to 3 ms.
_AT_ONCE: Final = 4_000
_PAST: Final = -math.inf
_NO_TAGS: Final[frozenset[tuple[str, int]]] = frozenset()


@final
class Entry(Node, Generic[K, V]):
    """A value and what is known of it. Times are monotonic seconds; infinity is never.

    Attributes:
        key: Its key.
        value: The value.
        fresh_until: When it should be loaded anew.
        stale_until: When it is over.
        calm_until: Until when it may be given out without a further thought; set by the user.
        retry_at: When a failed load may be tried again; set by the user.
        cost: Seconds that its load took.
        tags: The versions of its tags.
    """

    __slots__ = ("calm_until", "cost", "fresh_until", "key", "retry_at", "tags", "value")

    fresh_until: float
    calm_until: float
    cost: float
    tags: frozenset[tuple[str, int]]

    def __init__(self, key: K, value: V, weight: int, stale_until: float) -> None:
        self.key: K = key
        self.value: V = value
        self.weight: int = weight
        self.stale_until: float = stale_until
        self.hashed: int = hash(key)
        self.uses: int = 0
        self.proven: bool = False
        self.retry_at: float = _PAST

    def end(self) -> None:
        """Be of no use to whoever holds it still: it has left, and keeps its value alive no more."""
        self.calm_until = _PAST
        self.value = cast("V", None)


@final
class Near(Generic[K, V]):
    """A bounded table of entries.

    Args:
        max_size: Entries at most.
        max_weight: Weight of all entries at most, or None.
        weigh: A plain function of key and value that gives a weight, a whole number of at least 0.
        eviction: ``"s3fifo"`` or ``"lru"``.

    Complexity: O(1) for each key.
    """

    __slots__ = (
        "_buried",
        "_get",
        "_max_size",
        "_max_weight",
        "_policy",
        "_size",
        "_table",
        "_touch",
        "_turn",
        "_weigh",
        "evictions",
        "expired",
        "weight",
    )

    def __init__(
        self,
        *,
        max_size: int,
        max_weight: int | None = None,
        weigh: Callable[[K, V], int] | None = None,
        eviction: Eviction = "s3fifo",
    ) -> None:
        self._max_size = max_size
        self._max_weight = math.inf if max_weight is None else max_weight
        self._weigh = weigh
        self._policy: LRU[Entry[K, V]] | S3FIFO[Entry[K, V]] = policy_for(eviction, max_size)
        self._touch = self._policy.touch if self._policy.touches else None
        self._size = 0
        self._turn = _REST
        self._buried: list[dict[K, Entry[K, V]]] = []
        self._renew()
        #: Weight of all entries; their number if they are not weighed.
        self.weight: int = 0
        #: Entries that left for others, since it was made.
        self.evictions: int = 0
        #: Entries that were over and went, since it was made.
        self.expired: int = 0

    def find(self, key: K, now: float) -> Entry[K, V] | None:
        """Return the entry of ``key`` that is not over at ``now``, and count a use; or None."""
        entry = self._get(key)
        if entry is None:
            return None
        if now >= entry.stale_until:
            self._expire(entry)
            return None
        if self._touch is not None:
            self._touch(entry)
        elif entry.uses < MOST_USES:
            entry.uses += 1
        return entry

    def put(
        self,
        key: K,
        value: V,
        *,
        fresh_until: float,
        stale_until: float,
        cost: float = 0.0,
        tags: frozenset[tuple[str, int]] = _NO_TAGS,
    ) -> Entry[K, V] | None:
        """Store a value, in place of an older one.

        Returns:
            Its entry, or None if it is too heavy to be stored (now, at least); an older value of
            the key is gone then too.

        Raises:
            Exception: What ``weigh`` raised; nothing has changed then.
        """
        weight = 1 if self._weigh is None else count("weight", self._weigh(key, value), minimum=0)
        self._turn -= 1
        if not self._turn:
            self._tidy()
        entry = self._get(key)
        if entry is None:
            entry = self._enter(Entry(key, value, weight, stale_until))
        else:
            entry = self._change(entry, value, weight, stale_until)
        if entry is not None:
            entry.fresh_until = entry.calm_until = fresh_until
            entry.cost = cost
            entry.tags = tags
        return entry

    def drop(self, key: K) -> bool:
        """Forget a key; return whether it was there."""
        entry = self._get(key)
        if entry is None:
            return False
        self._remove(entry)
        return True

    def sweep(self, now: float, limit: int) -> int:
        """Let the hand go past ``limit`` entries; return how many of them were over, and went."""
        before, policy = self.expired, self._policy
        node = policy.hand
        for _ in range(min(limit, self._size + 2)):
            following = node.newer
            if now >= node.stale_until:
                # Nobody has asked for it, so it is not worth remembering.
                self._expire(cast("Entry[K, V]", node), remember=False)
            node = following
        policy.hand = node
        return self.expired - before

    def clear(self) -> None:
        """Forget everything; 4,000 entries are freed now, others with the puts that follow."""
        table = self._table
        self._buried += [table] if isinstance(table, dict) else table.pages
        self._turn = 1
        self._policy.clear()
        self._size = self.weight = 0
        self._renew()
        self._bury(_AT_ONCE)

    def keys(self) -> list[K]:
        """Return all keys, also those of entries that are over and have not gone yet. O(n)."""
        return list(self._table)

    def __len__(self) -> int:
        return self._size

    def _renew(self) -> None:
        self._table: Table[K, Entry[K, V]] = table_for(self._max_size)
        self._get: Callable[[K], Entry[K, V] | None] = self._table.get

    def _enter(self, entry: Entry[K, V]) -> Entry[K, V] | None:
        """Take in a new entry, or refuse it."""
        if self.weight + entry.weight > self._max_weight and not self._make_room(entry):
            self._policy.remember(entry)
            return None
        if self._size >= self._max_size:
            self._evict()
        self._policy.admit(entry)
        self._table[entry.key] = entry
        self._size += 1
        self.weight += entry.weight
        return entry

    def _evict(self) -> None:
        victim = self._policy.victim()
        self._table.pop(victim.key, None)
        victim.end()
        self._size -= 1
        self.weight -= victim.weight
        self.evictions += 1

    def _make_room(self, entry: Entry[K, V]) -> bool:
        """Let others leave until there is weight for an entry; return whether there is."""
        most = int(self._max_weight)
        if not self._policy.fits(entry, most):
            return False
        enough = self._policy.looks + MOST_STEPS
        while self.weight + entry.weight > most and self._policy.looks < enough:
            self._evict()
        return self.weight + entry.weight <= most

    def _change(
        self, entry: Entry[K, V], value: V, weight: int, stale_until: float
    ) -> Entry[K, V] | None:
        """Put a new value into an entry, which is a use; one of another weight comes in anew."""
        if weight != entry.weight:
            self._remove(entry)
            return self._enter(Entry(entry.key, value, weight, stale_until))
        self.find(entry.key, _PAST)
        entry.value = value
        entry.stale_until = stale_until
        entry.retry_at = _PAST
        return entry

    def _remove(self, entry: Entry[K, V], *, remember: bool = True) -> None:
        """Take out an entry; if it has proven itself, that may be remembered."""
        entry.end()
        self._table.pop(entry.key, None)
        self._policy.forget(entry)
        if remember and entry.proven:
            self._policy.remember(entry)
        self._size -= 1
        self.weight -= entry.weight

    def _expire(self, entry: Entry[K, V], *, remember: bool = True) -> None:
        self._remove(entry, remember=remember)
        self.expired += 1

    def _tidy(self) -> None:
        """Do a little of what is left to do: what was cleared, and entries that are over."""
        if self._buried:
            self._bury(MOST_EXPIRED)
        now = monotonic()
        many = self.sweep(now, _GLANCE) >= _GLANCE // 4
        if many:
            self.sweep(now, MOST_EXPIRED - _GLANCE)
        self._turn = 1 if many or self._buried else _REST

    def _bury(self, most: int) -> None:
        """Take apart that many cleared entries, which hold on to each other."""
        while most and self._buried:
            page = self._buried[-1]
            taken = min(most, len(page))
            for _ in range(taken):
                _, entry = page.popitem()
                self._policy.cut(entry)
            most -= taken
            if not page:
                self._buried.pop()
