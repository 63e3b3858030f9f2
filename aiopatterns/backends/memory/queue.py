"""The queue in memory: real semantics, virtual time, no other process.

The state machine is in ``queueintake.py`` (producers) and ``queuemachine.py`` (workers); this file
gives it the time, wakes workers and tells those who watch. All calls but :meth:`MemoryQueue.wait` do their work in one synchronous step, so
each is atomic on its loop.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.memory.pubsub import MemoryPubSub
from aiopatterns.backends.memory.queuebell import Bell
from aiopatterns.backends.memory.queueintake import enqueue
from aiopatterns.backends.memory.queuejob import Place
from aiopatterns.backends.memory.queuemachine import Machine
from aiopatterns.backends.memory.queuestate import State
from aiopatterns.backends.names import check_name
from aiopatterns.backends.queue import ClaimedJob, Counts, Page, StoredJob, Turned
from aiopatterns.backends.queuechecks import (
    check_ids,
    check_jobs,
    check_page,
    check_turn,
    check_wait,
)
from aiopatterns.backends.queueevents import Watch, pack_events
from aiopatterns.core.validate import positive

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from aiopatterns.backends.memory.home import MemoryHome
    from aiopatterns.backends.memory.queuejob import Job
    from aiopatterns.backends.queue import Enqueued, JobState, NewJob, Outcome, Turn

__all__ = ["MemoryQueue"]

_CHANNEL: Final = "events"


@final
class MemoryQueue:
    """The protocol ``Queue`` in memory.

    Args:
        home: The backend it belongs to.
        name: The queue's name.
    """

    __slots__ = ("_bell", "_home", "_machine", "_pubsub", "_state", "name")

    def __init__(self, home: MemoryHome, name: str) -> None:
        self.name: str = name
        self._home = home
        self._state = State(home)
        self._machine = Machine(self._state)
        self._bell = Bell()
        self._pubsub = MemoryPubSub(home)

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Add ``jobs`` in order; each is added or recognised."""
        check_jobs(jobs)
        now, due = self._now(), self._state.places.next_due()
        answers = enqueue(self._state, jobs, now)
        self._after(due)
        return answers

    async def step(self, turn: Turn) -> Turned:
        """Settle, renew, promote, take back, limit and claim, in this order, atomically."""
        check_turn(turn)
        now, places = self._now(), self._state.places
        due = places.next_due()
        stepped = self._machine.step(turn, now)
        self._bell.forget(turn.worker)
        self._after(due, idle=True, told=stepped.told)
        due = places.next_due()
        return Turned(
            stepped.claimed,
            stepped.stale,
            stepped.cancels,
            stepped.reaped,
            stepped.quarantine,
            stepped.more,
            self._state.paused,
            None if due is None else max(0, due - now) / 1_000,
            now / 1_000,
        )

    async def held(self, worker: str) -> list[ClaimedJob]:
        """Return what ``worker`` holds now."""
        check_name("worker", worker)
        self._home.require_open()
        holder = self._machine.holders.get(worker)
        jobs = () if holder is None else holder.held.values()
        return [ClaimedJob(job.id, job.body, job.tries + 1, job.since is not None) for job in jobs]

    async def wait(self, worker: str, *, timeout: float) -> bool:
        """Wait until there may be work, or ``worker`` is wanted; False after ``timeout`` seconds.

        Cancellation: hands the wake-up on.
        """
        check_wait(worker, timeout)
        full, look = self._machine.idle(worker, self._now())
        self._home.on_close(self._bell.wake_all)
        woken = await self._bell.wait(worker, min(timeout, look), deaf=full)
        self._home.require_open()
        return woken or look <= timeout

    def keeper(self, worker: str, *, lease: float) -> Callable[[], bool] | None:
        """Return None: no other process could take the jobs."""
        check_name("worker", worker)
        positive("lease", lease)
        return None

    async def cancel(self, ids: Collection[str]) -> dict[str, JobState]:
        """Cancel jobs; return the state of each afterwards."""
        check_ids(ids)
        now, state = self._now(), self._state
        due = state.places.next_due()
        states: dict[str, JobState] = {}
        for job_id in ids:
            states[job_id], worker = self._machine.cancel(job_id, now)
            if worker is not None:
                self._bell.call(worker)
        state.limits.flush()
        while state.work_off(now):
            pass
        self._after(due, idle=True)
        return states

    async def states(self, ids: Collection[str]) -> dict[str, JobState]:
        """Return the state of each of ``ids``."""
        check_ids(ids)
        now = self._now()
        return {job_id: self._state.state(job_id, now) for job_id in ids}

    async def outcomes(self, ids: Collection[str]) -> dict[str, Outcome]:
        """Return how those of ``ids`` ended that have ended and are kept."""
        check_ids(ids)
        now = self._now()
        found = ((job_id, self._state.kept.outcome(job_id, now)) for job_id in ids)
        return {job_id: outcome for job_id, outcome in found if outcome is not None}

    async def progress(self, id: str) -> float | None:
        """Return the fraction that the running job last told, or None."""
        check_name("id", id)
        self._home.require_open()
        job = self._state.jobs.get(id)
        return None if job is None else job.fraction

    async def counts(self) -> Counts:
        """Return how many jobs are where."""
        now, state, holders = self._now(), self._state, self._machine.holders
        state.kept.trim(now)
        held_back = len(state.limits.parked) + len(state.places.suspects)
        return Counts(
            queued=sum(map(len, state.places.lanes)) + held_back,
            scheduled=len(state.places.scheduled),
            waiting=len(state.edges.waiting),
            running=sum(len(each.held) for each in holders.values()),
            dead=len(state.kept.letters),
            alive=frozenset(worker for worker, each in holders.items() if each.until > now),
            paused=state.paused,
        )

    async def page(self, state: JobState, *, cursor: str | None = None, limit: int = 100) -> Page:
        """Return jobs that are queued, scheduled, waiting, running or dead, page by page."""
        first = check_page(state, cursor, limit)
        kept = self._state.kept
        kept.trim(self._now())
        if state == "dead":
            letters = islice(kept.newest_first(), first, first + limit + 1)
            stored = [_stored(each.job, "dead", each.at, each.error) for each in letters]
        else:
            jobs = islice(self._in(state), first, first + limit + 1)
            stored = [_stored(job, state, job.at if job.place is Place.DUE else 0) for job in jobs]
        more = len(stored) > limit
        return Page(stored[:limit], str(first + limit) if more else None)

    async def requeue(self, ids: Collection[str]) -> int:
        """Queue dead letters again; return how many."""
        check_ids(ids)
        now, due = self._now(), self._state.places.next_due()
        found = self._state.requeue(ids, now)
        self._after(due)
        return found

    async def purge(self, ids: Collection[str] | None = None) -> int:
        """Remove dead letters, by default all; return how many there were."""
        if ids is not None:
            check_ids(ids)
        letters = self._state.kept.letters
        self._state.kept.trim(self._now())
        chosen = set(letters) if ids is None else letters.keys() & set(ids)
        for job_id in chosen:
            del letters[job_id]
        return len(chosen)

    async def pause(self, *, paused: bool = True) -> None:
        """Give out nothing, or go on."""
        self._home.require_open()
        self._state.paused = paused
        self._after(self._state.places.next_due())

    def watch(self) -> Watch:
        """Iterate over what happens to jobs from now on."""
        return Watch(self._pubsub, _CHANNEL, self._watched)

    async def _watched(self) -> None:
        """Tell what happens until a message reaches nobody any more."""
        if self._state.events is None:
            self._state.events = []

    def _in(self, state: JobState) -> Iterable[Job]:
        """Return the jobs in one state, as they will run."""
        places, edges = self._state.places, self._state.edges
        if state == "queued":
            suspects = [self._state.jobs[job_id] for _, job_id in places.suspects]
            return (*suspects, *places.in_lanes(), *self._state.limits.by_order())
        if state == "scheduled":
            return places.by_due()
        if state == "waiting":
            return sorted(edges.waiting.values(), key=lambda job: (job.left, job.id))
        holders = sorted(self._machine.holders.items())
        return [job for _, holder in holders for job in holder.held.values()]

    def _now(self) -> int:
        return round(self._home.time() * 1_000_000) // 1_000

    def _after(self, due_before: int | None, *, idle: bool = False, told: bool = False) -> None:
        """Wake somebody if there is something to run or to know, and tell what has happened.

        Args:
            due_before: When the next job was due before.
            idle: Whether, if there is nothing, whoever comes waits.
            told: Whether the due time is known to a busy worker only.
        """
        state, places = self._state, self._state.places
        queued, due = places.any_queued(), places.next_due()
        news = places.news and places.suspects
        earlier = due is not None and (told or due_before is None or due < due_before)
        if (queued and not state.paused) or news or earlier:
            self._bell.ring()
        elif idle and not queued and not places.suspects:
            self._bell.hush()
        places.news = False
        if state.events:
            message, state.events = pack_events(state.events), []
            if not self._pubsub.publish_nowait(_CHANNEL, message):
                state.events = None


def _stored(job: Job, state: JobState, at: int, error: bytes = b"") -> StoredJob:
    return StoredJob(job.id, job.body, state, job.tries, error, at / 1_000)
