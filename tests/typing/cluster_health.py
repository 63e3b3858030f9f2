"""Health checks as users write them, under both checkers."""

from __future__ import annotations

from typing import assert_type

from aiopatterns.cluster import (
    Check,
    CheckHealth,
    FailureDetector,
    HealthChanged,
    HealthChecker,
    HealthReport,
    HealthState,
    Heartbeats,
    PhiAccrual,
)


async def ping() -> str:
    return "PONG"


checker = HealthChecker(
    {
        "db": ping,
        "loop": Check(ping, kinds=("liveness", "readiness")),
        "set": Check(ping, kinds={"startup"}),
        "list": Check(ping, kinds=["startup"]),
        "none": Check(ping, kinds=()),
    },
    interval=5,
)
detectors: list[FailureDetector] = [Heartbeats(timeout=30), PhiAccrual(threshold=8)]


def changed(change: HealthChanged) -> None:
    assert_type(change.after, HealthState)


async def use() -> None:
    async with checker as opened:
        assert_type(opened, HealthChecker)
        assert_type(opened.report("liveness"), HealthReport)
        assert_type(opened.state("db"), HealthState)
        assert_type(await opened.check_now("db"), CheckHealth)
        assert_type(opened.unhealthy, frozenset[str])
        opened.on_change(changed).close()
    for detector in detectors:
        assert_type(detector.dead(), tuple[str, ...])
        assert_type(detector.is_alive("a"), bool)
