from __future__ import annotations

import math

import pytest

from aiopatterns.backends.records import GroupTurn
from aiopatterns.backends.turns import Turn, checked


def test_an_empty_turn_says_nothing():
    assert checked(GroupTurn()) == Turn([], [], {}, {}, [], 0, 30_000_000, False)


def test_ids_are_named_once_and_times_are_microseconds():
    turn = GroupTurn(
        acks=["1-0", "2-0", "1-0"],
        releases=("3-0", "3-0"),
        retries={"4-0": 0.5, "5-0": 0},
        buried={"6-0": b"why"},
        renews=["7-0"],
        limit=3,
        idle=1e-9,
        delete=True,
    )
    retries = {"4-0": 500_000, "5-0": 0}
    said = (["1-0", "2-0"], ["3-0"], retries, {"6-0": b"why"}, ["7-0"], 3, 1, True)
    assert checked(turn) == said


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("acks", "1-0", "acks must be a collection of strings"),
        ("releases", [1], "releases must be a non-empty string, not 1"),
        ("renews", [""], "renews must be a non-empty string"),
        ("retries", {"1-0": -1}, "retries must be a finite number >= 0, not -1"),
        ("retries", {"1-0": math.nan}, "retries must be a finite number >= 0"),
        ("retries", {"": 1}, "retries must be a non-empty string"),
        ("buried", {"1-0": "why"}, "buried must be bytes, not str"),
        ("buried", {"": b""}, "buried must be a non-empty string"),
        ("limit", -1, "limit must be a whole number >= 0, not -1"),
        ("limit", True, "limit must be a whole number >= 0, not True"),
        ("idle", 0, "idle must be a finite number > 0, not 0"),
        ("delete", 1, "delete must be a bool, not 1"),
    ],
)
def test_bad_input_is_refused(field, value, message):
    turn = GroupTurn(**{field: value})
    with pytest.raises((ValueError, TypeError), match=message):
        checked(turn)
