"""A lane: where results wait for their reader, in order of their end or of their start.

Jobs are put in when they have finished, or, where the order of the input counts, when they are
taken from the source; then the first in line may still run, and those behind it wait. The reader
gets all that can be read, and when the run is over the failure, if there was one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

from aiopatterns.core.clock import yield_now
from aiopatterns.core.notes import note
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TURN", "Job", "Lane"]

T = TypeVar("T")
Y = TypeVar("Y")

# Calls or reads that never suspend, until the loop is given a turn (as in flow.channel).
TURN: Final = 64


@final
class Job(Generic[T, Y]):
    """One item on its way."""

    __slots__ = ("attempts", "finished", "index", "item", "skipped", "started", "value")

    value: Y

    def __init__(self, item: T, index: int) -> None:
        self.item: T = item
        self.index: int = index
        self.attempts: int = 0
        self.started: float = 0.0
        self.finished: bool = False
        self.skipped: bool = False


@final
class Lane(Generic[T, Y]):
    """The reader's side of one run.

    Args:
        ordered: Whether jobs are read in the order in which they were started.
        hungry: Tasks that wait for room.
        read: Called when a job was read, which makes room, and somebody is hungry.

    ``open`` counts the jobs that were taken from the source and not read yet.
    """

    __slots__ = (
        "_failure",
        "_hungry",
        "_jobs",
        "_ordered",
        "_others",
        "_over",
        "_readers",
        "_reads_left",
        "_was_read",
        "open",
    )

    def __init__(self, *, ordered: bool, hungry: Waiters, read: Callable[[], None]) -> None:
        self._ordered = ordered
        self._hungry = hungry.parked
        self._was_read = read
        self.open: int = 0
        self._jobs: deque[Job[T, Y]] = deque()
        self._readers = Waiters()
        self._reads_left = TURN
        self._failure: Exception | None = None
        self._others = 0
        self._over = False

    async def read(self) -> Y:
        """Return the next result.

        Raises:
            StopAsyncIteration: There is none any more.
            Exception: The first failure; raised once.

        Cancellation: nothing was read.
        """
        jobs = self._jobs
        while True:
            if self._reads_left <= 0 or not jobs or not jobs[0].finished:
                await self._arrival()
            self._reads_left -= 1
            job = jobs.popleft()
            self.open -= 1
            if self._hungry:
                self._was_read()
            if self._readers.parked and jobs and jobs[0].finished:
                self._readers.wake()
            if not job.skipped:
                return job.value

    def started(self, job: Job[T, Y]) -> None:
        """Count ``job``, and give it its place if that is the order."""
        self.open += 1
        if self._ordered:
            self._jobs.append(job)

    def finished(self, job: Job[T, Y]) -> None:
        """Let ``job`` be read."""
        job.finished = True
        if not self._ordered:
            self._jobs.append(job)
        if self._readers.parked and self._jobs[0].finished:
            self._readers.wake()

    def fail(self, error: Exception) -> None:
        """Keep the first failure; count the others."""
        if self._failure is None:
            self._failure = error
        else:
            self._others += 1

    def end(self) -> None:
        """End the run: readers get what can be read, then the failure or the end."""
        self._over = True
        self._readers.wake_all()

    def unread(self) -> int:
        """Return how many jobs have finished and were not read. Complexity: O(window)."""
        return sum(job.finished for job in self._jobs)

    async def _arrival(self) -> None:
        """Give the loop its turn if it is due, then wait until the next job may be read."""
        if self._reads_left <= 0:
            self._reads_left = TURN
            await yield_now()
        while not self._jobs or not self._jobs[0].finished:
            if self._over:
                raise self._verdict() or StopAsyncIteration
            await self._readers.wait()

    def _verdict(self) -> Exception | None:
        """Return the failure, once, with a note about those that came after it."""
        failure, self._failure = self._failure, None
        if failure is not None and self._others:
            note(failure, f"{self._others} more failed before everything had ended")
        return failure
