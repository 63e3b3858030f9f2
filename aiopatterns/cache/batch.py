"""Batches: many keys, one call of a loader for those that nobody has or is loading.

::

    keys --> in memory ---------------------------------> answered
         |-> being loaded, alone or in a batch ---------> waited for
         '-> missing --> one call: loader([k3, k7, ...]) --> stored, answered

A caller waits for all loads that concern it at once: it has a seat in each, so none of them is
cancelled for lack of waiters while this one waits for another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, cast, final

from aiopatterns.cache.load import Failed
from aiopatterns.cache.terms import MISSING
from aiopatterns.core.flight import copied, see_off

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from aiopatterns.cache.load import Found, Load
    from aiopatterns.cache.loads import Loads
    from aiopatterns.cache.memory import Entry
    from aiopatterns.cache.stock import Stock
    from aiopatterns.core.flight import Seat

__all__ = ["Batch"]

K = TypeVar("K")
V = TypeVar("V")


@final
class Batch(Generic[K, V]):
    """One question for many keys; used once.

    Args:
        loads: The loads of the cache.
        stock: Its entries.
        loader: The batch loader.
        tags: What loaded values are tagged with.
    """

    __slots__ = ("_answer", "_loader", "_loads", "_missing", "_stale", "_stock", "_tags", "_waits")

    def __init__(
        self,
        loads: Loads[K, V],
        stock: Stock[K, V],
        loader: Callable[[list[K]], Awaitable[Mapping[K, V | Exception]]],
        *,
        tags: Sequence[str],
    ) -> None:
        self._loads = loads
        self._stock = stock
        self._loader = loader
        self._tags = tags
        self._answer: Found[K, V] = {}
        self._missing: list[K] = []
        self._stale: list[Entry[K, V]] = []
        self._waits: dict[Load[K, V], list[K]] = {}

    async def run(self, keys: Iterable[K]) -> dict[K, V | Exception]:
        """Return what is found, in the order of ``keys``."""
        wanted = dict.fromkeys(keys)
        for key in wanted:
            self._look(key)
        if self._stale:
            keys = [entry.key for entry in self._stale]
            self._loads.refresh(self._stale, self._loads.many(keys, self._loader), self._tags)
        own = None
        if self._missing:
            own = self._loads.begin(
                self._missing, self._loads.many(self._missing, self._loader), tags=self._tags
            )
            self._waits = {own: self._missing, **self._waits}
        await self._collect(own)
        answer = ((key, self._answer[key]) for key in wanted)
        return {key: _plain(value) for key, value in answer if value is not MISSING}

    def _look(self, key: K) -> None:
        """Put one key where it belongs."""
        entry = self._stock.answer(key, absent=True)
        if entry is not None:
            self._answer[key] = entry.value
            if self._stock.due(entry) and self._loads.find(key) is None:
                self._stale.append(entry)
            return
        self._stock.misses += 1
        load = self._loads.find(key)
        if load is None:
            self._missing.append(key)
        else:
            self._stock.joins += 1
            self._waits.setdefault(load, []).append(key)

    async def _collect(self, own: Load[K, V] | None) -> None:
        """Wait for all loads; an error of this batch's own loader is raised, others are values."""
        seats = {load: load.flight.board() for load in self._waits}
        try:
            for load in self._waits:
                await self._ride(load, seats.pop(load), own)
        except BaseException as error:
            last = [load.flight for load, seat in seats.items() if load.flight.leave(seat)]
            if not isinstance(error, GeneratorExit):  # a coroutine that is closed may not wait
                await see_off(last)
            raise

    async def _ride(self, load: Load[K, V], seat: Seat, own: Load[K, V] | None) -> None:
        """Wait for one load and take what concerns this batch."""
        keys = self._waits[load]
        try:
            found = await load.flight.ride(seat)
        except Exception as error:
            if load is own:
                raise
            found = dict.fromkeys(keys, Failed(error))
        self._answer.update((key, found[key]) for key in keys)


def _plain(value: V | Failed) -> V | Exception:
    return (
        cast("Exception", copied(value.error) or value.error)
        if isinstance(value, Failed)
        else value
    )
