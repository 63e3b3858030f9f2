"""Outcomes as values."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from aiopatterns.core.outcome import Err, Ok


def test_ok_gives_its_value():
    outcome = Ok("value", index=3, elapsed=0.5, attempts=2)
    assert outcome.ok
    assert outcome.unwrap() == "value"
    assert (outcome.index, outcome.elapsed, outcome.attempts) == (3, 0.5, 2)


def test_err_raises_the_same_error():
    error = ValueError("no")
    outcome = Err(error)
    assert not outcome.ok
    with pytest.raises(ValueError) as caught:
        outcome.unwrap()
    assert caught.value is error


def test_they_match_and_are_frozen():
    def told(outcome):
        match outcome:
            case Ok(value):
                return value
            case Err(error):
                return str(error)

    assert [told(Ok(1)), told(Err(ValueError("no")))] == [1, "no"]
    with pytest.raises(FrozenInstanceError):
        setattr(Ok(1), "value", 2)
