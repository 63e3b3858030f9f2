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

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar, final

from anyio import CancelScope, create_task_group

from aiopatterns.cache.load import ANY, Failed, Load
from aiopatterns.cache.stock import NO_TAGS
from aiopatterns.cache.terms import MISSING, LoadFailed
from aiopatterns.cache.work import Work
from aiopatterns.core.clock import monotonic
from aiopatterns.core.flight import Flight, copied
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from aiopatterns.cache.load import Found
    from aiopatterns.cache.memory import Entry
    from aiopatterns.cache.stock import Stock
    from aiopatterns.cache.terms import LoadTimeouts, Missing
    from aiopatterns.cache.tiers import Far

__all__ = ["Loads"]

K = TypeVar("K")
V = TypeVar("V")

Bring: TypeAlias = "Callable[[Load[K, V]], Awaitable[Found[K, V]]]"
"""Brings the keys of a load, and stores them."""

# Background loads of one cache at a time; what is due beyond that is found due again by the next.
_MOST_KEPT: Final = 100
# What was loaded anew elsewhere is fresh for longer than what is here, by more than clocks differ.
_NEWER: Final = 0.05


@final
class Loads(Generic[K, V]):
    """The loads of one cache that are under way.

    Args:
        name: The cache's name, for events.
        stock: The near tier.
        timeouts: How long loads may take.
        far: The far tier, or None.
    """

    __slots__ = (
        "_closing",
        "_far",
        "_finish",
        "_kept",
        "_name",
        "_soft",
        "_stock",
        "_table",
        "work",
    )

    def __init__(
        self, name: str, stock: Stock[K, V], timeouts: LoadTimeouts, far: Far[Any, V] | None
    ) -> None:
        self._name = name
        self._stock = stock
        self._far = far
        self._soft = None if timeouts.soft is None else Timeout(timeouts.soft)
        self.work: Work[K, V] = Work(
            stock, far, None if timeouts.hard is None else Timeout(timeouts.hard)
        )
        self._finish = timeouts.abandoned == "finish"
        self._closing = False
        self._table: dict[K, Load[K, V]] = {}
        self._kept: dict[Load[K, V], None] = {}

    def find(self, key: K) -> Load[K, V] | None:
        """Return the load of ``key`` that can be joined, or None."""
        load = self._table.get(key)
        return load if load is not None and load.flight.open else None

    def begin(
        self,
        keys: Sequence[K],
        bring: Bring[K, V],
        *,
        tags: Sequence[str] = (),
        floor: float = ANY,
    ) -> Load[K, V]:
        """Begin a load, which has to be joined at once; earlier loads of the keys store nothing.

        Args:
            keys: What it brings, each once.
            bring: Brings it; see :meth:`one` and :meth:`many`.
            tags: What the values are tagged with.
            floor: How new a value of another tier must be; ``NEW``: it asks the loader.
        """
        self.detach(keys)
        stamp = self._stock.tags.stamp(tags) if tags else NO_TAGS
        load: Load[K, V] = Load(keys, tags, stamp=stamp, epoch=self._stock.epoch, floor=floor)
        load.flight = Flight(
            partial(self._fly, load, bring),
            ended=lambda _: self._ended(load),
            cancelled=load.aborted,
        )
        for key in keys:
            self._table[key] = load
        if self._finish:
            self._keep(load)
        return load

    def refresh(
        self, entries: Sequence[Entry[K, V]], bring: Bring[K, V], tags: Sequence[str]
    ) -> None:
        """Load anew in the background what nobody loads, unless there are too many of that."""
        newest = max(entry.fresh_until for entry in entries) + _NEWER
        if len(self._kept) < _MOST_KEPT and not self._closing:
            keys = [entry.key for entry in entries]
            load = self.begin(keys, bring, tags=tags, floor=max(monotonic(), newest))
            self._keep(load)

    async def obtain(
        self,
        key: K,
        loader: Callable[[K], Awaitable[V]],
        *,
        tags: Sequence[str] = (),
        floor: float = ANY,
    ) -> V:
        """Join the load of ``key`` or begin one; return the value."""
        self._stock.misses += 1
        while True:
            load = self.find(key)
            if load is None or (self._far is not None and load.floor < floor):
                load = self.begin((key,), self.one(key, loader), tags=tags, floor=floor)
            else:
                self._stock.joins += 1
            value = await self._value(load, key)
            if value is not MISSING:
                return value
            # A batch loader has left the key out; this call's own loader may know it.

    def one(self, key: K, loader: Callable[[K], Awaitable[V]]) -> Bring[K, V]:
        """Return what brings one key."""

        async def bring(load: Load[K, V]) -> Found[K, V]:
            found = await self.work.one(load, key, loader)
            if load.floor == ANY and (due := self._due(load)):
                self.refresh(due, self.one(key, loader), load.tags)
            return found

        return bring

    def many(
        self, keys: Sequence[K], loader: Callable[[list[K]], Awaitable[object]]
    ) -> Bring[K, V]:
        """Return what brings several keys by one call of a batch loader."""

        async def bring(load: Load[K, V]) -> Found[K, V]:
            found = await self.work.many(load, keys, loader)
            if load.floor == ANY and (due := self._due(load)):
                self.refresh(due, self.many([entry.key for entry in due], loader), load.tags)
            return found

        return bring

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
        """Cancel what runs in the background and wait, shielded, for its end.

        What somebody waits for goes on, and belongs to those who wait. Nothing more begins in the
        background until :meth:`reopen`.
        """
        self._closing = True
        self.detach_all()
        alone = [load for load in self._kept if not load.flight.release()]
        with CancelScope(shield=True):
            async with create_task_group() as group:
                for load in alone:
                    group.start_soon(load.flight.dismiss)

    def reopen(self) -> None:
        """Allow loads in the background again."""
        self._closing = False

    def at_hand(self, key: K) -> Entry[K, V] | None:
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
        instead: V | Missing = MISSING
        scope, alarms = self._soft.fresh()

        def give_up() -> None:
            nonlocal instead
            entry = self.at_hand(key)
            if entry is not None:
                instead = entry.value
                self._keep(load)
                scope.cancel()

        alarms.arm(give_up)
        try:
            with scope:
                return (await load.flight.join())[key]
        finally:
            alarms.disarm(give_up)
        self._stock.stale += 1  # only its own alarm cancels the scope
        return instead

    async def _fly(self, load: Load[K, V], bring: Bring[K, V]) -> Found[K, V]:
        """Run a load inside its flight."""
        try:
            return await bring(load)
        except Exception as error:
            self._failed(load, error)
            raise

    def _due(self, load: Load[K, V]) -> list[Entry[K, V]]:
        """Return what the far tier had, but only stale."""
        if self._far is None:
            return []
        entries = (self._stock.look(key) for key in load.live)
        return [entry for entry in entries if entry is not None and self._stock.due(entry)]

    def _failed(self, load: Load[K, V], error: Exception) -> None:
        """Count and tell an error; let stale entries rest."""
        self._stock.errors += 1
        self._stock.failed(load.live)
        if listening():
            emit(LoadFailed(self._name, str(load.key), error))

    def _keep(self, load: Load[K, V]) -> None:
        """Let a load go on without waiters, unless it has ended or nobody would answer for it."""
        if not self._closing and load.flight.open:
            load.flight.keep()
            self._kept[load] = None

    def _ended(self, load: Load[K, V]) -> None:
        """Take a load out of the tables; if it is being cancelled, it stores nothing any more."""
        self._kept.pop(load, None)
        self.detach(list(load.live))
