"""The desk: what one opening of a queue asks its stores.

A queue has one store for each partition. A job's partition is mostly known, from its handle or
its id; of an id that the user has made in a partitioned queue it is not, and then all stores are
asked at the same time.

The desk also keeps the server's time: the difference to the monotonic clock is measured when the
queue is opened, so a job can be stamped without a round trip.
"""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, TypeVar, final

from aiopatterns.core.clock import monotonic
from aiopatterns.flow.mapping import amap
from aiopatterns.jobs.ids import Ids, partition_of
from aiopatterns.jobs.results import Results

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from anyio.abc import TaskGroup

    from aiopatterns.backends.queue import JobState, Outcome, Queue

__all__ = ["Desk"]

T = TypeVar("T")


@final
class Desk:
    """Asks the stores of one opening.

    Args:
        queue: The queue's name, for errors.
        stores: One for each partition.
        server_time: The server's time now.
    """

    __slots__ = ("_offset", "_results", "_turns", "ids", "stores")

    def __init__(self, queue: str, stores: tuple[Queue, ...], server_time: float) -> None:
        self.stores = stores
        self.ids = Ids(len(stores))
        self._turns = cycle(range(len(stores)))
        self._offset = server_time - monotonic()
        self._results = tuple(Results(queue, store) for store in stores)

    def now(self) -> float:
        """Return the server's time, in seconds since 1970."""
        return self._offset + monotonic()

    def next_turn(self) -> int:
        """Return the partition whose turn it is."""
        return next(self._turns)

    def start(self, tasks: TaskGroup) -> None:
        """Be ready to watch for results; nothing is asked before somebody waits."""
        for results in self._results:
            tasks.start_soon(results.watch)
            tasks.start_soon(results.look)

    def close(self) -> None:
        """Tell all that wait that the queue was closed."""
        for results in self._results:
            results.close()

    async def outcome(self, job_id: str, partition: int | None) -> Outcome:
        """Wait until a job has ended; raises as :meth:`Results.wait`."""
        if partition is None:
            partition = await self._locate(job_id)
        return await self._results[partition].wait(job_id)

    async def states(
        self, ids: Collection[str], partition: int | None = None
    ) -> dict[str, JobState]:
        """Return the state of each of ``ids``."""
        parts = self.split(ids, partition)
        answers = await self.ask(parts, lambda part: self.stores[part].states(parts[part]))
        return _merged(answers)

    async def cancel(
        self, ids: Collection[str], partition: int | None = None
    ) -> dict[str, JobState]:
        """Cancel jobs; return the state of each afterwards."""
        parts = self.split(ids, partition)
        answers = await self.ask(parts, lambda part: self.stores[part].cancel(parts[part]))
        return _merged(answers)

    async def progress(self, job_id: str, partition: int | None) -> float | None:
        """Return the fraction that a running job last told, or None."""
        parts = self.split([job_id], partition)
        answers = await self.ask(parts, lambda part: self.stores[part].progress(job_id))
        return next((each for each in answers if each is not None), None)

    def split(self, ids: Iterable[str], partition: int | None = None) -> dict[int, list[str]]:
        """Return ``ids`` by partition; one whose partition is not known is in all of them."""
        if partition is not None:
            return {partition: list(ids)}
        parts: dict[int, list[str]] = {}
        for each in ids:
            known = partition_of(each, len(self.stores))
            for part in range(len(self.stores)) if known is None else (known,):
                parts.setdefault(part, []).append(each)
        return parts

    async def ask(self, parts: Iterable[int], question: Callable[[int], Awaitable[T]]) -> list[T]:
        """Ask a question of several partitions, at the same time; the first error leaves bare."""
        asked = list(parts)
        if len(asked) == 1:
            return [await question(asked[0])]
        return await amap(question, asked, limit=max(1, len(asked)))

    async def _locate(self, job_id: str) -> int:
        """Return the partition that knows a job; any one if none does."""
        answers = await self.ask(
            range(len(self.stores)), lambda part: self.stores[part].states([job_id])
        )
        known = (part for part, each in enumerate(answers) if each[job_id] != "unknown")
        return next(known, 0)


def _merged(answers: Iterable[dict[str, JobState]]) -> dict[str, JobState]:
    """Return the states that stores gave; who knows a job is right."""
    merged: dict[str, JobState] = {}
    for answer in answers:
        for job_id, state in answer.items():
            if state != "unknown" or job_id not in merged:
                merged[job_id] = state
    return merged
