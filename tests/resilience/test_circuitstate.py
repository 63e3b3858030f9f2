"""What can be seen of a circuit from outside."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.circuitstate import CircuitState, CircuitStatistics


def test_states_have_the_names_that_are_reported():
    assert [state.value for state in CircuitState] == ["closed", "open", "half_open"]


def test_statistics_are_a_frozen_record():
    seen = CircuitBreaker("api").statistics()
    assert seen == CircuitStatistics(
        state=CircuitState.CLOSED,
        calls=0,
        failures=0,
        successes=0,
        slow=0,
        rejected=0,
        in_flight=0,
        failure_ratio=None,
        slow_ratio=None,
        mean_elapsed=None,
    )
    with pytest.raises(FrozenInstanceError):
        setattr(seen, "calls", 1)
