"""What the memory queue knows of one job and of one worker.

A job is in exactly one *place*; the places refine the states that the protocol names::

    lane, park, suspect -> queued      due -> scheduled
    wait                -> waiting     run -> running

A job that has ended is no job any more: it is an outcome, or a dead letter.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, final

if TYPE_CHECKING:
    from aiopatterns.backends.queue import Bucket, JobState, NewJob, UniqueKey

__all__ = ["Holder", "Job", "Letter", "Place"]


class Place(Enum):
    """Where a job is; the value is its state."""

    LANE = ("lane", "queued")
    PARK = ("park", "queued")
    SUSPECT = ("suspect", "queued")
    DUE = ("due", "scheduled")
    WAIT = ("wait", "waiting")
    RUN = ("run", "running")

    @property
    def state(self) -> JobState:
        """The state that the protocol gives to it."""
        return self.value[1]


@final
class Job:
    """A job that has not ended. Times are whole milliseconds.

    Attributes:
        at: When it is due (place DUE; also for a waiting job that is delayed besides).
        tries: How often it was started to no end.
        left: How many jobs it waits for.
        holder: The worker that has it, in place RUN.
        since: Since when it has been a suspect, or None; until it is settled.
        bucket: The bucket that holds it back, in place PARK.
        rank: Its rank among those who were held back by a bucket, 0 for none; kept until it starts.
        turn: It has been promised a turn by its rates.
        stop: Somebody wants the running job cancelled.
        fraction: The progress that it last told.
    """

    __slots__ = (
        "after",
        "at",
        "attempts",
        "body",
        "bucket",
        "fraction",
        "holder",
        "id",
        "keep",
        "left",
        "limits",
        "place",
        "priority",
        "rank",
        "since",
        "stop",
        "tries",
        "turn",
        "unique",
    )

    def __init__(self, new: NewJob, keep: int) -> None:
        self.id: str = new.id
        self.body: bytes = new.body
        self.priority: int = new.priority
        self.attempts: int = new.attempts
        self.keep: int = keep
        self.after: tuple[str, ...] = new.after
        self.unique: UniqueKey | None = new.unique
        self.limits: tuple[Bucket, ...] = new.limits
        self.place: Place = Place.LANE
        self.at: int = 0
        self.tries: int = 0
        self.left: int = 0
        self.holder: Holder | None = None
        self.since: int | None = None
        self.bucket: str = ""
        self.rank: int = 0
        self.turn: bool = False
        self.stop: bool = False
        self.fraction: float | None = None


@final
class Holder:
    """A worker: until when it counts as alive (ms), its last turn, and what it holds."""

    __slots__ = ("asked", "full", "held", "id", "number", "until")

    def __init__(self, id: str) -> None:
        self.id: str = id
        self.number: int = 0
        self.until: int = 0
        self.held: dict[str, Job] = {}
        self.asked: bool = False  # somebody may want one of its jobs cancelled
        self.full: bool = False  # it could take no more when it last asked

    @property
    def alone(self) -> bool:
        """Whether it works on a suspect, and so on nothing else."""
        return len(self.held) == 1 and next(iter(self.held.values())).since is not None


class Letter(NamedTuple):
    """A dead letter: the job, its last error, and when it died (ms)."""

    job: Job
    error: bytes
    at: int
