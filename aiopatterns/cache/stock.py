"""What a cache keeps in the memory of this process, and what that means: lives, tags, counters.

The near tier holds entries and knows when one is over. This module says what may be done with an
entry that is not:

=========  ==============================================  ===================================
entry      when                                            may be
=========  ==============================================  ===================================
calm       fresh, tags current, and early refresh is far   given out without a further thought
fresh      now < ``fresh_until`` and its tags are current  given out; perhaps loaded anew early
stale      now < ``stale_until`` and its tags are current  given out, and loaded anew
absent     MISSING: a batch loader has left the key out    the answer of a batch; else loaded
=========  ==============================================  ===================================

Everything here is synchronous, so what is seen and what is done with it are one step.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, TypeVar, cast, final

from aiopatterns.cache.memory import Near
from aiopatterns.cache.tags import Tags
from aiopatterns.cache.terms import MISSING, CacheStatistics
from aiopatterns.core.clock import monotonic, rng

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiopatterns.cache.fetched import Fetched
    from aiopatterns.cache.memory import Entry
    from aiopatterns.cache.tags import Stamp
    from aiopatterns.cache.terms import Bounds, Life, Missing, Ttl

__all__ = ["NO_TAGS", "Stock"]

K = TypeVar("K")
V = TypeVar("V")

#: The stamp of an entry without tags.
NO_TAGS: Stamp = frozenset()
# Tags that are remembered for each entry that fits in; what has more loses the oldest.
_TAGS_EACH = 4
# Tags that are remembered at least: a stamp with more tags than that would never be current.
_FEWEST_TAGS = 1_000
# Beyond that many mean lengths of a load before its end, an early refresh has a chance of e**-12.
_CALM = 12.0


@final
class Stock(Generic[K, V]):
    """The entries of one cache in this process.

    Args:
        bounds: How much it holds.
        ttl: How long values live.
        copy: Copies a value for whoever gets it, or None.

    Complexity: O(1) for each key.
    """

    __slots__ = (
        "_find",
        "_near",
        "_short",
        "cap",
        "copy",
        "epoch",
        "errors",
        "hits",
        "joins",
        "loads",
        "misses",
        "rejected",
        "stale",
        "tags",
        "ttl",
    )

    def __init__(self, bounds: Bounds, ttl: Ttl, copy: Callable[[V], V] | None) -> None:
        self._near: Near[K, V] = Near(
            max_size=bounds.count,
            max_weight=bounds.weight,
            weigh=bounds.weigh,
            eviction=bounds.eviction,
        )
        self._find: Callable[[K, float], Entry[K, V] | None] = self._near.find
        # A short cut passes by the table, and LRU has to know of every use; nor does it copy.
        self._short: list[dict[object, Entry[K, V]]] | None = None
        if bounds.eviction != "lru" and copy is None:
            self._short = []
        self.ttl: Ttl = ttl
        self.copy: Callable[[V], V] | None = copy
        #: Shortens lives to what the far tier allows here; set by the cache if there is one.
        self.cap: Callable[[Life], Life] | None = None
        self.tags: Tags = Tags(max(_FEWEST_TAGS, _TAGS_EACH * bounds.count))
        #: Grows with every invalidation: who reads elsewhere stores nothing if it has grown since.
        self.epoch: int = 0
        self.hits: int = 0
        self.misses: int = 0
        self.loads: int = 0
        self.joins: int = 0
        self.stale: int = 0
        self.rejected: int = 0
        self.errors: int = 0

    def calm(self, key: K) -> Entry[K, V] | None:
        """Return, and count, an entry that may be given out without a further thought."""
        now = monotonic()
        entry = self._find(key, now)
        if entry is None or now >= entry.calm_until:
            return None
        if entry.tags and not self.tags.current(entry.tags):
            self._near.drop(key)
            return None
        self.hits += 1
        return entry

    def short_cut(self) -> dict[object, Entry[K, V]] | None:
        """Return a dict for calm entries under names of one's own, or None if there can be none.

        It is for entries without tags, and what is in there is good while
        ``monotonic() < entry.calm_until``; whoever gives it out counts a hit and a use. It is
        emptied with the cache.
        """
        if self._short is None:
            return None
        made: dict[object, Entry[K, V]] = {}
        self._short.append(made)
        return made

    def given(self, value: V) -> V:
        """Return what a caller gets of a value."""
        return value if self.copy is None else self.copy(value)

    def look(self, key: K) -> Entry[K, V] | None:
        """Return an entry that is fresh, stale or absent; one whose tags are not current is gone."""
        entry = self._find(key, monotonic())
        if entry is not None and not self.tags.current(entry.tags):
            self._near.drop(key)
            return None
        return entry

    def answer(self, key: K, *, absent: bool = False) -> Entry[K, V] | None:
        """Return, and count, an entry that may be given out after a second look.

        Args:
            key: The key.
            absent: Whether that there is no value is an answer.
        """
        entry = self.look(key)
        if entry is None or (entry.value is MISSING and not absent):
            return None
        now = monotonic()
        self.hits += 1
        if now >= entry.fresh_until:
            self.stale += 1
        elif self.ttl.sliding and (life := self.ttl.life(entry.value, now)) is not None:
            entry.fresh_until, entry.stale_until = life if self.cap is None else self.cap(life)
        return entry

    def due(self, entry: Entry[K, V]) -> bool:
        """Whether an entry should be loaded anew: stale, or by chance shortly before (XFetch)."""
        now = monotonic()
        if now < entry.retry_at:
            return False
        ahead = self.ttl.early and entry.cost * self.ttl.early * rng().expovariate(1.0)
        return now + ahead >= entry.fresh_until

    def put(
        self, key: K, value: V | Missing, life: Life | None, *, cost: float = 0.0, stamp: Stamp
    ) -> bool:
        """Store a value; what cannot be stored drops the key, for what it held is older.

        Returns:
            Whether it was stored: it has a life, its tags are current, it is not too heavy.
        """
        if life is not None and self.cap is not None:
            life = self.cap(life)
        if life is None or not self.tags.current(stamp):
            self._near.drop(key)
            return False
        if stamp and (old := self._find(key, -math.inf)) is not None and not old.tags:
            self._near.drop(key)  # short cuts may lead to it, and they do not look at tags
        entry = self._near.put(
            key,
            cast("V", value),  # MISSING is told apart wherever an entry is not calm
            fresh_until=life.fresh_until,
            stale_until=life.stale_until,
            cost=cost,
            tags=stamp,
        )
        if entry is not None:
            plain = value is not MISSING and not self.ttl.sliding
            early = _CALM * self.ttl.early * cost
            entry.calm_until = life.fresh_until - early if plain else -math.inf
        return entry is not None

    def adopt(self, key: K, fetched: Fetched[V], *, epoch: int) -> None:
        """Store what another tier had.

        Args:
            key: The key.
            fetched: What it had.
            epoch: The epoch before it was asked: the value is not stored if it has tags, and any
                may have been invalidated since.
        """
        if fetched.tags and epoch != self.epoch:
            return
        stamp = self.tags.stamp(fetched.tags) if fetched.tags else NO_TAGS
        self.put(key, fetched.value, fetched.life, cost=fetched.cost, stamp=stamp)

    def failed(self, keys: Iterable[K]) -> None:
        """Let the stale entries of a load that has failed rest for a while."""
        now = monotonic()
        for key in keys:
            entry = self._find(key, now)
            if entry is not None:
                entry.retry_at = now + self.ttl.retry_floor

    def drop(self, keys: Iterable[K]) -> None:
        """Forget ``keys``."""
        self.epoch += 1
        for key in keys:
            self._near.drop(key)

    def drop_tags(self, tags: Iterable[str]) -> None:
        """Forget every entry that carries one of ``tags``."""
        self.epoch += 1
        self.tags.invalidate(tags)

    def clear(self) -> None:
        """Forget everything."""
        self.epoch += 1
        self._near.clear()
        for each in self._short or ():
            each.clear()

    def sweep(self, limit: int) -> int:
        """Look at the next ``limit`` entries; return how many of them were over, and went."""
        return self._near.sweep(monotonic(), limit)

    def all_keys(self) -> list[K]:
        """Return the keys of all entries, also of those that are over and were not swept yet."""
        return self._near.keys()

    def statistics(self) -> CacheStatistics:
        """Return the figures."""
        return CacheStatistics(
            hits=self.hits,
            misses=self.misses,
            loads=self.loads,
            joins=self.joins,
            stale=self.stale,
            evictions=self._near.evictions,
            rejected_fills=self.rejected,
            errors=self.errors,
            size=len(self._near),
        )
