"""The jobs of one queue in memory, and the moves that all verbs share.

::

    State --- Places    lanes, suspects, due times
       |------- Limits    buckets: parked jobs, rates
       |------- UniqueKeys
       |------- Edges     who waits for whom
       `------- Kept      outcomes, dead letters

Each part knows one concept and nothing of the others; what concerns several of them stands here:
where a new job goes, what its end sets free, how a job is taken out of wherever it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, final

from aiopatterns.backends.memory.queueedges import Edges
from aiopatterns.backends.memory.queuejob import Place
from aiopatterns.backends.memory.queuekept import Kept
from aiopatterns.backends.memory.queuelimits import Limits
from aiopatterns.backends.memory.queueplaces import Places
from aiopatterns.backends.memory.queueunique import UniqueKeys
from aiopatterns.backends.queue import Outcome, QueueEvent

if TYPE_CHECKING:
    from collections.abc import Collection

    from aiopatterns.backends.memory.home import MemoryHome
    from aiopatterns.backends.memory.queuejob import Job
    from aiopatterns.backends.queue import EventKind, JobState

__all__ = ["State"]

# Dependents that one step releases or cancels at most; the scripts have the same number.
_DEPENDENTS: Final = 1_000


@final
class State:
    """The jobs of one queue.

    Args:
        home: Whose time it is that outcomes, windows and rates are forgotten by.

    Attributes:
        jobs: All that have not ended.
        events: What happened, as long as somebody watches, else None.
        paused: Nothing is given out.
    """

    __slots__ = ("edges", "events", "jobs", "kept", "limits", "paused", "places", "unique")

    def __init__(self, home: MemoryHome) -> None:
        self.places: Places = Places()
        self.limits: Limits = Limits(home, self.places)
        self.unique: UniqueKeys = UniqueKeys(home)
        self.edges: Edges = Edges()
        self.kept: Kept = Kept(home)
        self.jobs: dict[str, Job] = {}
        self.paused: bool = False
        self.events: list[QueueEvent] | None = None

    def is_known(self, id: str, now: int) -> bool:
        """Whether an enqueue of ``id`` would make no job."""
        return id in self.jobs or id in self.edges.ended or self.kept.state(id, now) != "unknown"

    def state(self, id: str, now: int) -> JobState:
        """Return the state of one job."""
        job = self.jobs.get(id)
        return self.kept.state(id, now) if job is None else job.place.state

    def place(self, job: Job, now: int) -> None:
        """Put a job that has not started where it belongs."""
        if job.left:
            job.place = Place.WAIT
            self.edges.waiting[job.id] = job
        elif job.at > now:
            self.places.schedule(job, job.at)
        else:
            self.places.append(job)

    def untie(self, job: Job) -> None:
        """Let ``job`` wait for nobody."""
        running = None if job.unique is None else self.unique.running(job.unique)
        self.edges.remove(job, (*job.after, *(() if running is None else (running,))))

    def withdraw(self, job: Job) -> None:
        """Take a job that does not run out of its place."""
        if job.place is Place.WAIT:
            del self.edges.waiting[job.id]
            self.untie(job)
        elif job.place is Place.PARK:
            self.limits.remove(job)
        else:
            self.places.remove(job)
        self.limits.offer(job)

    def requeue(self, ids: Collection[str], now: int) -> int:
        """Queue dead letters again."""
        self.kept.trim(now)
        found = 0
        for job_id in ids:
            letter = self.kept.letters.pop(job_id, None)
            if letter is None:
                continue
            found += 1
            job = letter.job
            job.tries, job.since, job.stop, job.after = 0, None, False, ()
            self.jobs[job_id] = job
            self.places.append(job)
            self.tell("queued", job_id)
        return found

    def end(
        self,
        job: Job,
        state: Literal["done", "dead", "cancelled"],
        data: bytes,
        now: int,
        *,
        tries: int,
    ) -> None:
        """Let a job end that is in no place any more."""
        del self.jobs[job.id]
        job.tries = tries
        if state == "dead":
            self.kept.bury(job, data, now)
        elif job.keep:
            kept = data if state == "done" else b""
            self.kept.keep(job.id, Outcome(state, kept, tries), job.keep)
        if job.unique is not None:
            self.unique.end(job)
        self.edges.end(job.id, well=state == "done")
        if self.events is not None:
            self.tell(state, job.id, data if state == "dead" else b"")

    def work_off(self, now: int) -> bool:
        """Release or cancel the dependents of what has ended; True if some are left over."""
        most = _DEPENDENTS
        while self.edges.ended and most > 0:
            well, edges = self.edges.next_ended(most)
            most -= len(edges)
            for job_id, strict in edges:
                self._release(self.jobs[job_id], now, cancel=strict and not well)
        self.limits.flush()
        return bool(self.edges.ended)

    def _release(self, job: Job, now: int, *, cancel: bool) -> None:
        """Take one edge from a waiting job."""
        job.left -= 1
        if cancel:
            del self.edges.waiting[job.id]
            self.untie(job)
            self.end(job, "cancelled", b"", now, tries=job.tries)
        elif not job.left:
            del self.edges.waiting[job.id]
            self.place(job, now)

    def tell(self, kind: EventKind, id: str, data: bytes = b"") -> None:
        """Note an event if somebody watches."""
        if self.events is not None:
            self.events.append(QueueEvent(kind, id, data))
