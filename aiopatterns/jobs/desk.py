"""The desk: what one opening of a queue asks its stores.

A queue has one store for each partition. A job's partition is mostly known, from its handle or
its id; of an id that the user has made in a partitioned queue it is not, and then all stores are
asked at the same time.

The desk also keeps the server's time: its difference to the monotonic clock is measured when the
queue is opened, so a job can be stamped without a round trip, and again by an enqueue that comes
:data:`TRUSTED` seconds after the last measurement. For the difference does not stay: two clocks
drift, this host is suspended, and a replica that takes over has another clock. A stamp that is an
hour behind would take an hour off the job's deadline.
"""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, final

from aiopatterns.core.clock import monotonic
from aiopatterns.flow.mapping import amap
from aiopatterns.jobs.ids import Ids, partition_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from aiopatterns.backends.queue import JobState, Outcome, Queue

__all__ = ["TRUSTED", "Desk", "Waits"]

S = TypeVar("S")
T = TypeVar("T")

#: Seconds for which a measurement of the server's time is good: one round trip in that time.
TRUSTED: Final = 5.0


class Waits(Protocol):
    """Waits for the outcomes of one store."""

    async def wait(self, job_id: str) -> Outcome:
        """Wait until a job has ended; raises as :meth:`Results.wait`."""
        ...


@final
class Desk:
    """Asks the stores of one opening.

    Args:
        stores: One for each partition.
        results: What waits for the outcomes of each.
        server_time: The server's time now.
    """

    __slots__ = ("_good_until", "_measuring", "_offset", "_results", "_turns", "ids", "stores")

    def __init__(
        self, stores: tuple[Queue, ...], results: tuple[Waits, ...], server_time: float
    ) -> None:
        self.stores: tuple[Queue, ...] = stores
        self.ids: Ids = Ids(len(stores))
        self._turns = cycle(range(len(stores)))
        self._results = results
        self._measuring = False
        self._keep(server_time)

    def now(self) -> float:
        """Return the server's time, in seconds since 1970."""
        return self._offset + monotonic()

    @property
    def outdated(self) -> bool:
        """Whether the server's time is to be measured again, and nobody is at it."""
        return monotonic() >= self._good_until and not self._measuring

    async def measure(self, time: Callable[[], Awaitable[float]]) -> None:
        """Measure the server's time again; what fails leaves it outdated.

        Args:
            time: Asks the server.
        """
        self._measuring = True
        try:
            self._keep(await time())
        finally:
            self._measuring = False

    def next_turn(self) -> int:
        """Return the partition whose turn it is."""
        return next(self._turns)

    async def all(self, question: Callable[[Queue], Awaitable[T]]) -> list[T]:
        """Ask all stores, at the same time; the first error leaves bare."""
        return await _ask(self.stores, question)

    async def outcome(self, job_id: str, partition: int | None) -> Outcome:
        """Wait until a job has ended; raises as :meth:`Results.wait`."""
        if partition is None:
            partition = await self._locate(job_id)
        return await self._results[partition].wait(job_id)

    async def states(
        self, ids: Collection[str], partition: int | None = None
    ) -> dict[str, JobState]:
        """Return the state of each of ``ids``."""
        return await self._each(ids, partition, lambda store, part: store.states(part))

    async def cancel(
        self, ids: Collection[str], partition: int | None = None
    ) -> dict[str, JobState]:
        """Cancel jobs; return the state of each afterwards."""
        return await self._each(ids, partition, lambda store, part: store.cancel(part))

    async def progress(self, job_id: str, partition: int | None) -> float | None:
        """Return the fraction that a running job last told, or None."""
        stores = self.stores if partition is None else (self.stores[partition],)
        answers = await _ask(stores, lambda store: store.progress(job_id))
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

    def _keep(self, server_time: float) -> None:
        """Keep a measurement that was just made."""
        now = monotonic()
        self._offset = server_time - now
        self._good_until = now + TRUSTED

    async def _each(
        self,
        ids: Iterable[str],
        partition: int | None,
        question: Callable[[Queue, list[str]], Awaitable[dict[str, JobState]]],
    ) -> dict[str, JobState]:
        """Ask each store about its part of ``ids``; of what several say, who knows a job is right."""
        parts = self.split(ids, partition)
        answers = await _ask(parts, lambda part: question(self.stores[part], parts[part]))
        merged: dict[str, JobState] = {}
        for answer in answers:
            for job_id, state in answer.items():
                if state != "unknown" or job_id not in merged:
                    merged[job_id] = state
        return merged

    async def _locate(self, job_id: str) -> int:
        """Return the partition that knows a job; the first if none does."""
        answers = await self.all(lambda store: store.states([job_id]))
        known = (part for part, each in enumerate(answers) if each[job_id] != "unknown")
        return next(known, 0)


async def _ask(asked: Collection[S], question: Callable[[S], Awaitable[T]]) -> list[T]:
    """Ask one, or several at the same time."""
    if len(asked) == 1:
        return [await question(each) for each in asked]
    return await amap(question, asked, limit=max(1, len(asked)))
