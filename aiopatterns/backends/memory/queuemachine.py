"""The state machine of the queue protocol, in plain Python: no clock, no waiting, no I/O.

This is the reference: what workers do to jobs, while ``queueintake.py`` has what producers do. Each
verb is one atomic step at a given time in milliseconds, and the Lua scripts of the Redis queue do
the same in the same order; one test drives both with the same operations and compares all that can
be seen. Every loop is bounded by the operation's own size or by a constant below.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.memory.queuejob import Holder, Job, Place
from aiopatterns.backends.queue import MAX_BATCH, ClaimedJob
from aiopatterns.backends.queuetimes import whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiopatterns.backends.memory.queuestate import State
    from aiopatterns.backends.queue import JobState, Settled, Turn

__all__ = ["Machine", "Stepped"]

# What one step does at most beside its own batch: jobs promoted, workers taken back, jobs looked at
# that a limit holds back. The scripts have the same numbers.
_PROMOTED: Final = 200
_REAPED: Final = 2
_EXAMINED: Final = 500
# Jobs that are taken from a lane at once; in between, who was offered a place comes to its head.
_CHUNK: Final = 32
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
        self.reaped: bool = False
        self.quarantine: bool = False
        self.more: bool = False
        self.told: bool = False


@final
class Machine:
    """The workers of one queue.

    Args:
        state: The jobs.

    Attributes:
        holders: Workers whose jobs have not been taken back.
    """

    __slots__ = ("_appointed", "_limits", "_places", "_soonest", "_state", "holders")

    def __init__(self, state: State) -> None:
        self._state = state
        self._places = state.places
        self._limits = state.limits
        self.holders: dict[str, Holder] = {}
        self._appointed: Holder | None = None  # is to run dry for the suspects
        self._soonest = _NEVER  # no lease ends before

    # ----------------------------------------------------------------------------------- step

    def step(self, turn: Turn, now: int) -> Stepped:
        """Settle, renew, promote, take back, limit and claim, in this order."""
        stepped = Stepped()
        holder = self.holders.get(turn.worker)
        if holder is None:
            holder = self.holders[turn.worker] = Holder(turn.worker)
            stepped.reaped = turn.number > 1
        if new := turn.number > holder.number:
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
        stepped.more |= self._state.work_off(now)
        if not turn.leave:
            self._give(holder, turn.free if new else 0, stepped, now)
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
                self._limits.free(job)
            job.holder = job.fraction = None
            if how == "retry":
                self._retry(job, each, now)
            elif how == "demote":
                job.priority = max(0, job.priority - 1)
                self._retry(job, each, now)
            elif how == "release":
                self._give_back(job, backs, now)
            else:
                self._state.end(job, how, each.data, now, tries=job.tries + each.counted)
        self._limits.flush()
        self._places.push(backs)
        return stale

    def _retry(self, job: Job, settled: Settled, now: int) -> None:
        job.tries += settled.counted
        if job.stop:
            self._state.end(job, "cancelled", b"", now, tries=job.tries)
            return
        job.since = None
        self._places.schedule(job, now + whole(settled.delay))
        self._state.tell("retrying", job.id, settled.data)

    def _give_back(self, job: Job, backs: list[Job], now: int) -> None:
        """Release a job; one that somebody wants cancelled ends."""
        if job.stop:
            self._state.end(job, "cancelled", b"", now, tries=job.tries)
            return
        backs.append(job)
        self._state.tell("queued", job.id)

    def _note_progress(self, holder: Holder, items: Iterable[tuple[str, float]]) -> None:
        for job_id, fraction in items:
            job = holder.held.get(job_id)
            if job is not None:
                job.fraction = float(fraction)
                self._state.tell("progress", job_id, repr(job.fraction).encode())

    def _look_after(self, now: int) -> bool:
        """Promote and take back; True if something was left over."""
        if self._places.scheduled:
            self._places.promote(now, _PROMOTED)
        left = now >= self._soonest and self._take_back(now)
        due = self._places.next_due()
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
        for job_id in sorted(holder.held):
            job = holder.held[job_id]
            self._limits.free(job)
            job.holder = job.fraction = None
            job.tries += 1
            if job.stop:
                self._state.end(job, "cancelled", b"", now, tries=job.tries)
            elif job.tries >= job.attempts:
                self._state.end(job, "dead", b"", now, tries=job.tries)
            else:
                job.since = now
                backs.append(job)
                self._state.tell("queued", job_id)
        self._drop(holder)
        self._limits.flush()
        self._places.push(backs)

    def _dismiss(self, holder: Holder, now: int) -> bool:
        """Release what a leaving worker still holds; True if that was too much for one step."""
        backs = list[Job]()
        for job_id in sorted(holder.held)[:MAX_BATCH]:
            job = holder.held.pop(job_id)
            self._limits.free(job)
            job.holder = job.fraction = None
            self._give_back(job, backs, now)
        self._limits.flush()
        self._places.push(backs)
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
        if not self._places.suspects:
            self._appointed = None
        if self._state.paused:
            return
        if holder.alone:
            holder.full = True
            return
        if self._places.suspects and self._give_alone(holder, free, stepped, now):
            holder.full = True
            return
        if free:
            stepped.claimed = self._claim(holder, free, now)
            holder.full = len(stepped.claimed) == free
        stepped.more |= self._places.any_queued()

    def _give_alone(self, holder: Holder, free: int, stepped: Stepped, now: int) -> bool:
        """Deal with suspects; True if that is all for this worker now."""
        if holder.held:
            appointed = self._appointed
            if appointed is None or self.holders.get(appointed.id) is not appointed:
                self._appointed = appointed = holder
            stepped.quarantine = appointed is holder
            return stepped.quarantine
        for _ in range(min(len(self._places.suspects), _EXAMINED if free else 0)):
            job = self._state.jobs[self._places.take_suspect()]
            if self._limits.admit(job, now):
                stepped.claimed = [self._start(job, holder)]
                self._places.news = bool(self._places.suspects)
                if self._appointed is holder:
                    self._appointed = None
                self._limits.flush()
                return True
        self._limits.flush()
        return False

    def _claim(self, holder: Holder, free: int, now: int) -> list[ClaimedJob]:
        """Take up to ``free`` jobs from the lanes, the highest first."""
        claimed = list[ClaimedJob]()
        examined = _EXAMINED
        for priority in range(9, -1, -1):
            lane = self._places.lanes[priority]
            while lane and len(claimed) < free and examined > 0:
                most = min(free - len(claimed), _CHUNK)
                examined -= self._claim_some(priority, holder, claimed, most, now)
        return claimed

    def _claim_some(
        self, priority: int, holder: Holder, claimed: list[ClaimedJob], most: int, now: int
    ) -> int:
        """Take up to ``most`` jobs from a lane; return how many of them a limit holds back."""
        held_back = 0
        for job in self._places.take(priority, most):
            if job.limits and not self._limits.admit(job, now):
                held_back += 1
            else:
                claimed.append(self._start(job, holder))
        self._limits.flush()
        return held_back

    def _start(self, job: Job, holder: Holder) -> ClaimedJob:
        job.place = Place.RUN
        job.holder = holder
        holder.held[job.id] = job
        if job.unique is not None:
            self._state.unique.start(job)
        if self._state.events is not None:
            self._state.tell("started", job.id)
        return ClaimedJob(job.id, job.body, job.tries + 1, job.since is not None)

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
        job = self._state.jobs.get(id)
        if job is None:
            return self._state.kept.state(id, now), None
        if job.holder is not None:
            job.stop = job.holder.asked = True
            return "running", job.holder.id
        self._state.withdraw(job)
        self._state.end(job, "cancelled", b"", now, tries=job.tries)
        return "cancelled", None
