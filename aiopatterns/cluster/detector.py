"""Failure detectors: one contract, and the one that learns what is usual.

A fixed timeout is too short for a peer behind a slow network and too long for one next door. The
*phi accrual* detector watches how regular the beats of each peer are, and says how surprising its
silence is by now::

    phi                                              .
     8 |- - - - - - - - - - - - - - - - - - - - - - : - - threshold: dead
       |                                           .
     1 |                                       . '
     0 |___________________________________..'_______________________
       beat   beat   beat    mean + acceptable pause       time since the last beat

If phi is 1, one silence in ten would be as long although the peer lives; at 8, one in a hundred
million, if intervals were normally distributed. They are not, so a pause of some seconds (garbage
collection, a network that re-routes) is added to what is expected.

Guarantees:

* Only this process's own clock counts.
* The deviation never counts as less than ``min_deviation``: very regular beats do not make a nervous
  detector.
* The silence before a peer came back is not learned, so one outage does not blunt the detector.
* Sums are whole microseconds: nothing drifts, however long it runs.

Not guaranteed: that the dead are dead. A process that was itself blocked hears beats late; the pause
has to cover that, too.

Source: Hayashibara, Defago, Yared and Katayama, "The phi accrual failure detector", SRDS 2004; the
logistic approximation of the normal distribution (error below 0.0002 of the probability), the first
estimate and the constants are those of Pekko's ``PhiAccrualFailureDetector``.
"""

from __future__ import annotations

from collections import deque
from math import exp, expm1, log, log1p, sqrt
from typing import Final, Protocol, final

from aiopatterns.cluster.heartbeat import DetectorStatistics
from aiopatterns.core.clock import monotonic
from aiopatterns.core.validate import count, in_range, non_negative, positive, text

__all__ = ["FailureDetector", "PhiAccrual"]

# Bowling, Khasawneh, Kaewkuekool and Cho, "A logistic approximation to the cumulative normal
# distribution", 2009.
_LINEAR: Final = 1.5976
_CUBIC: Final = 0.070566
_PER_DECADE: Final = 1 / log(10)
_MICROSECONDS: Final = 1_000_000
# A first estimate is as good as two intervals that differ from it by a quarter, either way.
_SPREAD: Final = 4
# No threshold is as many deviations from the mean; the search for one begins here.
_BEYOND: Final = 100.0


class FailureDetector(Protocol):
    """What every detector of failures can do; all of it is synchronous."""

    def beat(self, id: str) -> None:
        """Note a sign of life of ``id``."""
        ...

    def is_alive(self, id: str) -> bool:
        """Whether ``id`` counts as alive; False for one that has never beaten."""
        ...

    def dead(self) -> tuple[str, ...]:
        """Return who has beaten once and is dead now, the most silent first."""
        ...

    def forget(self, id: str) -> None:
        """Forget ``id``; harmless if unknown."""
        ...

    def statistics(self) -> DetectorStatistics:
        """Return the figures of this moment."""
        ...


