"""What may be given to a queue: one wording for both implementations, asked before anything runs.

The common case is decided by a few comparisons; only what fails them is looked at closely, so that
the error can name the parameter, the value and what is allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from aiopatterns.backends.names import check_data, check_name, check_names
from aiopatterns.backends.queue import (
    MAX_BATCH,
    PRIORITIES,
    Bucket,
    How,
    UniqueKey,
    UniqueMode,
)
from aiopatterns.core.rate import Rate
from aiopatterns.core.validate import (
    choice,
    count,
    in_range,
    instance,
    non_negative,
    optional_count,
    positive,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aiopatterns.backends.queue import (
        JobState,
        NewJob,
        Turn,
    )

__all__ = ["check_ids", "check_jobs", "check_page", "check_turn", "check_wait"]

_MAX_LIMITS: Final = 4
_MAX_ATTEMPTS: Final = 2**31 - 1
_HOW: Final = frozenset(get_args(How))
_MODES: Final[tuple[UniqueMode, ...]] = get_args(UniqueMode)
_PAGED: Final[tuple[JobState, ...]] = ("queued", "scheduled", "waiting", "running", "dead")


def check_jobs(jobs: Sequence[NewJob]) -> bool:
    """Refuse jobs that cannot be enqueued; return whether all of them are plain.

    A plain job runs at once and needs nothing but its lane, and no two of them have one id.
    """
    plain = True
    if len(jobs) > MAX_BATCH:
        msg = f"jobs must be at most {MAX_BATCH} in one call, not {len(jobs)}"
        raise ValueError(msg)
    for job in jobs:
        job_id, body, priority, delay, at, attempts, keep, after, unique, limits = job
        if not (
            type(job_id) is str
            and 0 < len(job_id) < _SHORT
            and job_id.isascii()
            and type(body) is bytes
            and priority in PRIORITIES
            and delay == 0
            and at is None
            and type(attempts) is int
            and 0 < attempts <= _MAX_ATTEMPTS
            and 0 <= keep < _LONG
            and not after
            and unique is None
            and not limits
        ):
            _check_job(job)
            plain = plain and not (job.delay or job.at is not None or after or unique or limits)
    return plain and len({job.id for job in jobs}) == len(jobs)


# An id of fewer characters than this, if ASCII, has no more bytes than are allowed; a time of
# less than this is kept to the millisecond.
_SHORT: Final = 1_000
_LONG: Final = 1e9


def _check_job(job: NewJob) -> None:
    check_name("id", job.id)
    check_data("body", job.body)
    count("priority", job.priority, minimum=0)
    in_range("priority", job.priority, PRIORITIES[0], PRIORITIES[-1])
    non_negative("delay", job.delay)
    if job.at is not None:
        non_negative("at", job.at)
    count("attempts", job.attempts)
    in_range("attempts", job.attempts, 1, _MAX_ATTEMPTS)
    non_negative("keep", job.keep)
    check_names("after", job.after)
    if job.id in job.after:
        msg = f"after must not name the job itself, {job.id!r}"
        raise ValueError(msg)
    if job.unique is not None:
        _check_unique(job.unique)
    if len(job.limits) > _MAX_LIMITS:
        msg = f"limits must be at most {_MAX_LIMITS} buckets, not {len(job.limits)}"
        raise ValueError(msg)
    for bucket in job.limits:
        _check_bucket(bucket)
    if len({bucket.key for bucket in job.limits}) < len(job.limits):
        msg = f"limits must name each bucket once, not {[bucket.key for bucket in job.limits]!r}"
        raise ValueError(msg)


def _check_unique(unique: UniqueKey) -> None:
    instance("unique", unique, UniqueKey, "a UniqueKey or None")
    check_name("unique.key", unique.key)
    choice("unique.mode", unique.mode, _MODES)
    non_negative("unique.window", unique.window)


def _check_bucket(bucket: Bucket) -> None:
    instance("limits", bucket, Bucket, "buckets")
    check_name("limits.key", bucket.key)
    if bucket.rate is not None:
        instance("limits.rate", bucket.rate, Rate, "a Rate or None")
    optional_count("limits.concurrency", bucket.concurrency)


def check_turn(turn: Turn) -> None:
    """Refuse a turn that cannot be taken."""
    worker, number, lease, settled, free, progress, _ = turn
    check_name("worker", worker)
    count("number", number, minimum=0)
    positive("lease", lease)
    count("free", free, minimum=0)
    if free > MAX_BATCH or len(settled) > MAX_BATCH:
        msg = f"free and settled must be at most {MAX_BATCH}, not {free} and {len(settled)}"
        raise ValueError(msg)
    for job_id, how, data, delay, _ in settled:
        if how not in _HOW or type(data) is not bytes or not 0 <= delay < _LONG:
            choice("how", how, sorted(_HOW))
            check_data("data", data)
            non_negative("delay", delay)
        check_name("id", job_id)
    for job_id, fraction in (progress or {}).items():
        check_name("progress", job_id)
        non_negative("progress", fraction)


def check_ids(ids: Collection[str]) -> None:
    """Refuse what is no collection of ids."""
    check_names("ids", ids)


def check_page(state: JobState, cursor: str | None, limit: int) -> int:
    """Refuse a page that there is none of; return how many jobs are before it."""
    choice("state", state, _PAGED)
    count("limit", limit)
    if cursor is None:
        return 0
    if not (isinstance(cursor, str) and cursor.isascii() and cursor.isdecimal()):
        msg = f"cursor must be that of an earlier page, not {cursor!r}"
        raise ValueError(msg)
    return int(cursor)


def check_wait(worker: str, timeout: float) -> None:
    """Refuse a wait that has no end."""
    check_name("worker", worker)
    non_negative("timeout", timeout)
