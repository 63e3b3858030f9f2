"""What is known of health at one instant: of one check, and of a set of checks.

Records hold no exception and no text of one, which may name a host, a user or a password: what
they say may be shown to anybody. Errors themselves are in the events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from aiopatterns.cluster.hysteresis import HealthState
from aiopatterns.core.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.cluster.healthcheck import HealthKind

__all__ = ["CheckHealth", "HealthReport"]

# From best to worst: the members stand in that order.
_SEVERITY: Final = tuple(HealthState)


@final
@dataclass(frozen=True, slots=True)
class CheckHealth:
    """One check.

    Attributes:
        name: Its name.
        state: How it stands.
        since: When that began, in monotonic seconds.
        checked: When the last check ended, in monotonic seconds; None before the first.
        latency: Seconds that it took; None before the first.
        p95: 95th percentile of the latest successes, in seconds; None before the first.
        successes: In a row, up to now.
        failures: In a row, up to now, with those that were reported from elsewhere.
        reason: Why the last one failed; empty if it did not.
        passed: Whether any has succeeded.
        total: Checks made.
        restarts: How often its loop had to be started again.
    """

    name: str
    state: HealthState
    since: float
    checked: float | None
    latency: float | None
    p95: float | None
    successes: int
    failures: int
    reason: str
    passed: bool
    total: int
    restarts: int

    @property
    def age(self) -> float:
        """Seconds for which it has been in this state, now."""
        return monotonic() - self.since

    @property
    def result_age(self) -> float | None:
        """Seconds since the last check ended, now; None before the first."""
        return None if self.checked is None else monotonic() - self.checked

    def as_dict(self) -> dict[str, object]:
        """Return what a page of health shows, ready for JSON; seconds are rounded."""
        return {
            "status": self.state.value,
            "age": _rounded(self.age),
            "result_age": _rounded(self.result_age),
            "latency": _rounded(self.latency),
            "failures": self.failures,
            "reason": self.reason,
        }


@final
@dataclass(frozen=True, slots=True)
class HealthReport:
    """A set of checks.

    Attributes:
        kind: Which set.
        state: The worst of its checks, from HEALTHY over DEGRADED and UNKNOWN to UNHEALTHY; HEALTHY
            if there are none. In the startup set, a check that has once succeeded counts as HEALTHY.
        checks: Each, by name.
    """

    kind: HealthKind
    state: HealthState
    checks: Mapping[str, CheckHealth]

    @property
    def ok(self) -> bool:
        """Whether the answer is yes: alive, ready, or started.

        DEGRADED is a yes. UNKNOWN is one for liveness alone: who has not been looked at yet should
        not be restarted, and should get no traffic either.
        """
        if self.state is HealthState.UNKNOWN:
            return self.kind == "liveness"
        return self.state is not HealthState.UNHEALTHY

    def as_dict(self) -> dict[str, object]:
        """Return what a page of health shows, ready for JSON."""
        checks = {name: check.as_dict() for name, check in self.checks.items()}
        return {"status": self.state.value, "kind": self.kind, "ok": self.ok, "checks": checks}


def report_of(kind: HealthKind, checks: Mapping[str, CheckHealth]) -> HealthReport:
    """Report the checks of one set."""
    states = [
        HealthState.HEALTHY if kind == "startup" and each.passed else each.state
        for each in checks.values()
    ]
    worst = max(states, key=_SEVERITY.index, default=HealthState.HEALTHY)
    return HealthReport(kind, worst, checks)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
