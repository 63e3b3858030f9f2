from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.backends.gcra import Spacing
from aiopatterns.core.rate import Grant, Rate


def spacing(amount: float = 10, per: float = 1.0, burst: float | None = None) -> Spacing:
    return Spacing.of(Rate(amount, per), burst, 1)


def test_a_rate_is_a_spacing_and_a_burst():
    assert (spacing().interval, spacing().burst) == (100_000, 10)
    assert spacing(0.5, 60).burst == 1
    assert spacing(burst=2.5).burst == 2.5


def test_absurd_rates_stay_finite():
    assert spacing(1e-300, 1e300).interval == 1e18
    assert spacing(1e300, 1e-300).interval == 1e-6


@pytest.mark.parametrize(
    ("rate", "burst", "cost", "message"),
    [
        (10, None, 1, "rate must be a Rate, not 10"),
        (Rate(1), 0.5, 1, "burst must be at least 1, not 0.5"),
        (Rate(1), math.nan, 1, "burst must be a finite number > 0, not nan"),
        (Rate(1), math.inf, 1, "burst must be a finite number > 0, not inf"),
        (Rate(1), None, -1, "cost must be a finite number >= 0, not -1"),
        (Rate(1), None, math.inf, "cost must be a finite number >= 0, not inf"),
    ],
)
def test_bad_input_is_refused(rate, burst, cost, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Spacing.of(rate, burst, cost)


def test_levels_drain_and_a_clock_that_goes_back_drains_nothing():
    ten = spacing()
    assert ten.drained(3, 100_000) == 2
    assert ten.drained(3, 1e9) == 0
    assert ten.drained(3, -5) == 3


def test_grants_say_when_there_is_more():
    ten = spacing()
    assert ten.grant(1, 1, allowed=True) == Grant(True, 0.0, 9, 0.1)
    assert ten.grant(10, 1, allowed=False) == Grant(False, 0.1, 0, 1.0)
    assert ten.grant(0, 11, allowed=False) == Grant(False, math.inf, 10, 0.0)
    assert ten.grant(12, 0, allowed=False) == Grant(False, 0.2, 0, 1.2)


@given(
    st.floats(min_value=0.001, max_value=1e6),
    st.floats(min_value=1, max_value=1e4),
    st.floats(min_value=0, max_value=1),
    st.floats(min_value=0, max_value=1),
)
def test_waiting_as_long_as_told_is_enough(amount, burst, fill, share):
    rate = spacing(amount, burst=burst)
    level, cost = fill * burst, share * burst
    retry_after = rate.grant(level, cost, allowed=False).retry_after
    later = rate.drained(level, round(retry_after * 1e6))
    assert rate.wait(later, cost) == 0
