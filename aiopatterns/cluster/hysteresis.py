"""Hysteresis: from single results to a state that does not flap.

One lost packet is no outage, and one answer is no recovery. So a state changes only when enough
results in a row say so, and no sooner than it has lasted for a while::

    UNKNOWN ---- whatever the first result of a check says ----.
                                                               v
       .----------------- rise successes in a row ------ UNHEALTHY
       v                                                       ^
    HEALTHY <--- latencies shrink, or grow ---> DEGRADED       |
       '--------------------------------------------+- fall failures in a row

A latency beyond ``down_after`` makes a result a failure. The state is *degraded* while the 95th
percentile of the last :data:`LATENCIES` successes is beyond ``degraded_after``, by the rank that
lets one outlier pass.

Guarantees:

* UNKNOWN ends with the first result of a check, whatever it is; there is nothing to weigh it
  against.
* Passive evidence (:meth:`Hysteresis.suspect`) can only lead to UNHEALTHY; out of it lead only
  successes of checks.
* Apart from UNKNOWN, every state lasts ``dwell`` seconds at least.

This file decides and does nothing else: no clock, no task, no event.

Source: rise, fall and the order of states are HAProxy's and Consul's; the latency grades are those
of resilience4j's slow calls, applied to checks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final, final

from aiopatterns.core.validate import count, non_negative, positive

__all__ = ["LATENCIES", "HealthState", "Hysteresis", "Thresholds"]

#: Latest successes whose latencies grade a state.
LATENCIES: Final = 10
_QUANTILE: Final = 0.95


class HealthState(Enum):
    """How a check, or a set of checks, stands."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNKNOWN = "unknown"
    UNHEALTHY = "unhealthy"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When a state changes.

    Args:
        rise: Successes in a row that end UNHEALTHY.
        fall: Failures in a row that begin it.
        degraded_after: Seconds; a 95th percentile beyond is DEGRADED. ``math.inf``: never.
        down_after: Seconds; a result that took longer is a failure. ``math.inf``: never.
        dwell: Seconds that a state lasts at least.

    Raises:
        ValueError: A number is out of range, or ``down_after`` is below ``degraded_after``.
    """

    rise: int
    fall: int
    degraded_after: float
    down_after: float
    dwell: float

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        count("rise", self.rise)
        count("fall", self.fall)
        positive("degraded_after", self.degraded_after, finite=False)
        positive("down_after", self.down_after, finite=False)
        non_negative("dwell", self.dwell)
        if self.down_after < self.degraded_after:
            msg = (
                f"down_after must be at least degraded_after ({self.degraded_after!r}),"
                f" not {self.down_after!r}"
            )
            raise ValueError(msg)


@final
class Hysteresis:
    """The state of one check.

    Args:
        thresholds: When it changes.
        now: The time at which it begins, as UNKNOWN.

    Complexity: O(1) a result; memory :data:`LATENCIES` numbers.
    """

    __slots__ = ("_latencies", "_thresholds", "failures", "since", "state", "successes")

    def __init__(self, thresholds: Thresholds, now: float) -> None:
        self._thresholds = thresholds
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self.state: HealthState = HealthState.UNKNOWN
        self.since: float = now
        self.successes: int = 0  # in a row
        self.failures: int = 0  # in a row

    @property
    def p95(self) -> float | None:
        """The 95th percentile of the latest successes' latencies; None before the first."""
        ranked = sorted(self._latencies)
        return ranked[int(_QUANTILE * (len(ranked) - 1))] if ranked else None

    def succeed(self, latency: float, now: float) -> bool:
        """Count a check that succeeded in time; returns whether the state has changed."""
        self.successes += 1
        self.failures = 0
        self._latencies.append(latency)
        if self.state is HealthState.UNHEALTHY and self.successes < self._thresholds.rise:
            return False
        return self._become(self._grade(), now)

    def fail(self, now: float) -> bool:
        """Count a check that failed; returns whether the state has changed."""
        self._count_failure()
        if self.state is HealthState.UNKNOWN or self.failures >= self._thresholds.fall:
            return self._become(HealthState.UNHEALTHY, now)
        return False

    def suspect(self, now: float) -> bool:
        """Count a failure that somebody else has seen; returns whether the state has changed."""
        self._count_failure()
        if self.failures >= self._thresholds.fall:
            return self._become(HealthState.UNHEALTHY, now)
        return False

    def _count_failure(self) -> None:
        self.failures += 1
        self.successes = 0

    def _grade(self) -> HealthState:
        """Return the state of one that succeeds."""
        p95 = self.p95
        slow = p95 is not None and p95 > self._thresholds.degraded_after
        return HealthState.DEGRADED if slow else HealthState.HEALTHY

    def _become(self, state: HealthState, now: float) -> bool:
        """Change to ``state``, unless it is that already or the one before is too young."""
        young = now - self.since < self._thresholds.dwell
        if state is self.state or (young and self.state is not HealthState.UNKNOWN):
            return False
        if state is HealthState.UNHEALTHY:
            self._latencies.clear()  # those before an outage say nothing of the time after it
        self.state = state
        self.since = now
        return True
