"""Unique keys: which modes take a window."""

from __future__ import annotations

import pytest

from aiopatterns.jobs.unique import Unique


@pytest.mark.parametrize(
    ("mode", "window"), [("drop", None), ("keep_last", None), ("throttle", 5), ("debounce", 0.5)]
)
def test_modes(mode, window):
    made = Unique("user:{user_id}", mode=mode, window=window)
    assert (made.key, made.mode, made.window) == ("user:{user_id}", mode, window)
    assert Unique("k").mode == "drop"


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"key": ""}, ValueError, "key must be a non-empty string"),
        ({"key": 3}, TypeError, "key must be a non-empty string, not 3"),
        ({"mode": "first"}, ValueError, "mode must be one of 'drop', 'throttle', 'debounce', 'kee"),
        ({"mode": "throttle"}, ValueError, "window must be given for mode='throttle'"),
        ({"mode": "debounce"}, ValueError, "window must be given for mode='debounce'"),
        ({"mode": "debounce", "window": 0}, ValueError, "window must be a finite number > 0"),
        ({"mode": "throttle", "window": "1"}, TypeError, "window must be a finite number > 0"),
        ({"window": 3}, ValueError, "window must be None for mode='drop', not 3"),
        (
            {"mode": "keep_last", "window": 3},
            ValueError,
            "window must be None for mode='keep_last'",
        ),
    ],
)
def test_bad_input(given, error, message):
    with pytest.raises(error, match=message):
        Unique(**{"key": "k", **given})
