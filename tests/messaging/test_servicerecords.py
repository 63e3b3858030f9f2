"""Records of services: sums, health, and what a page shows."""

from __future__ import annotations

import json

import pytest

from aiopatterns import HealthChecker
from aiopatterns.messaging import HandlerStatistics, ServiceHealth, ServiceState, ServiceStatistics


def handler(done: int, failed: int, cancelled: int) -> HandlerStatistics:
    return HandlerStatistics(
        "query", "t", done + failed + cancelled, done, failed, cancelled, 0, 0.5, None
    )


def test_sums_over_all_handlers():
    figures = ServiceStatistics(
        "s", "1", ServiceState.READY, 1.0, {"a": handler(1, 2, 3), "b": handler(4, 5, 6)}
    )
    assert (figures.done, figures.failed, figures.cancelled) == (5, 7, 9)
    assert ServiceStatistics("s", "1", ServiceState.STOPPED).done == 0


@pytest.mark.parametrize(
    ("state", "connected", "ok"),
    [
        (ServiceState.READY, True, True),
        (ServiceState.READY, False, False),
        (ServiceState.STARTING, True, False),
        (ServiceState.DRAINING, True, False),
        (ServiceState.STOPPED, True, False),
    ],
)
def test_who_may_get_messages(state, connected, ok):
    health = ServiceHealth("s", "1", state, connected)
    assert health.ok is ok
    assert json.loads(json.dumps(health.as_dict())) == {
        "service": "s",
        "id": "1",
        "status": state.value,
        "connected": connected,
        "ok": ok,
        "checks": {},
    }


async def test_checks_count():
    async def well() -> None: ...

    checker = HealthChecker({"db": well})
    unknown = ServiceHealth("s", "1", ServiceState.READY, True, checker.report("readiness"))
    assert not unknown.ok
    async with checker:
        await checker.check_now("db")
        health = ServiceHealth("s", "1", ServiceState.READY, True, checker.report("readiness"))
        assert health.ok
        shown = json.loads(json.dumps(health.as_dict()))
        assert shown["checks"]["db"]["status"] == "healthy"
