"""The state machine of the queue protocol, in plain Python: no clock, no waiting, no I/O.

This is the reference. Each verb is one atomic step at a given time in milliseconds, and the Lua
scripts of the Redis queue do the same in the same order; one test drives both with the same
operations and compares all that can be seen. The verbs are put together from parts with one
concept each::

    Machine --- Places    lanes, suspects, due times
       |------- Limits    buckets: parked jobs, rates
       |------- UniqueKeys
       |------- Edges     who waits for whom
       `------- Kept      outcomes, dead letters

Every loop is bounded by the operation's own size or by a constant below.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, final

from aiopatterns.backends.memory.queueedges import Edges
from aiopatterns.backends.memory.queuejob import Holder, Job, Place
from aiopatterns.backends.memory.queuekept import Kept
from aiopatterns.backends.memory.queuelimits import Limits
from aiopatterns.backends.memory.queueplaces import Places
from aiopatterns.backends.memory.queueunique import UNTIL_START, UniqueKeys
from aiopatterns.backends.queue import (
    MAX_BATCH,
    ClaimedJob,
    Enqueued,
    Outcome,
    QueueEvent,
)
from aiopatterns.backends.queuetimes import due_in, whole

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from aiopatterns.backends.memory.home import MemoryHome
    from aiopatterns.backends.queue import EventKind, JobState, NewJob, Settled, Turn

__all__ = ["Machine", "Stepped"]

# What one step does at most beside its own batch: jobs promoted, workers taken back, dependents
# released or cancelled, jobs looked at that a limit holds back. The scripts have the same numbers.
_PROMOTED: Final = 200
_REAPED: Final = 2
_DEPENDENTS: Final = 1_000
_EXAMINED: Final = 500
_NEVER: Final = 2**63


@final
class Stepped:
    """What one step came to; the fields are those of ``Turned``.

    Attributes:
        told: A worker that can take no more was told when the next job is due, so another one
            has to know too.
    """

    __slots__ = ("cancels", "claimed", "more", "quarantine", "reaped", "stale", "told")

    def __init__(self) -> None:
        self.claimed: list[ClaimedJob] = []
        self.stale: list[str] = []
        self.cancels: list[str] = []
        self.reaped = False
        self.quarantine = False
        self.more = False
        self.told = False


@final
class Machine:
    """One queue.

    Args:
        home: Whose time it is that outcomes, windows and rates are forgotten by.

    Attributes:
        events: What happened, as long as somebody watches, else None.
    """

    __slots__ = (
        "_appointed",
        "_soonest",
        "edges",
        "events",
        "holders",
        "jobs",
        "kept",
        "limits",
        "paused",
        "places",
        "unique",
    )

    def __init__(self, home: MemoryHome) -> None:
        self.places = Places()
        self.limits = Limits(home, self.places)
        self.unique = UniqueKeys(home)
        self.edges = Edges()
        self.kept = Kept(home)
        self.jobs: dict[str, Job] = {}
        self.holders: dict[str, Holder] = {}
        self.paused = False
        self.events: list[QueueEvent] | None = None
        self._appointed: Holder | None = None
        self._soonest = _NEVER  # no lease ends before

    # -------------------------------------------------------------------------------- enqueue

    def enqueue(self, jobs: Sequence[NewJob], now: int) -> list[Enqueued]:
        """Add jobs, in order."""
        answers = [self._add(new, now) for new in jobs]
        self.limits.flush()
        self.work_off(now)
        return answers

    def _add(self, new: NewJob, now: int) -> Enqueued:
        id = new.id
        if self._is_known(id, now):
            return Enqueued(id, False)
        if new.unique is not None:
            first = self._first(new, now)
            if first is not None:
                return Enqueued(first, False)
        job = Job(new, whole(new.keep))
        self.jobs[id] = job
        self.tell("queued", id)
        doomed = self._tie(job, now)
        if job.unique is not None:
            self.unique.take(job)
        job.at = _due(new, now)
        if doomed:
            self._untie(job)
            self._end(job, "cancelled", b"", now, tries=0)
        else:
            self._place(job, now)
        return Enqueued(id, True)

    def _is_known(self, id: str, now: int) -> bool:
        return id in self.jobs or id in self.edges.ended or self.kept.state(id, now) != "unknown"

    def _first(self, new: NewJob, now: int) -> str | None:
        """Return the job that has the key of ``new``, changed as the mode says, or None."""
        assert new.unique is not None, "asked for jobs with a key only"
        key, mode, _ = new.unique
        job = self.unique.holder(key)
        if job is None:
            return self.unique.window(key)
        if mode in UNTIL_START and job.unique is not None and job.unique.mode in UNTIL_START:
            job.body = new.body
            if mode == "debounce":
                self._postpone(job, _due(new, now), now)
        return job.id

    def _postpone(self, job: Job, at: int, now: int) -> None:
        """Start the delay of a job anew that has not started."""
        if job.place is Place.WAIT:
            job.at = at
        elif at > now:
            self._withdraw(job)
            self.limits.forget(job)
            self.places.schedule(job, at)

    def _tie(self, job: Job, now: int) -> bool:
        """Make ``job`` wait for its parents; True if one of them has ended badly."""
        doomed = False
        for parent in job.after:
            if parent in self.edges.ended:
                doomed = doomed or not self.edges.ended[parent]
            elif parent in self.jobs:
                self.edges.add(job, parent, strict=True)
            else:
                doomed = doomed or self.kept.state(parent, now) in {"dead", "cancelled"}
        running = None if job.unique is None else self.unique.running(job.unique)
        if running is not None:
            self.edges.add(job, running, strict=False)
        return doomed

    def _untie(self, job: Job) -> None:
        """Let ``job`` wait for nobody."""
        running = None if job.unique is None else self.unique.running(job.unique)
        self.edges.remove(job, (*job.after, *(() if running is None else (running,))))

    def _place(self, job: Job, now: int) -> None:
        """Put a job that has not started where it belongs."""
        if job.left:
            job.place = Place.WAIT
            self.edges.waiting[job.id] = job
        elif job.at > now:
            self.places.schedule(job, job.at)
        else:
            self.places.append(job)

    # ----------------------------------------------------------------------------------- step

    def step(self, turn: Turn, now: int) -> Stepped:
        """Settle, renew, promote, take back, limit and claim, in this order."""
        stepped = Stepped()
        holder = self.holders.get(turn.worker)
        if holder is None:
            holder = self.holders[turn.worker] = Holder(turn.worker)
            stepped.reaped = turn.number > 1
        if turn.number > holder.number:
            holder.number = turn.number
            if turn.settled:
                stepped.stale = self._settle(holder, turn.settled, now)
        if turn.progress:
            self._note_progress(holder, turn.progress.items())
        holder.until = now + whole(turn.lease)
        self._soonest = min(self._soonest, holder.until)
        stepped.more = self._look_after(now)
        if turn.leave:
            stepped.more |= self._dismiss(holder, now)
        stepped.more |= self.work_off(now)
        if not turn.leave:
            self._give(holder, turn.free, stepped, now)
            stepped.told = holder.full
        if holder.asked:
            stepped.cancels = [job.id for job in holder.held.values() if job.stop]
            holder.asked = bool(stepped.cancels)
        return stepped

    def _settle(self, holder: Holder, settled: Sequence[Settled], now: int) -> list[str]:
        """Do what the worker says of the jobs that it holds; return the others."""
        stale, backs = list[str](), list[Job]()
        pop = holder.held.pop
        for each in settled:
            job = pop(each.id, None)
            if job is None:
                stale.append(each.id)
                continue
            how = each.how
            if job.limits:
                self.limits.free(job)
            job.holder = job.fraction = None
            if how == "done" or how == "dead" or how == "cancelled":  # noqa: PLR1714 - half the time
                self._end(job, how, each.data, now, tries=job.tries + each.counted)
            elif how == "release":
                self._give_back(job, backs, now)
            else:
                self._retry(job, each, now)
        self.limits.flush()
        self.places.push(backs)
        return stale

    def _retry(self, job: Job, settled: Settled, now: int) -> None:
        job.tries += settled.counted
        if job.stop:
            self._end(job, "cancelled", b"", now, tries=job.tries)
            return
        job.since = None
        self.places.schedule(job, now + whole(settled.delay))
        self.tell("retrying", job.id, settled.data)

    def _give_back(self, job: Job, backs: list[Job], now: int) -> None:
        """Release a job; one that somebody wants cancelled ends."""
        if job.stop:
            self._end(job, "cancelled", b"", now, tries=job.tries)
            return
        backs.append(job)
        self.tell("queued", job.id)

    def _note_progress(self, holder: Holder, items: Iterable[tuple[str, float]]) -> None:
        for id, fraction in items:
            job = holder.held.get(id)
            if job is not None:
                job.fraction = float(fraction)
                self.tell("progress", id, repr(job.fraction).encode())

    def _look_after(self, now: int) -> bool:
        """Promote and take back; True if something was left over."""
        if self.places.scheduled:
            self.places.promote(now, _PROMOTED)
        left = now >= self._soonest and self._take_back(now)
        due = self.places.next_due()
        return left or (due is not None and due <= now)

    def _take_back(self, now: int) -> bool:
        """Take back the jobs of workers whose lease has ended; True if some are left over."""
        gone = [each for each in self.holders.values() if each.until <= now]
        gone.sort(key=lambda each: (each.until, each.id))
        for holder in gone[:_REAPED]:
            self._reap(holder, now)
        self._soonest = min((each.until for each in self.holders.values()), default=_NEVER)
        return self._soonest <= now

    def _reap(self, holder: Holder, now: int) -> None:
        """Take back the jobs of a worker whose lease has ended."""
        backs = list[Job]()
        for id in sorted(holder.held):
            job = holder.held[id]
            self.limits.free(job)
            job.holder = job.fraction = None
            job.tries += 1
            if job.stop:
                self._end(job, "cancelled", b"", now, tries=job.tries)
            elif job.tries >= job.attempts:
                self._end(job, "dead", b"", now, tries=job.tries)
            else:
                job.since = now
                backs.append(job)
                self.tell("queued", id)
        self._drop(holder)
        self.limits.flush()
        self.places.push(backs)

    def _dismiss(self, holder: Holder, now: int) -> bool:
        """Release what a leaving worker still holds; True if that was too much for one step."""
        backs = list[Job]()
        for id in sorted(holder.held)[:MAX_BATCH]:
            job = holder.held.pop(id)
            self.limits.free(job)
            job.holder = job.fraction = None
            self._give_back(job, backs, now)
        self.limits.flush()
        self.places.push(backs)
        if not holder.held:
            self._drop(holder)
        return bool(holder.held)

    def _drop(self, holder: Holder) -> None:
        del self.holders[holder.id]
        holder.held = {}
        if self._appointed is holder:
            self._appointed = None

    # ---------------------------------------------------------------------------------- claim

    def _give(self, holder: Holder, free: int, stepped: Stepped, now: int) -> None:
        """Give out jobs to a worker that can take ``free`` more."""
        holder.full = not free
        if not self.places.suspects:
            self._appointed = None
        if self.paused:
            return
        if holder.alone:
            holder.full = True
            return
        if self.places.suspects and self._give_alone(holder, free, stepped, now):
            holder.full = True
            return
        if free:
            stepped.claimed = self._claim(holder, free, now)
            holder.full = len(stepped.claimed) == free
        stepped.more |= self.places.any_queued()

    def _give_alone(self, holder: Holder, free: int, stepped: Stepped, now: int) -> bool:
        """Deal with suspects; True if that is all for this worker now."""
        if holder.held:
            appointed = self._appointed
            if appointed is None or self.holders.get(appointed.id) is not appointed:
                self._appointed = appointed = holder
            stepped.quarantine = appointed is holder
            return stepped.quarantine
        for _ in range(min(len(self.places.suspects), _EXAMINED if free else 0)):
            job = self.jobs[self.places.take_suspect()]
            if self.limits.admit(job, now):
                stepped.claimed = [self._start(job, holder)]
                self.places.news = bool(self.places.suspects)
                if self._appointed is holder:
                    self._appointed = None
                return True
        self.limits.flush()
        return False

    def _claim(self, holder: Holder, free: int, now: int) -> list[ClaimedJob]:
        """Take up to ``free`` jobs from the lanes, the highest first."""
        claimed = list[ClaimedJob]()
        examined = _EXAMINED
        for priority in range(9, -1, -1):
            while self.places.lanes[priority] and len(claimed) < free and examined > 0:
                for job in self.places.take(priority, free - len(claimed)):
                    if job.limits and not self.limits.admit(job, now):
                        examined -= 1
                    else:
                        claimed.append(self._start(job, holder))
                self.limits.flush()
        return claimed

    def _start(self, job: Job, holder: Holder) -> ClaimedJob:
        job.place = Place.RUN
        job.holder = holder
        holder.held[job.id] = job
        if job.unique is not None:
            self.unique.start(job)
        if self.events is not None:
            self.tell("started", job.id)
        return ClaimedJob(job.id, job.body, job.tries + 1, job.since is not None)

    # ------------------------------------------------------------------------------------ end

    def _end(
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
            for id, strict in edges:
                self._release(self.jobs[id], now, cancel=strict and not well)
        self.limits.flush()
        return bool(self.edges.ended)

    def _release(self, job: Job, now: int, *, cancel: bool) -> None:
        """Take one edge from a waiting job."""
        job.left -= 1
        if cancel:
            del self.edges.waiting[job.id]
            self._untie(job)
            self._end(job, "cancelled", b"", now, tries=job.tries)
        elif not job.left:
            del self.edges.waiting[job.id]
            self._place(job, now)

    def _withdraw(self, job: Job) -> None:
        """Take a job that does not run out of its place."""
        if job.place is Place.WAIT:
            del self.edges.waiting[job.id]
            self._untie(job)
        elif job.place is Place.PARK:
            self.limits.remove(job)
        else:
            self.places.remove(job)
        self.limits.offer(job)

    # ------------------------------------------------------------------------------ management

    def idle(self, worker: str, now: int) -> tuple[bool, float]:
        """Return whether ``worker`` can take no more, and in how many seconds it has to look anew.

        It has to when the lease of another one ends, or never (infinite).
        """
        holder = self.holders.get(worker)
        if holder is not None and holder.full:
            return True, math.inf
        ends = (each.until for each in self.holders.values() if each is not holder)
        return False, max(0, min(ends, default=math.inf) - now) / 1_000

    def cancel(self, id: str, now: int) -> tuple[JobState, str | None]:
        """Cancel one job; return its state, and the worker to tell if it runs."""
        job = self.jobs.get(id)
        if job is None:
            return self.kept.state(id, now), None
        if job.holder is not None:
            job.stop = job.holder.asked = True
            return "running", job.holder.id
        self._withdraw(job)
        self._end(job, "cancelled", b"", now, tries=job.tries)
        return "cancelled", None

    def requeue(self, ids: Collection[str], now: int) -> int:
        """Queue dead letters again."""
        self.kept.trim(now)
        found = 0
        for id in ids:
            letter = self.kept.letters.pop(id, None)
            if letter is None:
                continue
            found += 1
            job = letter.job
            job.tries, job.since, job.stop, job.after = 0, None, False, ()
            self.jobs[id] = job
            self.places.append(job)
            self.tell("queued", id)
        return found

    def state(self, id: str, now: int) -> JobState:
        """Return the state of one job."""
        job = self.jobs.get(id)
        return self.kept.state(id, now) if job is None else job.place.state

    def tell(self, kind: EventKind, id: str, data: bytes = b"") -> None:
        """Note an event if somebody watches."""
        if self.events is not None:
            self.events.append(QueueEvent(kind, id, data))


def _due(new: NewJob, now: int) -> int:
    """Return from which time on a new job may run."""
    return now + due_in(new) if new.at is None else whole(new.at)
