"""Latencies as a histogram: quantiles of any number of samples from a handful of counters.

A mean hides the slow tail, and keeping all samples to sort them costs memory without end. A
histogram with logarithmic buckets keeps one counter for each bucket that was hit; the width of a
bucket grows with its value, so the *relative* error is the same at a microsecond and at an
hour::

    ... 9.80 ms | 10.0 ms | 10.2 ms | 10.4 ms | ...       each bucket 2.02 % wider than the last
            3        41        87        12

Guarantees:

* Every quantile, and the mean, is within 1 % of that of the samples themselves.
* Two histograms merge without any further loss, in any order.
* Memory is one counter for each bucket hit: at most 1,602 from a nanosecond to a day, and 36
  for samples that lie within a factor of two.

Not guaranteed: nothing is forgotten by itself. Who wants the quantiles of the last minute clears
the histogram, or merges a few that are each filled in turn.

Source: DDSketch (Masson, Rim and Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with
Relative-Error Guarantees", VLDB 2019), with the unbounded sparse store.
"""

from __future__ import annotations

from collections import defaultdict
from math import log2
from typing import Final, final

from aiopatterns.core.validate import in_range, instance, non_negative

__all__ = ["RELATIVE_ERROR", "Histogram"]

# Section 2.2 of the paper: buckets that grow by (1 + error) / (1 - error) keep that error.
RELATIVE_ERROR: Final = 0.01
_GROWTH: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_DOUBLING: Final = 1 / log2(_GROWTH)
# Keeps bucket numbers of all floats above 0, so that int() rounds down everywhere.
_ORIGIN: Final = 40_000
# The bucket of durations that are no longer than the clock can tell.
_ZERO: Final = 0


@final
class Histogram:
    """Latency histogram with a relative error of 1 %.

    Not safe for use by several threads at once; owners that record from threads hand the figure
    to the loop first.

    Complexity: O(1) to record, about 0.2 us; O(b log b) for a quantile and O(b) for the rest,
    where b is the number of buckets hit.

    Example::

        latencies = Histogram()
        latencies.record(0.012)
        latencies.quantile(0.99)  # 0.012, give or take 1 %
    """

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: defaultdict[int, int] = defaultdict(int)

    def record(self, seconds: float) -> None:
        """Count one sample.

        Args:
            seconds: The duration, 0 or more and finite.

        Raises:
            ValueError: It is negative, infinite or NaN.
            TypeError: It is no number.
        """
        try:
            self._buckets[int(log2(seconds) * _PER_DOUBLING + _ORIGIN)] += 1
        except (ValueError, OverflowError, TypeError):
            # Zero has no logarithm; whatever else has none is refused.
            non_negative("seconds", seconds)
            self._buckets[_ZERO] += 1

    @property
    def count(self) -> int:
        """Number of samples."""
        return sum(self._buckets.values())

    @property
    def mean(self) -> float | None:
        """Mean of the samples, within 1 %; None if there are none."""
        count = self.count
        if not count:
            return None
        return sum(_middle(bucket) * hits for bucket, hits in self._buckets.items()) / count

    def quantile(self, q: float) -> float | None:
        """Return the value that a share ``q`` of the samples does not exceed.

        Args:
            q: From 0 (the least) to 1 (the greatest); 0.99 is the 99th percentile.

        Returns:
            Seconds, within 1 % of the sample of rank ``q * (count - 1)``, rounded down; None if
            there are no samples.

        Raises:
            ValueError: ``q`` is out of range.
        """
        rank = in_range("q", q, 0, 1) * (self.count - 1)
        below = 0
        for bucket in sorted(self._buckets):
            below += self._buckets[bucket]
            if below > rank:
                return _middle(bucket)
        return None

    def merge(self, other: Histogram) -> None:
        """Add the samples of ``other``, which stays as it is.

        Args:
            other: A histogram, also this one itself.
        """
        instance("other", other, Histogram, "a Histogram")
        for bucket, hits in list(other._buckets.items()):
            self._buckets[bucket] += hits

    def clear(self) -> None:
        """Forget all samples."""
        self._buckets.clear()


def _middle(bucket: int) -> float:
    """Return the value that is as far, relatively, from both edges of a bucket."""
    if bucket == _ZERO:
        return 0.0
    return 2 * _GROWTH ** (bucket - _ORIGIN + 1) / (_GROWTH + 1)
