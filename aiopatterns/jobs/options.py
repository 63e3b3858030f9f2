"""What a job is defined with, beside its function."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final, TypedDict, final

from aiopatterns.backends.queue import PRIORITIES
from aiopatterns.core.validate import count, instance, non_negative, optional_positive, positive
from aiopatterns.jobs.limits import Limits
from aiopatterns.jobs.unique import Unique
from aiopatterns.resilience.retry import Retry

__all__ = ["Batching", "JobOptions", "Options", "check_priority"]

#: Crashes that a job without a retry survives, one less than this.
CRASHES: Final = 3
_UNLIMITED: Final = 2**31 - 1


class Options(TypedDict, total=False):
    """The options of ``job``, ``batch`` and ``cron``, as keywords; see :class:`JobOptions`."""

    name: str | None
    retry: Retry | None
    timeout: float | None
    priority: int
    limits: Limits | None
    unique: Unique | None
    result_ttl: float
    demote: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """How a job is run.

    Args:
        retry: Which errors are tried again, how often and when; None: an error makes the job a
            dead letter at once. Only errors: a crash of the worker is always tried again.
        timeout: Seconds for one attempt; a timeout counts as an error.
        priority: 0 to 9, 9 first.
        limits: How often and how many at once, over all processes.
        unique: The key that one job at a time may have.
        result_ttl: Seconds for which the result is kept; 0 keeps none.
        demote: Whether each attempt that fails lowers the priority by one, down to 0, so that what
            fails stands behind what has not; ``RetryLater`` leaves it.

    Raises:
        ValueError: A value is out of its range.
    """

    retry: Retry | None = None
    timeout: float | None = None
    priority: int = 0
    limits: Limits | None = None
    unique: Unique | None = None
    result_ttl: float = 3600.0
    demote: bool = False

    def __post_init__(self) -> None:
        if self.retry is not None:
            _check_retry(self.retry)
        optional_positive("timeout", self.timeout)
        check_priority(self.priority)
        if self.limits is not None:
            instance("limits", self.limits, Limits, "Limits or None")
        if self.unique is not None:
            instance("unique", self.unique, Unique, "a Unique or None")
        non_negative("result_ttl", self.result_ttl)

    @property
    def attempts(self) -> int:
        """How often the job may be started before a crash makes it a dead letter."""
        if self.retry is None:
            return CRASHES
        calls = self.retry.calls()
        return _UNLIMITED if calls == inf else int(calls)


@final
@dataclass(frozen=True, slots=True)
class Batching:
    """How the jobs of a batch come together.

    Args:
        size: Jobs in one call at most.
        within: Seconds that the first of them waits for the others at most.
    """

    size: int
    within: float

    def __post_init__(self) -> None:
        count("size", self.size)
        positive("within", self.within)


def _check_retry(retry: Retry) -> None:
    """Refuse what only makes sense within one process: the next attempt may be in another."""
    instance("retry", retry, Retry, "a Retry or None")
    if retry.budget is not None:
        msg = f"retry must have no budget, which processes cannot share, not {retry.budget!r}"
        raise ValueError(msg)


def check_priority(priority: int) -> int:
    """Return ``priority`` if it is a whole number from 0 to 9."""
    count("priority", priority, minimum=0)
    if priority not in PRIORITIES:
        msg = f"priority must be a whole number from 0 to 9, not {priority!r}"
        raise ValueError(msg)
    return priority
