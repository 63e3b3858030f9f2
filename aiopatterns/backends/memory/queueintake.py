"""How jobs come into the memory queue: recognised, refused a second time by their key, or placed.

::

    known id, or its outcome is kept ---------------------> the same id, nothing made
    key is taken ---------------> body and delay by mode --> the id of the first
    a parent has ended badly -----------------------------> made, and cancelled at once
    parents, or a keep_last job of the key that runs -----> WAITING
    later ------------------------------------------------> SCHEDULED
    else -------------------------------------------------> QUEUED
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiopatterns.backends.memory.queuejob import Job, Place
from aiopatterns.backends.memory.queueunique import UNTIL_START
from aiopatterns.backends.queue import Enqueued
from aiopatterns.backends.queuetimes import due_in, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiopatterns.backends.memory.queuestate import State
    from aiopatterns.backends.queue import NewJob

__all__ = ["enqueue"]


def enqueue(state: State, jobs: Sequence[NewJob], now: int) -> list[Enqueued]:
    """Add jobs, in order."""
    answers = [_add(state, new, now) for new in jobs]
    state.limits.flush()
    state.work_off(now)
    return answers


def _add(state: State, new: NewJob, now: int) -> Enqueued:
    job_id = new.id
    if state.is_known(job_id, now):
        return Enqueued(job_id, False)
    if new.unique is not None:
        first = _first(state, new, now)
        if first is not None:
            return Enqueued(first, False)
    job = Job(new, whole(new.keep))
    state.jobs[job_id] = job
    state.tell("queued", job_id)
    doomed = _tie(state, job, now)
    if job.unique is not None:
        state.unique.take(job)
    job.at = _due(new, now)
    if doomed:
        state.untie(job)
        state.end(job, "cancelled", b"", now, tries=0)
    else:
        state.place(job, now)
    return Enqueued(job_id, True)


def _first(state: State, new: NewJob, now: int) -> str | None:
    """Return the job that has the key of ``new``, changed as the mode says, or None."""
    assert new.unique is not None, "asked for jobs with a key only"
    key, mode, _ = new.unique
    job = state.unique.holder(key)
    if job is None:
        return state.unique.window(key)
    if mode in UNTIL_START and job.unique is not None and job.unique.mode in UNTIL_START:
        job.body = new.body
        if mode == "debounce":
            _postpone(state, job, _due(new, now), now)
    return job.id


def _postpone(state: State, job: Job, at: int, now: int) -> None:
    """Start the delay of a job anew that has not started."""
    if job.place is Place.WAIT:
        job.at = at
    elif at > now:
        state.withdraw(job)
        state.limits.forget(job)
        state.places.schedule(job, at)


def _tie(state: State, job: Job, now: int) -> bool:
    """Make ``job`` wait for its parents; True if one of them has ended badly."""
    doomed = False
    for parent in job.after:
        if parent in state.edges.ended:
            doomed = doomed or not state.edges.ended[parent]
        elif parent in state.jobs:
            state.edges.add(job, parent, strict=True)
        else:
            doomed = doomed or state.kept.state(parent, now) in {"dead", "cancelled"}
    running = None if job.unique is None else state.unique.running(job.unique)
    if running is not None:
        state.edges.add(job, running, strict=False)
    return doomed


def _due(new: NewJob, now: int) -> int:
    """Return from which time on a new job may run."""
    return now + due_in(new) if new.at is None else whole(new.at)
