"""The arithmetic of the shared limiter, pure: what a key owes, what a call may take.

A key that is in use has a level: what was taken and has not drained yet, in units of cost. It
drains by one unit every ``interval``, the spacing of the rate. A call may start if the level plus
its cost fits into the burst. That is GCRA, with its "theoretical arrival time" written as
``now + level x interval``, in a form that keeps its precision at any rate, lets the rate of a key
change, and does not lock a key out when the server's clock is set back.

Redis does the decision in ``lua/limiter_acquire.lua``; it is the same lines on the same doubles.
Time is in whole microseconds, so waiting for ``retry_after`` is always enough.

Source: ITU-T I.371, generic cell rate algorithm as a continuous-state leaky bucket.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.rate import Grant, Rate
from aiopatterns.core.validate import at_least, instance, non_negative, positive

if TYPE_CHECKING:
    from typing import Self

__all__ = ["SLACK", "Spacing"]

#: Microseconds that a call may come early: what doubles lose, far below what a clock tells.
SLACK: Final = 0.01

# Microseconds; a unit a 31,000 years, and a thousand units a nanosecond, are the ends of sense.
_SLOWEST: Final = 1e18
_FASTEST: Final = 1e-6
# What doubles lose when levels are added, in units.
_ROUNDING: Final = 1e-9


@final
class Spacing:
    """A rate and a burst as the arithmetic needs them.

    Args:
        interval: Microseconds in which one unit drains.
        burst: Units that may be owed at once.
    """

    __slots__ = ("burst", "interval")

    def __init__(self, interval: float, burst: float) -> None:
        self.interval: float = interval
        self.burst: float = burst

    @classmethod
    def of(cls, rate: Rate, burst: float | None, cost: float) -> Self:
        """Check the arguments of ``acquire`` and return what they come to."""
        instance("rate", rate, Rate, "a Rate")
        non_negative("cost", cost)
        if burst is None:
            burst = max(rate.amount, 1.0)
        at_least("burst", positive("burst", burst), 1)
        spacing = min(max(rate.per / rate.amount * 1e6, _FASTEST), _SLOWEST)
        return cls(spacing, burst)

    def drained(self, level: float, elapsed: float) -> float:
        """Return what is left of ``level`` after ``elapsed`` microseconds."""
        return max(0.0, level - max(0.0, elapsed) / self.interval)

    def wait(self, level: float, cost: float) -> float:
        """Return the microseconds until ``cost`` fits; 0 if it fits now, or never will."""
        late = (level + cost - self.burst) * self.interval
        return late if late > SLACK else 0.0

    def grant(self, level: float, cost: float, *, allowed: bool) -> Grant:
        """Put the answer into words.

        Args:
            level: What is owed after the call.
            cost: What was asked for.
            allowed: Whether it was given.
        """
        never = cost > self.burst
        retry_after = math.inf if never else _seconds(self.wait(level, cost))
        return Grant(
            allowed,
            0.0 if allowed else retry_after,
            max(0, math.floor(self.burst - level + _ROUNDING)),
            _seconds(level * self.interval),
        )


def _seconds(microseconds: float) -> float:
    """Whole microseconds, rounded up, as seconds."""
    return math.ceil(microseconds - SLACK) / 1e6
