"""Events of a circuit: what they say. When they are emitted is told in test_circuit.py."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import CircuitOpenError
from aiopatterns.resilience import circuitevents
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.circuitevents import (
    CircuitClosed,
    CircuitForced,
    CircuitHalfOpened,
    CircuitLateResult,
    CircuitOpened,
    CircuitRejected,
    CircuitStuck,
    CircuitThresholdExceeded,
)
from aiopatterns.resilience.trip import Count, Trip
from aiopatterns.testing import capture_events, simulate


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


def test_what_a_life_tells():
    async def scenario():
        breaker = CircuitBreaker("db", trip=Trip(Count(4)), open_for=10)
        late = breaker.try_acquire()
        with capture_events() as events:
            for outcome in ("success", "success", "failure", "failure"):
                breaker.try_acquire().record(wrong(outcome))
            with pytest.raises(CircuitOpenError):
                breaker.try_acquire()
            late.record("success")
            await sleep(10)
            held = breaker.try_acquire()
            await sleep(10)
            assert breaker.retry_after == 10
            held.drop()
            await sleep(10)
            breaker.try_acquire().record("success")
            breaker.force("observe")
            for _ in range(4):
                breaker.try_acquire().record("failure")
            breaker.force("isolated")
            with pytest.raises(CircuitOpenError):
                breaker.try_acquire()
        assert events == [
            CircuitOpened("db", 10, 0, failures=2, failure_ratio=0.5, slow_ratio=0.0),
            CircuitRejected("db", 10.0),
            CircuitLateResult("db", "success"),
            CircuitHalfOpened("db"),
            CircuitOpened("db", 10, 1, failures=0, failure_ratio=None, slow_ratio=None),
            CircuitStuck("db", in_flight=1),
            CircuitHalfOpened("db"),
            CircuitClosed("db"),
            CircuitForced("db", "observe"),
            CircuitThresholdExceeded("db", failures=4, failure_ratio=1.0, slow_ratio=0.0),
            CircuitForced("db", "isolated"),
            CircuitRejected("db", None),
        ]

    simulate(scenario)


def test_names_are_stable_and_records_frozen():
    names = {
        getattr(circuitevents, each).name for each in circuitevents.__all__ if each != "ForcedMode"
    }
    assert names == {
        f"aiopatterns.circuit.{name}"
        for name in (
            "opened",
            "half_opened",
            "closed",
            "rejected",
            "threshold_exceeded",
            "half_open_stuck",
            "forced",
            "late_result",
        )
    }
    with pytest.raises(FrozenInstanceError):
        wrong(CircuitClosed("db")).circuit = "x"
