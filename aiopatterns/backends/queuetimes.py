"""Times of the queue protocol as both implementations count them: whole milliseconds.

What is to be compared or stored stands here once, so that memory and Redis agree to the bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiopatterns.backends.names import milliseconds

if TYPE_CHECKING:
    from aiopatterns.backends.queue import NewJob
    from aiopatterns.core.rate import Rate

__all__ = ["due_in", "spacing", "whole"]


def whole(seconds: float) -> int:
    """Return ``seconds`` (0 or more) in milliseconds, rounded up."""
    return milliseconds("seconds", seconds) if seconds > 0 else 0


def due_in(job: NewJob) -> int:
    """Return the milliseconds from the enqueue until ``job`` may run, unless it has an ``at``.

    A debounced job is held back for its window at least.
    """
    unique = job.unique
    if unique is not None and unique.mode == "debounce":
        return whole(max(job.delay, unique.window))
    return whole(job.delay) if job.delay else 0


def spacing(rate: Rate) -> tuple[float, float]:
    """Return the interval of a rate and the slack that lets its amount start at once, in ms."""
    interval = rate.per * 1_000 / rate.amount
    return interval, (max(rate.amount, 1.0) - 1.0) * interval
