"""Reports: the worst counts, by the question that is asked."""

from __future__ import annotations

import json

import pytest

from aiopatterns.cluster.healthreport import CheckHealth, report_of
from aiopatterns.cluster.hysteresis import HealthState
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.testing import simulate

HEALTHY, DEGRADED = HealthState.HEALTHY, HealthState.DEGRADED
UNKNOWN, UNHEALTHY = HealthState.UNKNOWN, HealthState.UNHEALTHY


def health(
    state: HealthState, *, name: str = "db", checked: bool = True, passed: bool = True
) -> CheckHealth:
    now = monotonic()
    return CheckHealth(
        name=name,
        state=state,
        since=now,
        checked=now if checked else None,
        latency=0.0123456 if checked else None,
        p95=0.02 if checked else None,
        successes=0,
        failures=3,
        reason="raised OSError",
        passed=passed,
        total=7,
        restarts=0,
    )


def report(kind, *states: HealthState, passed: bool = False):
    checks = {
        str(at): health(state, name=str(at), passed=passed) for at, state in enumerate(states)
    }
    return report_of(kind, checks)


@pytest.mark.parametrize(
    ("states", "worst", "ready", "alive"),
    [
        ((), HEALTHY, True, True),
        ((HEALTHY, HEALTHY), HEALTHY, True, True),
        ((HEALTHY, DEGRADED), DEGRADED, True, True),
        ((UNKNOWN, DEGRADED), UNKNOWN, False, True),
        ((UNKNOWN, UNHEALTHY, HEALTHY), UNHEALTHY, False, False),
    ],
)
def test_the_worst_check_decides(states, worst, ready, alive):
    for kind, ok in (("readiness", ready), ("startup", ready), ("liveness", alive)):
        found = report(kind, *states)
        assert (found.kind, found.state, found.ok) == (kind, worst, ok)


def test_startup_is_over_once_each_has_passed():
    assert report("startup", UNHEALTHY, UNHEALTHY, passed=True).ok
    assert not report("readiness", UNHEALTHY, passed=True).ok


def test_ages_grow():
    async def main():
        one, fresh = health(HEALTHY), health(UNKNOWN, checked=False)
        await sleep(3)
        assert (one.age, one.result_age) == (3, 3)
        assert (fresh.age, fresh.result_age) == (3, None)

    simulate(main)


def test_a_report_is_ready_for_json():
    async def main():
        found = report_of("readiness", {"db": health(UNHEALTHY)})
        assert json.loads(json.dumps(found.as_dict())) == {
            "status": "unhealthy",
            "kind": "readiness",
            "ok": False,
            "checks": {
                "db": {
                    "status": "unhealthy",
                    "age": 0.0,
                    "result_age": 0.0,
                    "latency": 0.0123,
                    "failures": 3,
                    "reason": "raised OSError",
                }
            },
        }

    simulate(main)
