"""What workers tell: about jobs, and about themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aiopatterns.core.telemetry import Event

__all__ = [
    "AttemptEvent",
    "BackendRecovered",
    "BackendTroubled",
    "JobCancelled",
    "JobDead",
    "JobDone",
    "JobLost",
    "JobReleased",
    "JobRetried",
    "JobStarted",
    "LoopBlocked",
]


@dataclass(frozen=True, slots=True)
class AttemptEvent(Event):
    """Base of what happens to one job in a worker.

    Args:
        queue: The queue.
        job: The job's name; empty if its bytes could not be read.
        job_id: Its id.
        attempt: Which attempt, from 1.
        correlation_id: Id that joins everything done for one request, or None.
    """

    name: ClassVar[str] = "aiopatterns.job"
    level: ClassVar[str] = "debug"

    queue: str
    job: str
    job_id: str
    attempt: int
    correlation_id: str | None


@dataclass(frozen=True, slots=True)
class JobStarted(AttemptEvent):
    """An attempt begins."""

    name: ClassVar[str] = "aiopatterns.job.started"


@dataclass(frozen=True, slots=True)
class JobDone(AttemptEvent):
    """A job is done; ``seconds`` is how long the attempt took."""

    name: ClassVar[str] = "aiopatterns.job.done"

    seconds: float


@dataclass(frozen=True, slots=True)
class JobRetried(AttemptEvent):
    """An attempt failed, or asked for another time; the next one is ``delay`` seconds away."""

    name: ClassVar[str] = "aiopatterns.job.retrying"
    level: ClassVar[str] = "warning"

    delay: float
    error: Exception


@dataclass(frozen=True, slots=True)
class JobDead(AttemptEvent):
    """A job failed for good and is a dead letter."""

    name: ClassVar[str] = "aiopatterns.job.dead"
    level: ClassVar[str] = "error"

    error: Exception


@dataclass(frozen=True, slots=True)
class JobCancelled(AttemptEvent):
    """A job was cancelled, as somebody has asked."""

    name: ClassVar[str] = "aiopatterns.job.cancelled"
    level: ClassVar[str] = "info"


@dataclass(frozen=True, slots=True)
class JobReleased(AttemptEvent):
    """The worker ends before the job does and gives it back."""

    name: ClassVar[str] = "aiopatterns.job.released"
    level: ClassVar[str] = "info"


@dataclass(frozen=True, slots=True)
class JobLost(AttemptEvent):
    """Another worker has the job now; what it comes to here does not count."""

    name: ClassVar[str] = "aiopatterns.job.lost"
    level: ClassVar[str] = "warning"


@dataclass(frozen=True, slots=True)
class BackendTroubled(Event):
    """A step failed; told once for each outage. Jobs run on, and the worker tries again.

    Args:
        queue: The queue, or the partition of one.
        worker: Id of the worker.
        error: What the backend said.
    """

    name: ClassVar[str] = "aiopatterns.worker.troubled"
    level: ClassVar[str] = "warning"

    queue: str
    worker: str
    error: Exception


@dataclass(frozen=True, slots=True)
class BackendRecovered(Event):
    """The backend answers again.

    Args:
        queue: The queue, or the partition of one.
        worker: Id of the worker.
        failures: How often it did not.
        seconds: How long that took.
    """

    name: ClassVar[str] = "aiopatterns.worker.recovered"
    level: ClassVar[str] = "info"

    queue: str
    worker: str
    failures: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LoopBlocked(Event):
    """Something keeps the event loop from running; told from another thread, while it does.

    Args:
        worker: Name of the worker.
        seconds: For how long already.
        stack: Where the loop's thread is, innermost call last.
    """

    name: ClassVar[str] = "aiopatterns.worker.loop_blocked"
    level: ClassVar[str] = "warning"

    worker: str
    seconds: float
    stack: str
