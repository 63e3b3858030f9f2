"""Backoff: bounds of every kind for every attempt, growth, and refusals."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.resilience.backoff import Additive, Constant, Exponential, Linear, Proportional

NAMED = ["none", "full", "equal", "decorrelated"]
seconds = st.floats(1e-6, 1e6)
jitters = st.one_of(
    st.sampled_from(NAMED),
    st.builds(Proportional, st.floats(0, 1)),
    st.builds(Additive, st.floats(0, 1e6)),
)
attempts = st.one_of(st.integers(1, 20), st.integers(1, 10**400))


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


class Dice:
    def __init__(self, *shows):
        self.shows = list(shows)

    def random(self):
        return self.shows.pop(0)


@given(first=seconds, factor=st.floats(1, 1e3), more=seconds, jitter=jitters, n=attempts)
def test_exponential_stays_within_its_cap_and_never_overflows(first, factor, more, jitter, n):
    backoff = Exponential(first, factor, cap=first + more, jitter=jitter)
    assert 0 <= backoff.delay(n, rng=random.Random(n)) <= first + more


@given(step=st.one_of(st.just(0.0), seconds), more=seconds, jitter=jitters, n=attempts)
def test_linear_stays_within_its_cap_and_never_overflows(step, more, jitter, n):
    backoff = Linear(step, cap=step + more, jitter=jitter)
    assert 0 <= backoff.delay(n, rng=random.Random(n)) <= step + more


@given(d=seconds, jitter=jitters.filter(lambda each: each != "decorrelated"), n=attempts)
def test_constant_is_finite_and_never_negative(d, jitter, n):
    assert 0 <= Constant(d, jitter=jitter).delay(n, rng=random.Random(n)) < math.inf


def test_growth_without_jitter():
    dice = Dice()
    assert [Constant(2).delay(n, rng=dice) for n in (1, 2, 3)] == [2, 2, 2]
    assert [Linear(2, cap=5).delay(n, rng=dice) for n in (1, 2, 3)] == [2, 4, 5]
    growing = Exponential(1, 3, cap=20, jitter="none")
    assert [growing.delay(n, rng=dice) for n in (1, 2, 3, 4)] == [1, 3, 9, 20]


@pytest.mark.parametrize(
    ("jitter", "low", "middle"),
    [
        ("full", 0.0, 4.0),
        ("equal", 4.0, 6.0),
        (Proportional(0.25), 6.0, 8.0),
        (Additive(2.0), 8.0, 9.0),
    ],
)
def test_what_each_jitter_means(jitter, low, middle):
    assert Constant(8, jitter=jitter).delay(1, rng=Dice(0.0)) == low
    assert Constant(8, jitter=jitter).delay(1, rng=Dice(0.5)) == middle


def test_decorrelated_walks_from_the_initial_delay():
    backoff = Exponential(1, 2, cap=100, jitter="decorrelated")
    assert backoff.delay(1, rng=Dice(0.0)) == 1
    assert backoff.delay(2, rng=Dice(1.0, 0.5)) == 5  # 3, then between 1 and 9


def test_equal_seeds_give_equal_delays():
    backoff = Exponential()
    one, two = random.Random(7), random.Random(7)
    assert [backoff.delay(n, rng=one) for n in range(1, 9)] == [
        backoff.delay(n, rng=two) for n in range(1, 9)
    ]


BAD = (
    (lambda: Constant(-1), ValueError, "seconds"),
    (lambda: Constant(math.nan), ValueError, "seconds"),
    (lambda: Constant(wrong("1")), TypeError, "seconds"),
    (lambda: Constant(1, jitter="decorrelated"), ValueError, "jitter"),
    (lambda: Constant(1, jitter=wrong("some")), ValueError, "jitter"),
    (lambda: Linear(-1), ValueError, "step"),
    (lambda: Linear(2, cap=1), ValueError, "cap"),
    (lambda: Linear(1, cap=math.inf), ValueError, "cap"),
    (lambda: Linear(1, jitter=wrong(0.5)), ValueError, "jitter"),
    (lambda: Exponential(0), ValueError, "initial"),
    (lambda: Exponential(factor=0.5), ValueError, "factor"),
    (lambda: Exponential(2, cap=1), ValueError, "cap"),
    (lambda: Exponential(jitter=wrong(None)), ValueError, "jitter"),
    (lambda: Proportional(1.5), ValueError, "ratio"),
    (lambda: Additive(-1), ValueError, "seconds"),
    (lambda: Constant(1).delay(0, rng=random.Random()), ValueError, "n"),
    (lambda: Linear(1).delay(True, rng=random.Random()), TypeError, "n"),
    (lambda: Exponential().delay(wrong(1.5), rng=random.Random()), TypeError, "n"),
)


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(("make", "error", "name"), BAD, ids=range(len(BAD)))
def test_bad_input_is_one_clear_error(make, error, name):
    with pytest.raises(error, match=rf"^{name} must be"):
        make()
