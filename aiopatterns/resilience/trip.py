"""When a circuit breaker opens: the rules, and the window they look at.

Rules are frozen values. A :class:`Trip` names a window of recent calls and up to three thresholds,
any of which opens the circuit; reaching one is enough (``>=``)::

    window                               thresholds
    Seconds(10)     by age, 10 buckets   ratio     share of the calls that failed,  ]  once the window
    Count(100)      the last 100 calls   slow      share of the calls that were slow ] holds min_calls
    Consecutive(5)  5 failures in a row  failures  number of failures, however many calls

:class:`Tally` is the state: it counts the calls of a closed circuit and says, after each of them,
whether a threshold is reached. It is synchronous and knows nothing of circuits.

Guarantees: thresholds are looked at after *every* call, also one that succeeded, because that may
be the one that brings the number of calls to ``min_calls``, or brings old successes to their end.

Complexity: O(1) for each call; memory O(n) for ``Count(n)`` and ``Consecutive(n)``, a dozen
numbers for ``Seconds``.

Source: windows and thresholds of resilience4j (count, time, slow calls) and of failsafe-go
(consecutive, absolute); the default window of 10 s and 20 calls is Hystrix's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, final

from aiopatterns.core.validate import count, instance, number, optional_count, positive
from aiopatterns.core.windows import CountWindow, TimeWindow

if TYPE_CHECKING:
    from aiopatterns.core.windows import Totals

__all__ = ["Consecutive", "Count", "Seconds", "Slow", "Tally", "Trip", "TripWindow", "share"]

# Below so many calls a ratio says little (Hystrix: requestVolumeThreshold).
_MIN_CALLS: Final = 20
_RATIO: Final = 0.5
_NEVER: Final = 2**63


def share(name: str, value: float) -> float:
    """Return ``value`` if it is a ratio that can be reached and is not reached by nothing."""
    allowed = "above 0 and at most 1"
    if not 0 < number(name, value, allowed) <= 1:
        msg = f"{name} must be {allowed}, not {value!r}"
        raise ValueError(msg)
    return value


@final
@dataclass(frozen=True, slots=True)
class Seconds:
    """The calls of the last so many seconds.

    Args:
        seconds: Length of the window, above 0.
    """

    seconds: float

    def __post_init__(self) -> None:
        positive("seconds", self.seconds)


@final
@dataclass(frozen=True, slots=True)
class Count:
    """The last so many calls.

    Args:
        n: How many, at least 1.
    """

    n: int

    def __post_init__(self) -> None:
        count("n", self.n)


@final
@dataclass(frozen=True, slots=True)
class Consecutive:
    """Failures in a row: the last ``n`` calls, and all of them have to fail.

    Args:
        n: How many, at least 1.
    """

    n: int

    def __post_init__(self) -> None:
        count("n", self.n)


TripWindow: TypeAlias = Seconds | Count | Consecutive


@final
@dataclass(frozen=True, slots=True)
class Slow:
    """Calls that take too long are as bad as failures.

    Args:
        seconds: A call that takes longer than this is slow, whether it fails or not.
        ratio: The share of slow calls that opens the circuit, above 0 and at most 1.
    """

    seconds: float
    ratio: float = _RATIO

    def __post_init__(self) -> None:
        positive("seconds", self.seconds)
        share("ratio", self.ratio)


@final
@dataclass(frozen=True, slots=True)
class Trip:
    """When the circuit opens; see the module's text.

    Args:
        window: The calls that are looked at.
        min_calls: How many calls the window must hold before a share of them counts; None is 20,
            or the whole of a ``Count`` below 20.
        ratio: The share of failed calls that opens the circuit, above 0 and at most 1; None is
            one half.
        slow: When slow calls open the circuit; None is never.
        failures: A number of failed calls in the window that opens the circuit besides, however
            many calls there are; None is no such number.

    ``Consecutive`` says all about failures by itself, so it takes none of ``min_calls``, ``ratio``
    and ``failures``.
    """

    window: TripWindow = Seconds(10.0)
    min_calls: int | None = None
    ratio: float | None = None
    slow: Slow | None = None
    failures: int | None = None

    def __post_init__(self) -> None:
        kinds = (Seconds, Count, Consecutive)
        instance("window", self.window, kinds, "Seconds(...), Count(...) or Consecutive(...)")
        optional_count("min_calls", self.min_calls)
        optional_count("failures", self.failures)
        if self.ratio is not None:
            share("ratio", self.ratio)
        if self.slow is not None:
            instance("slow", self.slow, Slow, "None or a Slow, as in Slow(2.0, ratio=0.5)")
        for name in ("min_calls", "ratio", "failures"):
            self._fits(name, getattr(self, name))

    def _fits(self, name: str, value: float | None) -> None:
        """Refuse what can never be reached, or what the window has said already."""
        if value is None or isinstance(self.window, Seconds):
            return
        if isinstance(self.window, Consecutive):
            allowed = f"None with {self.window}, which says it all"
        elif value > self.window.n:
            allowed = f"at most the {self.window.n} of {self.window}"
        else:
            return
        msg = f"{name} must be {allowed}, not {value!r}"
        raise ValueError(msg)

    @property
    def least_calls(self) -> int:
        """The number of calls from which a share counts."""
        if isinstance(self.window, Consecutive):
            return self.window.n
        if self.min_calls is not None:
            return self.min_calls
        return _MIN_CALLS if isinstance(self.window, Seconds) else min(_MIN_CALLS, self.window.n)

    @property
    def failure_ratio(self) -> float:
        """The share of failed calls that opens the circuit."""
        if isinstance(self.window, Consecutive):
            return 1.0
        return _RATIO if self.ratio is None else self.ratio

    @property
    def probe_ratio(self) -> float:
        """The share of failed probes that opens the circuit again, if nothing else is said."""
        return _RATIO if self.ratio is None else self.ratio

    @property
    def slow_after(self) -> float:
        """The number of seconds after which a call is slow; infinite if none is."""
        return math.inf if self.slow is None else self.slow.seconds

    @property
    def slow_ratio(self) -> float:
        """The share of slow calls that opens the circuit; infinite if none does."""
        return math.inf if self.slow is None else self.slow.ratio


@final
class Tally:
    """The calls of a closed circuit, and whether there were enough bad ones to open it.

    Args:
        trip: The rules.

    ``window`` is public for ``Circuit``, which counts good calls by hand.
    """

    __slots__ = ("_failures", "_least", "_ratio", "_slow_after", "_slow_ratio", "window")

    def __init__(self, trip: Trip) -> None:
        of = trip.window
        self.window: TimeWindow | CountWindow = (
            TimeWindow(of.seconds) if isinstance(of, Seconds) else CountWindow(of.n)
        )
        self.adopt(trip)

    def adopt(self, trip: Trip) -> None:
        """Take over the thresholds of ``trip``, whose window is the same; calls are kept."""
        self._least = trip.least_calls
        self._ratio = trip.failure_ratio
        self._slow_ratio = trip.slow_ratio
        self._failures = _NEVER if trip.failures is None else trip.failures
        self._slow_after = trip.slow_after

    def record(self, elapsed: float, *, failed: bool, at: float) -> bool:
        """Count one call that ended at ``at``; return whether a threshold is reached."""
        slow = elapsed > self._slow_after
        self.window.record(elapsed, failed=failed, slow=slow, at=at)
        return self.reached()

    def reached(self) -> bool:
        """Whether a threshold is reached by what the window held after its last change."""
        window = self.window
        calls = window.calls
        return window.failures >= self._failures or (
            calls >= self._least
            and (window.failures / calls >= self._ratio or window.slow / calls >= self._slow_ratio)
        )

    @property
    def calm(self) -> bool:
        """Whether no number of good calls can reach a threshold until ``window.until``.

        If none is reached now. For a good call lowers the shares, and never raises a number: it
        can only be the one with which there are enough calls for the shares to count.
        """
        window = self.window
        return window.calls >= self._least or not (window.failures or window.slow)

    def totals(self) -> Totals:
        """Return what the window holds now."""
        return self.window.totals()

    def telling(self, totals: Totals) -> bool:
        """Whether ``totals`` are enough calls for their shares to count."""
        return totals.calls >= self._least
