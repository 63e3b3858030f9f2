"""Breaks: numbers, backoffs, functions, hints, and functions that fail."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from aiopatterns.resilience.backoff import Constant, Exponential, Proportional
from aiopatterns.resilience.breaktime import BREAK, BreakInfo, break_length, check_open_for
from aiopatterns.testing import simulate


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


def info(openings=0, error=None):
    return BreakInfo(openings, 3, 0.75, calls=4, slow=1, slow_ratio=0.25, error=error)


def test_a_number_is_every_break():
    assert [break_length(7, info(n)) for n in range(3)] == [7, 7, 7]


def test_a_backoff_grows_with_each_opening_up_to_its_cap():
    grows = Exponential(10, factor=2, cap=60, jitter="none")
    assert [break_length(grows, info(n)) for n in range(5)] == [10, 20, 40, 60, 60]
    assert break_length(grows, info(10**9)) == 60


def test_jitter_comes_from_the_one_source_of_chance():
    async def lengths():
        spread = Exponential(30, factor=1, cap=600, jitter=Proportional(0.1))
        return [break_length(spread, info()) for _ in range(20)]

    found = simulate(lengths, seed=3)
    assert found == simulate(lengths, seed=3) != simulate(lengths, seed=4)
    assert len(set(found)) > 1
    assert all(27 <= seconds <= 33 for seconds in found)


def test_a_function_knows_why():
    seen = []
    error = OSError()

    def length(why):
        seen.append(why)
        return 5.0 if why.ratio < 0.8 else 60.0

    assert break_length(length, info(2, error)) == 5.0
    assert seen == [BreakInfo(2, 3, 0.75, 4, 1, 0.25, error)]


class Told(Exception):
    def __init__(self, retry_after):
        self.retry_after = retry_after


@pytest.mark.parametrize(
    ("hint", "seconds"),
    [(50, 50), (3, 10), (1e9, 60), (math.inf, 60), (-1, 10), (math.nan, 10), ("50", 10), (None, 10)],
)  # fmt: skip
def test_an_error_that_says_when_to_come_back_makes_it_longer_within_reason(hint, seconds):
    assert break_length(10, info(error=Told(hint))) == seconds
    assert break_length(lambda _: 10, info(error=Told(hint))) == seconds
    assert break_length(Constant(10), info(error=Told(hint))) == seconds
    assert break_length(100, info(error=Told(hint))) == 100


@pytest.mark.parametrize(
    "bad", [0, -1, math.nan, math.inf, "5", None, True, Exception("no")], ids=repr
)
def test_a_function_that_fails_is_logged_and_the_circuit_opens_all_the_same(bad, caplog):
    def length(why):
        if isinstance(bad, Exception):
            raise bad
        return bad

    with caplog.at_level(logging.ERROR, "aiopatterns"):
        assert break_length(length, info()) == BREAK
    assert "open_for failed; the circuit is open for 30 s" in caplog.text


def test_a_backoff_without_delay_cannot_keep_it_from_opening(caplog):
    assert break_length(Constant(0), info()) == BREAK
    assert "open_for failed" in caplog.text


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        ("30", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_what_says_nothing_about_a_length_is_refused(value, error):
    with pytest.raises(error, match=r"^open_for must be a finite number > 0"):
        check_open_for(wrong(value))


async def test_an_async_function_is_refused():
    async def length(why):
        return 5

    with pytest.raises(TypeError, match=r"^open_for must be a plain function, not the async"):
        check_open_for(wrong(length))
    for good in (5, 2.5, Constant(1), lambda why: 1.0):
        assert check_open_for(good) is good