@final
class PhiAccrual:
    """A detector of failures that learns the rhythm of everybody's beats.

    Keeps everybody who has ever beaten until :meth:`forget`; has no task and no timer.

    Args:
        threshold: The phi from which on somebody is dead. 8 suits a quiet network, 10 to 12 a
            rough one. From 0.5 to 1000.
        max_samples: How many of the latest intervals are remembered, of each.
        min_deviation: Seconds that the standard deviation counts as, at least.
        acceptable_pause: Seconds of silence beyond the mean interval that surprise nobody.
        first_interval: Seconds between two beats, as long as nothing is known.

    Raises:
        ValueError: A number is out of range.

    Complexity: O(1) for a beat, a phi and a question; O(n) for the list of the dead among n. Memory
    up to ``max_samples`` whole numbers for each.

    Example::

        peers = PhiAccrual(threshold=8)
        peers.beat("a")  # each second or so
        peers.phi("a")  # near 0, and growing fast once "a" is silent for longer than usual
    """

    __slots__ = ("_beats", "_first", "_limit", "_min", "_pause", "_rhythms", "_size", "threshold")

    def __init__(
        self,
        threshold: float = 8.0,
        *,
        max_samples: int = 1000,
        min_deviation: float = 0.1,
        acceptable_pause: float = 3.0,
        first_interval: float = 1.0,
    ) -> None:
        self.threshold: float = in_range("threshold", threshold, 0.5, 1000)
        self._limit = _deviations(self.threshold)
        self._size = count("max_samples", max_samples, minimum=2)
        self._min = positive("min_deviation", min_deviation)
        self._pause = non_negative("acceptable_pause", acceptable_pause)
        self._first = positive("first_interval", first_interval)
        self._rhythms: dict[str, _Rhythm] = {}
        self._beats = 0

    def beat(self, id: str) -> None:
        """Note a sign of life.

        Args:
            id: Of whom.
        """
        now = monotonic()
        rhythm = self._rhythms.get(id)
        if rhythm is None:
            rhythm = self._rhythms[text("id", id)] = _Rhythm(self._size, self._first)
        elif now < rhythm.until:
            rhythm.learn(now - rhythm.last)
        self._expect(rhythm, now)
        self._beats += 1

    def phi(self, id: str) -> float:
        """Return how surprising the silence of ``id`` is, from 0 on.

        It is the negative decimal logarithm of the probability of an interval that long. 0 for one
        that has never beaten.
        """
        rhythm = self._rhythms.get(id)
        if rhythm is None:
            return 0.0
        y = (monotonic() - rhythm.expected) * rhythm.scale
        x = y * (_LINEAR + _CUBIC * y * y)
        # log(1 + e**x), without a number that is too big or a difference of two equal ones.
        return (log1p(exp(x)) if x < 0 else x + log1p(exp(-x))) * _PER_DECADE

    def is_alive(self, id: str) -> bool:
        """Whether the phi of ``id`` is below the threshold; False for one that has never beaten."""
        rhythm = self._rhythms.get(id)
        return rhythm is not None and monotonic() < rhythm.until

    def dead(self) -> tuple[str, ...]:
        """Return who has beaten once and is dead now, the most silent first."""
        now = monotonic()
        silent = [
            (rhythm.last, who) for who, rhythm in self._rhythms.items() if now >= rhythm.until
        ]
        return tuple(who for _, who in sorted(silent))

    def forget(self, id: str) -> None:
        """Forget ``id`` and its rhythm; harmless if unknown."""
        self._rhythms.pop(id, None)

    def statistics(self) -> DetectorStatistics:
        """Return the figures of this moment."""
        dead = len(self.dead())
        return DetectorStatistics(alive=len(self._rhythms) - dead, dead=dead, beats=self._beats)

    def _expect(self, rhythm: _Rhythm, now: float) -> None:
        """Compute what is expected after a beat, once for all questions until the next."""
        mean, deviation = rhythm.estimate()
        deviation = max(deviation, self._min)
        rhythm.last = now
        rhythm.expected = now + mean + self._pause
        rhythm.scale = 1 / deviation
        rhythm.until = rhythm.expected + self._limit * deviation


@final
class _Rhythm:
    """The latest intervals between the beats of one peer, and what they let expect."""

    __slots__ = ("_intervals", "_squares", "_sum", "expected", "last", "scale", "until")

    def __init__(self, size: int, first: float) -> None:
        self._intervals: deque[int] = deque(maxlen=size)  # microseconds
        self._sum = self._squares = 0
        self.last: float = 0.0
        self.expected: float = 0.0  # until when a silence is no surprise
        self.scale: float = 0.0  # 1 / standard deviation
        self.until: float = 0.0  # when phi reaches the threshold
        self.learn(first - first / _SPREAD)
        self.learn(first + first / _SPREAD)

    def learn(self, seconds: float) -> None:
        """Remember an interval, in the place of the oldest if there are enough."""
        intervals = self._intervals
        if len(intervals) == intervals.maxlen:
            oldest = intervals[0]
            self._sum -= oldest
            self._squares -= oldest * oldest
        interval = round(seconds * _MICROSECONDS)
        intervals.append(interval)
        self._sum += interval
        self._squares += interval * interval

    def estimate(self) -> tuple[float, float]:
        """Return mean and standard deviation, in seconds."""
        samples, total = len(self._intervals) * _MICROSECONDS, self._sum
        spread = sqrt(len(self._intervals) * self._squares - total * total)
        return total / samples, spread / samples


def _deviations(phi: float) -> float:
    """Return how many standard deviations beyond the mean a silence has a ``phi`` that great."""
    x = phi / _PER_DECADE
    x += log(-expm1(-x))  # log(e**x - 1)
    low, high = -_BEYOND, _BEYOND
    while (middle := (low + high) / 2) not in (low, high):
        if middle * (_LINEAR + _CUBIC * middle * middle) < x:
            low = middle
        else:
            high = middle
    return high
