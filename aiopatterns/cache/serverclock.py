"""Server clock: lives that mean the same in every process, whatever their clocks say.

A life is stored as times of the *server's* clock. Each process asks the server for its time now
and then, and knows that it was so at some moment between question and answer::

    asked          answered            the server's time is at least  monotonic + low
      |---- s -------|                                   at most      monotonic + high
      low = s - answered, high = s - asked

So there are two estimates, and always the one is taken that makes a life shorter: a value is
stored by the low one and read by the high one. A slow answer costs a few milliseconds of a life; a
clock that is wrong costs nothing, for nobody's clock is asked but the server's.
"""

from __future__ import annotations

import math
from typing import Final, final

from aiopatterns.cache.terms import Life
from aiopatterns.core.clock import monotonic

__all__ = ["ServerClock"]

#: Seconds after which the server is asked again: quartz drifts by 0.1 ms a second at worst.
_GOOD_FOR: Final = 60.0


@final
class ServerClock:
    """What time it is at the server. Useless before the first :meth:`set`."""

    __slots__ = ("_at", "_high", "_low")

    def __init__(self) -> None:
        self._at = -math.inf
        self._low = self._high = math.nan

    @property
    def is_due(self) -> bool:
        """Whether the server should be asked again."""
        return monotonic() >= self._at + _GOOD_FOR

    def set(self, server: float, *, asked: float) -> None:
        """Take the server's answer, which has just come."""
        self._at = now = monotonic()
        self._low, self._high = server - now, server - asked

    def time(self, at: float) -> float:
        """Return what time it is there at ``at``; if that is not known exactly, an earlier one."""
        return at + self._low

    def outside(self, life: Life) -> Life:
        """Return a life by the server's clock."""
        return Life(life.fresh_until + self._low, life.stale_until + self._low)

    def inside(self, life: Life) -> Life:
        """Return a life by the monotonic clock."""
        return Life(life.fresh_until - self._high, life.stale_until - self._high)
