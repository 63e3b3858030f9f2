"""Whether all is done: what ``run_until_empty`` waits for.

Waited for: what is queued, what runs (in any worker), what comes back after a failure, what a rate
limit has put off, and with these their dependents. Not waited for: jobs with a delay or a time of
their user's, jobs of names that nobody knows here, and what waits for one of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiopatterns.core.errors import BackendError, CodecError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiopatterns.backends.queue import StoredJob
    from aiopatterns.jobs.turns import Turns

__all__ = ["is_empty"]

# Scheduled jobs that are looked at, the next ones first; what lies behind these is far away.
_PAGE: Final = 500


async def is_empty(loops: Sequence[Turns]) -> bool:
    """Return whether nothing is left to wait for; False while a store does not answer."""
    if not all(each.quiet for each in loops):
        return False
    try:
        for each in loops:
            if not await _is_empty(each):
                return False
    except BackendError:
        return False
    return all(each.quiet for each in loops)


async def _is_empty(turns: Turns) -> bool:
    counts = await turns.store.counts()
    if counts.queued or counts.running or turns.retrying:
        return False
    if not counts.scheduled:
        return True
    page = await turns.store.page("scheduled", limit=_PAGE)
    return not any(_comes_back(turns, each) for each in page.jobs)


def _comes_back(turns: Turns, stored: StoredJob) -> bool:
    """Whether a scheduled job has failed before, or was put off by a rate limit."""
    try:
        name = turns.shop.envelopes.decode(stored.body).name
    except CodecError:
        return False
    job = turns.shop.jobs.get(name)
    if job is None:
        return False
    limits = job.options.limits
    return stored.attempts > 0 or (limits is not None and limits.rate is not None)
