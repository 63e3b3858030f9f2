"""Windows over recent calls: how many, how many failed, how many were slow.

A circuit breaker decides by the last calls, a throughput figure is about the last seconds. Both
windows keep running totals, so that recording a call and reading the totals cost the same
whatever the window holds. Nothing runs in the background: a window moves on when it is used.

``CountWindow(5)`` holds the last calls, whenever they were::

    [ ok | ok | failed | ok | slow ]  <- the next call takes the place of the oldest

``TimeWindow(10.0)`` holds calls by their age, in buckets that are dropped whole::

    dropped | <- closed buckets, each 1 s or longer -> | open |  now
            `----------------- 10 s -------------------------'

Guarantees:

* A call counts no more once it is as old as the window (``now >= at + seconds``), and it counts
  for as long as it is younger than the window less one bucket.
* Totals are whole numbers, so nothing drifts; sums of durations are added up anew when read.
* A clock that goes back, as it does between two simulations, empties a time window.

Not guaranteed: the exact second at which a call leaves a time window, which depends on the
bucket it shares. More buckets make that finer.

Source: ring of sub-windows, as in Polly v8 and resilience4j (10 buckets); a bucket begins with
its first call instead of on a fixed grid, which makes the upper bound exact.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol, final

from aiopatterns.core.clock import monotonic
from aiopatterns.core.validate import count, positive

__all__ = ["CountWindow", "TimeWindow", "Totals", "Window"]

# (failed, slow, elapsed): what an unused place of a count window holds.
_NOTHING: Final = (False, False, 0.0)


@dataclass(frozen=True, slots=True)
class Totals:
    """What a window holds at one instant.

    Args:
        calls: Number of calls.
        failures: Those that failed.
        slow: Those that were slow, failed or not.
        elapsed: Sum of their durations in seconds.
    """

    calls: int
    failures: int
    slow: int
    elapsed: float

    @property
    def successes(self) -> int:
        """Calls that did not fail."""
        return self.calls - self.failures

    @property
    def failure_ratio(self) -> float | None:
        """Share of the calls that failed, 0 to 1; None without calls."""
        return self.failures / self.calls if self.calls else None

    @property
    def slow_ratio(self) -> float | None:
        """Share of the calls that were slow, 0 to 1; None without calls."""
        return self.slow / self.calls if self.calls else None

    @property
    def mean_elapsed(self) -> float | None:
        """Mean duration in seconds; None without calls."""
        return self.elapsed / self.calls if self.calls else None


class Window(Protocol):
    """What both windows have in common.

    ``calls``, ``failures`` and ``slow`` are as of the last :meth:`record` or :meth:`totals`, so
    that a breaker can decide right after recording without another look at the clock. A call that
    ends at ``opened <= at < until`` drops no call for its age.
    """

    calls: int
    failures: int
    slow: int
    opened: float
    until: float

    def record(
        self,
        elapsed: float = 0.0,
        *,
        failed: bool = False,
        slow: bool = False,
        at: float | None = None,
    ) -> None:
        """Count one call."""
        ...

    def add(self, calls: int, elapsed: float) -> None:
        """Count calls that were good, took ``elapsed`` each and ended before ``until``."""
        ...

    def totals(self) -> Totals:
        """Return what the window holds now."""
        ...

    def clear(self) -> None:
        """Forget all calls."""
        ...


@final
class CountWindow:
    """The last ``size`` calls.

    Args:
        size: How many calls it holds, 1 or more.

    Complexity: O(1) to record, O(size) for :meth:`totals`; memory O(size).

    Example::

        window = CountWindow(100)
        window.record(0.2, failed=True)
        window.failures  # 1
    """

    __slots__ = ("_next", "_ring", "_size", "calls", "failures", "opened", "slow", "until")

    calls: int
    failures: int
    slow: int
    _next: int
    _ring: list[tuple[bool, bool, float]]

    def __init__(self, size: int) -> None:
        self._size = count("size", size)
        self.opened: float = -inf
        self.until: float = inf
        self.clear()

    def record(
        self,
        elapsed: float = 0.0,
        *,
        failed: bool = False,
        slow: bool = False,
        at: float | None = None,
    ) -> None:
        """Count one call in the place of the oldest.

        Args:
            elapsed: How long it took, in seconds.
            failed: Whether it failed.
            slow: Whether that was too long.
            at: Taken for the sake of one call shape; this window knows no time.
        """
        del at
        here = self._next
        failed_before, slow_before, _ = self._ring[here]
        self._ring[here] = (failed, slow, elapsed)
        self.failures += failed - failed_before
        self.slow += slow - slow_before
        if self.calls < self._size:
            self.calls += 1
        here += 1
        self._next = here if here < self._size else 0

    def add(self, calls: int, elapsed: float) -> None:
        """Count calls that neither failed nor were slow, of which a hot path kept the number.

        Args:
            calls: How many.
            elapsed: How long each took, in seconds.

        Complexity: O(calls), and O(size) at most.
        """
        for _ in range(min(calls, self._size)):
            self.record(elapsed)

    def totals(self) -> Totals:
        """Return what the window holds now."""
        elapsed = sum(each[2] for each in self._ring)
        return Totals(self.calls, self.failures, self.slow, elapsed)

    def clear(self) -> None:
        """Forget all calls."""
        self._ring = [_NOTHING] * self._size
        self._next = 0
        self.calls = self.failures = self.slow = 0


@final
class TimeWindow:
    """The calls of the last ``seconds``.

    Args:
        seconds: Length of the window, above 0.
        buckets: Number of parts in which calls are dropped from it, 1 or more.

    Complexity: O(1) to record, amortised over the buckets; O(buckets) for :meth:`totals` and for
    memory.

    Example::

        window = TimeWindow(10.0)
        window.record(0.2)
        window.totals().mean_elapsed  # 0.2
    """

    __slots__ = (
        "_closed",
        "_elapsed",
        "_seconds",
        "_width",
        "calls",
        "failures",
        "opened",
        "slow",
        "until",
    )

    calls: int
    failures: int
    slow: int
    opened: float
    until: float

    def __init__(self, seconds: float, buckets: int = 10) -> None:
        self._seconds = positive("seconds", seconds)
        self._width = self._seconds / count("buckets", buckets)
        self._closed: deque[_Bucket] = deque()
        self.clear()

    def record(
        self,
        elapsed: float = 0.0,
        *,
        failed: bool = False,
        slow: bool = False,
        at: float | None = None,
    ) -> None:
        """Count one call.

        Args:
            elapsed: How long it took, in seconds.
            failed: Whether it failed.
            slow: Whether that was too long.
            at: When it ended, for a caller that has just read the clock; never a time before
                that of the last call.
        """
        now = monotonic() if at is None else at
        if not self.opened <= now < self.until:  # _look, in place: this is a hot path
            self._move(now)
        self.calls += 1
        self._elapsed += elapsed
        if failed:
            self.failures += 1
        if slow:
            self.slow += 1

    def add(self, calls: int, elapsed: float) -> None:
        """Count calls that neither failed nor were slow, of which a hot path kept the number.

        Args:
            calls: How many; all ended at ``opened <= at < until``, as these are now.
            elapsed: How long each took, in seconds.
        """
        self.calls += calls
        self._elapsed += calls * elapsed

    def totals(self) -> Totals:
        """Return what the window holds now."""
        self._look(monotonic())
        elapsed = sum(each.elapsed for each in self._closed) + self._elapsed
        return Totals(self.calls, self.failures, self.slow, elapsed)

    def rate(self) -> float:
        """Return calls per second since the oldest that counts, and over one bucket at least."""
        now = monotonic()
        self._look(now)
        oldest = self._closed[0].opened if self._closed else self.opened
        return self.calls / max(now - oldest, self._width)

    def clear(self) -> None:
        """Forget all calls."""
        self._closed.clear()
        self._elapsed = 0.0
        self.calls = self.failures = self.slow = 0
        self.opened = inf  # no bucket is open: whatever the time is, the next look opens one
        self.until = inf

    def _look(self, now: float) -> None:
        """Bring the window up to ``now``."""
        if not self.opened <= now < self.until:
            self._move(now)

    def _move(self, now: float) -> None:
        """Drop what is too old; open a new bucket if none is open or the open one is full."""
        if not self.opened <= now < self.opened + self._seconds:
            self.clear()
            self.opened = now
        while self._closed and now >= self._closed[0].opened + self._seconds:
            old = self._closed.popleft()
            self.calls -= old.calls
            self.failures -= old.failures
            self.slow -= old.slow
        if now >= self.opened + self._width:
            self._close()
            self.opened = now
        ends = self._closed[0].opened + self._seconds if self._closed else inf
        self.until = min(self.opened + self._width, ends)

    def _close(self) -> None:
        """Keep the calls of the open bucket: the totals less those of the closed ones."""
        calls = self.calls - sum(each.calls for each in self._closed)
        failures = self.failures - sum(each.failures for each in self._closed)
        slow = self.slow - sum(each.slow for each in self._closed)
        if calls:
            self._closed.append(_Bucket(self.opened, calls, failures, slow, self._elapsed))
        self._elapsed = 0.0


@dataclass(frozen=True, slots=True)
class _Bucket:
    """A closed part of a time window."""

    opened: float
    calls: int
    failures: int
    slow: int
    elapsed: float
