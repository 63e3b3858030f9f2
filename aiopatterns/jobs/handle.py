"""Handles: what an enqueue gives, and what can be asked about a job from anywhere.

A handle is an id and the way to ask; it owns nothing and may be dropped. Dropping it, or being
cancelled while waiting on it, leaves the job alone.

::

    WAITING    for the jobs in ``after``          DONE       its result is kept for result_ttl
    SCHEDULED  for its time, or for a retry       DEAD       failed for good; a dead letter
    QUEUED     for a worker                       CANCELLED  by somebody, or with what it waited for
    RUNNING    in a worker                        UNKNOWN    never there, or no longer kept
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, final

from anyio import move_on_after

from aiopatterns.core.errors import JobFailedError, TimeoutExceededError
from aiopatterns.core.validate import optional_positive
from aiopatterns.jobs.results import cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.backends.queue import Outcome
    from aiopatterns.jobs.desk import Desk
    from aiopatterns.jobs.envelope import Envelopes

__all__ = ["Handle", "JobStatus", "Origin"]

R_co = TypeVar("R_co", covariant=True)


class JobStatus(Enum):
    """Where a job is."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


@final
class Origin:
    """Where a handle comes from: the queue, in words and in deeds.

    Args:
        queue: The queue's name.
        envelopes: Opens results and errors.
        desk: Returns the desk to ask, or raises ClosedError.
    """

    __slots__ = ("desk", "envelopes", "queue")

    def __init__(self, queue: str, envelopes: Envelopes, desk: Callable[[], Desk]) -> None:
        self.queue: str = queue
        self.envelopes: Envelopes = envelopes
        self.desk: Callable[[], Desk] = desk


@final
class Handle(Generic[R_co]):
    """A job that was enqueued; made by ``enqueue`` and by ``job.handle(id)``.

    Attributes:
        job_id: The job's id.
        created: Whether this enqueue made the job; False if one with its unique key, or with its
            id, was there.
        partition: The partition it is in; None if the id does not tell.
    """

    __slots__ = ("_origin", "_type", "created", "job_id", "partition")

    def __init__(
        self,
        origin: Origin,
        job_id: str,
        *,
        partition: int | None,
        type: Any = Any,
        created: bool = False,
    ) -> None:
        self._origin = origin
        self._type = type
        self.job_id: str = job_id
        self.partition: int | None = partition
        self.created: bool = created

    @property
    def queue(self) -> str:
        """Name of the job's queue."""
        return self._origin.queue

    async def result(self, *, timeout: float | None = None) -> R_co:
        """Wait for the job's end and return what it returned.

        Args:
            timeout: Seconds to wait at most; None waits for ever, also while the backend is away.

        Raises:
            JobFailedError: The job failed for good; it says with what.
            JobCancelledError: The job was cancelled.
            JobNotFoundError: No such job, or its result is not kept (any more).
            TimeoutExceededError: It has not ended within ``timeout``; the job goes on.
            CodecError: The result is not of the type that the function's annotation says.
            ClosedError: The queue is not open, or was closed meanwhile.

        Cancellation: leaves the job alone.

        Complexity: 1 round trip to begin with and 1 when the job has ended, for all that wait at
        the time together; in between a live message tells, and a poll every few seconds.
        """
        optional_positive("timeout", timeout)
        desk = self._origin.desk()
        with move_on_after(timeout):
            outcome = await desk.outcome(self.job_id, self.partition)
            return cast("R_co", self._unwrap(outcome))
        msg = f"job {self.job_id} has not ended within {timeout} s; it goes on"
        raise TimeoutExceededError(msg, timeout=timeout)

    async def status(self) -> JobStatus:
        """Return where the job is. 1 round trip."""
        states = await self._origin.desk().states([self.job_id], self.partition)
        return JobStatus(states[self.job_id])

    async def progress(self) -> float | None:
        """Return the fraction that the running job last told, or None. 1 round trip."""
        return await self._origin.desk().progress(self.job_id, self.partition)

    async def cancel(self) -> JobStatus:
        """Cancel the job, and with it those that wait for it.

        Returns:
            CANCELLED if it had not started; RUNNING if its worker was asked to stop it; else
            how it had ended.

        Complexity: O(dependents), 1 round trip. Repeated safely.
        """
        states = await self._origin.desk().cancel([self.job_id], self.partition)
        return JobStatus(states[self.job_id])

    def __repr__(self) -> str:
        return f"<Handle {self.job_id} of {self._origin.queue!r}>"

    def _unwrap(self, outcome: Outcome) -> Any:
        """Return the result, or raise the error that the job ended with."""
        envelopes = self._origin.envelopes
        if outcome.state == "done":
            return envelopes.decode_result(outcome.data, self._type)
        if outcome.state == "cancelled":
            raise cancelled(self.job_id)
        record = envelopes.read_error(outcome.data)
        raise JobFailedError(
            record.message, job_id=self.job_id, type=record.type, attempts=outcome.attempts
        )
