"""Loads: one for each key at a time, owned by those who wait for it.

::

    get_or_load(k1) --.                      .--> near tier, if k1 is still wanted
    get_or_load(k1) --+-- Load {k1} ---------'
    refresh of k2 ------- Load {k2}, kept: runs without waiters
    get_or_load_many -.
    get_or_load(k4) --+-- Load {k3, k4, k5}: one call of a batch loader
                                  ^
    invalidate(k4) ---------------' takes k4 out: those who wait get their answer, nothing of it
                                    is stored, and who asks from now on begins a new load

Guarantees:

* A key is in at most one load of the table, and a load stores a key only while it is.
* A caller who is cancelled leaves alone; the last one out cancels the load and waits for its end
  (unless ``LoadTimeouts.abandoned`` says that it finishes).
* Callers have no part in each other's deadlines; the context variables are those of the first.
* A load that is over its hard time is cancelled and its key is free. One that cancels itself gives
  its callers a ``LoadAbortedError``, never a cancellation of their own.
* Nothing is stored of a load that raises. What its callers get is the error, each an own one, or
  in the stale part of a life the old value.

Not guaranteed: that a loader which refuses to be cancelled keeps the hard time.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeAlias, TypeVar, final

from anyio import CancelScope, create_task_group, get_cancelled_exc_class

from aiopatterns.cache.stock import NO_TAGS
from aiopatterns.cache.terms import MISSING, LoadFailed
from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import LoadAbortedError
from aiopatterns.core.flight import Flight, copied
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from aiopatterns.cache.memory import Entry
    from aiopatterns.cache.stock import Stock
    from aiopatterns.cache.tags import Stamp
    from aiopatterns.cache.terms import LoadTimeouts, Missing

__all__ = ["Failed", "Found", "Load", "Loads"]

K = TypeVar("K")
V = TypeVar("V")

# Background loads of one cache at a time; what is due beyond that is found due again by the next.
_MOST_KEPT: Final = 100


class Failed(NamedTuple):
    """What a batch loader gave for one key: an error instead of a value."""

    error: Exception


Found: TypeAlias = "dict[K, V | Missing | Failed]"
"""What a load has brought, by key."""


@final
class Load(Generic[K, V]):
    """One load of one key or more.

    Args:
        keys: What it brings.
        tags: What the values are tagged with.
        stamp: The versions of the tags before the load began.
        forced: Whether it asks the loader, whatever other tiers hold.
    """

    __slots__ = ("flight", "forced", "key", "live", "stamp", "tags")

    flight: Flight[Found[K, V]]

    def __init__(
        self, keys: Sequence[K], tags: Sequence[str], stamp: Stamp, *, forced: bool
    ) -> None:
        self.key = keys[0]  # for messages
        self.live: dict[K, None] = dict.fromkeys(keys)  # the keys that are to be stored
        self.tags = tags
        self.stamp = stamp
        self.forced = forced


@final
class Loads(Generic[K, V]):
    """The loads of one cache that are under way.

    Args:
        name: The cache's name, for events.
        stock: Where values are stored.
        timeouts: How long loads may take.
    """

    __slots__ = ("_finish", "_hard", "_kept", "_name", "_soft", "_stock", "_table")

    def __init__(self, name: str, stock: Stock[K, V], timeouts: LoadTimeouts) -> None:
        self._name = name
        self._stock = stock
        self._soft = None if timeouts.soft is None else Timeout(timeouts.soft)
        self._hard = None if timeouts.hard is None else Timeout(timeouts.hard)
        self._finish = timeouts.abandoned == "finish"
        self._table: dict[K, Load[K, V]] = {}
        self._kept: dict[Load[K, V], None] = {}

    def find(self, key: K) -> Load[K, V] | None:
        """Return the load of ``key`` that can be joined, or None."""
        load = self._table.get(key)
        return load if load is not None and load.flight.open else None

    def begin(
        self,
        keys: Sequence[K],
        work: Callable[[Load[K, V]], Awaitable[Found[K, V]]],
        *,
        tags: Sequence[str] = (),
        forced: bool = False,
    ) -> Load[K, V]:
        """Begin a load, which has to be joined at once; earlier loads of the keys store nothing.

        Args:
            keys: What it brings, each once.
            work: Brings it.
            tags: What the values are tagged with.
            forced: Whether it asks the loader, whatever other tiers hold.
        """
        self.detach(keys)
        stamp = self._stock.tags.stamp(tags) if tags else NO_TAGS
        load: Load[K, V] = Load(keys, tags, stamp, forced=forced)
        load.flight = Flight(partial(self._fly, load, work), ended=lambda _: self._ended(load))
        for key in keys:
            self._table[key] = load
        if self._finish:
            self._keep(load)
        return load

    def refresh(
        self,
        keys: Sequence[K],
        work: Callable[[Load[K, V]], Awaitable[Found[K, V]]],
        *,
        tags: Sequence[str] = (),
    ) -> None:
        """Begin a load in the background, unless there are too many of them."""
        if len(self._kept) < _MOST_KEPT:
            self._keep(self.begin(keys, work, tags=tags, forced=True))

    async def obtain(
        self,
        key: K,
        loader: Callable[[K], Awaitable[V]],
        *,
        tags: Sequence[str] = (),
        forced: bool = False,
    ) -> V:
        """Join the load of ``key`` or begin one; return the value."""
        self._stock.misses += 1
        while True:
            load = self.find(key)
            if load is None or (forced and not load.forced):
                load = self.begin((key,), self.one(key, loader), tags=tags, forced=forced)
            else:
                self._stock.joins += 1
            value = await self._value(load, key)
            if value is not MISSING:
                return value
            # A batch loader has left the key out; this call's own loader may know it.

    def one(
        self, key: K, loader: Callable[[K], Awaitable[V]]
    ) -> Callable[[Load[K, V]], Awaitable[Found[K, V]]]:
        """Return the work of a load of one key."""

        async def work(_: Load[K, V]) -> Found[K, V]:
            self._stock.loads += 1
            return {key: await loader(key)}

        return work

    def detach(self, keys: Iterable[K]) -> None:
        """Let the loads of ``keys`` store nothing of them; later callers begin anew."""
        for key in keys:
            load = self._table.pop(key, None)
            if load is not None:
                load.live.pop(key, None)

    def detach_matching(self, fits: Callable[[K], bool]) -> None:
        """Detach the loads of all keys that fit. O(keys that are being loaded)."""
        self.detach([key for key in self._table if fits(key)])

    def detach_tags(self, tags: Iterable[str]) -> None:
        """Detach all loads with one of ``tags``. O(keys that are being loaded)."""
        gone = set(tags)
        self.detach([key for key, load in self._table.items() if not gone.isdisjoint(load.tags)])

    def detach_all(self) -> None:
        """Detach all loads."""
        self.detach(list(self._table))

    async def dismiss(self) -> None:
        """Cancel what runs in the background and wait, shielded, for its end."""
        self.detach_all()
        with CancelScope(shield=True):
            async with create_task_group() as group:
                for load in self._kept:
                    group.start_soon(load.flight.dismiss)

    def at_hand(self, key: K) -> Entry[K, V | Missing] | None:
        """Return the entry that may stand in for one that is late, fresh or stale."""
        entry = self._stock.look(key)
        return None if entry is None or entry.value is MISSING else entry

    async def _value(self, load: Load[K, V], key: K) -> V | Missing:
        """Wait for the value of one key, or take what stands in for it."""
        try:
            value = await self._softly(load, key)
            if isinstance(value, Failed):
                raise copied(value.error) or value.error
        except Exception:
            entry = self.at_hand(key) if self._stock.ttl.stale else None
            if entry is None:
                raise
            self._stock.stale += 1
            return entry.value
        return value

    async def _softly(self, load: Load[K, V], key: K) -> V | Missing | Failed:
        """Wait for a load, in its soft time only if there is a value at hand by then."""
        if self._soft is None:
            return (await load.flight.join())[key]
        entry: Entry[K, V | Missing] | None = None
        scope, alarms = self._soft.fresh()

        def give_up() -> None:
            nonlocal entry
            entry = self.at_hand(key)
            if entry is not None:
                self._keep(load)
                scope.cancel()

        alarms.arm(give_up)
        try:
            with scope:
                return (await load.flight.join())[key]
        finally:
            alarms.disarm(give_up)
        assert entry is not None, "only its own alarm cancels the scope"
        self._stock.stale += 1
        return entry.value

    async def _fly(
        self, load: Load[K, V], work: Callable[[Load[K, V]], Awaitable[Found[K, V]]]
    ) -> Found[K, V]:
        """Run a load inside its flight, and store what it brings."""
        began = monotonic()
        try:
            found = await self._bounded(load, work)
        except Exception as error:
            self._failed(load, error)
            raise
        self._store(load, found, monotonic() - began)
        return found

    async def _bounded(
        self, load: Load[K, V], work: Callable[[Load[K, V]], Awaitable[Found[K, V]]]
    ) -> Found[K, V]:
        """Run the work within the hard time."""
        try:
            with nullcontext() if self._hard is None else self._hard.scope():
                return await work(load)
        except get_cancelled_exc_class():
            if load.flight.open:  # nobody has cancelled it but itself
                raise LoadAbortedError(key=str(load.key)) from None
            raise

    def _store(
        self, load: Load[K, V], found: Mapping[K, V | Missing | Failed], cost: float
    ) -> None:
        """Store what is still wanted."""
        now = monotonic()
        for key, value in found.items():
            if isinstance(value, Failed):
                continue
            if key in load.live:
                life = self._stock.ttl.life(value, now)
                self._stock.put(key, value, life, cost=cost, stamp=load.stamp)
            else:
                self._stock.rejected += 1

    def _failed(self, load: Load[K, V], error: Exception) -> None:
        """Count and tell an error; let stale entries rest."""
        self._stock.errors += 1
        self._stock.failed(load.live)
        if listening():
            emit(LoadFailed(self._name, str(load.key), error))

    def _keep(self, load: Load[K, V]) -> None:
        load.flight.keep()
        self._kept[load] = None

    def _ended(self, load: Load[K, V]) -> None:
        """Take a load out of the tables; if it is being cancelled, it stores nothing any more."""
        self._kept.pop(load, None)
        self.detach(list(load.live))
