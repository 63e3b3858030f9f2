"""Hybrid time: it grows, follows what was seen, and refuses what is too far ahead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.data import HybridClock, Stamp
from aiopatterns.data import clock as module


class Wall:
    """A clock on the wall that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now: float = 1_000.0) -> None:
        self.now = now
        monkeypatch.setattr(module, "wall", lambda: self.now)


@pytest.fixture
def wall(monkeypatch):
    return Wall(monkeypatch)


def test_without_messages_it_is_the_wall_clock(wall):
    clock = HybridClock("a")
    assert clock.now() == Stamp(1_000_000, 0, "a")
    assert clock.now() == Stamp(1_000_000, 1, "a")
    wall.now += 0.001
    assert clock.now() == Stamp(1_000_001, 0, "a")


def test_a_clock_that_is_set_back_goes_on(wall):
    clock = HybridClock("a")
    last = clock.now()
    wall.now -= 500
    for _ in range(3):
        last, before = clock.now(), last
        assert last > before
    assert last == Stamp(1_000_000, 3, "a")
    wall.now += 501
    assert clock.now() == Stamp(1_001_000, 0, "a")


def test_an_effect_is_later_than_its_cause(wall):
    behind = HybridClock("b")
    seen = Stamp(1_059_000, 4, "a")
    assert behind.update(seen) == Stamp(1_059_000, 5, "b")
    assert behind.update(Stamp(1_000_000, 0, "a")) == Stamp(1_059_000, 6, "b")
    assert behind.now() == Stamp(1_059_000, 7, "b")


def test_a_stamp_too_far_ahead_is_refused_and_changes_nothing(wall):
    clock = HybridClock("b")
    with pytest.raises(ValueError, match=r"at most 60 s ahead, not 60\.001 s; the clock of 'a'"):
        clock.update(Stamp(1_060_001, 0, "a"))
    assert clock.now() == Stamp(1_000_000, 0, "b")
    clock.check(Stamp(1_060_000, 0, "a"))
    strict = HybridClock("b", max_drift=0.5)
    with pytest.raises(ValueError, match=r"at most 0\.5 s ahead"):
        strict.check(Stamp(1_000_501, 0, "a"))


def test_after_its_own_storage_it_goes_on_however_far_ahead_that_is(wall):
    clock = HybridClock("a")
    stored = Stamp(9_000_000, 7, "a")
    assert clock.now(after=stored) == Stamp(9_000_000, 8, "a")
    assert clock.now(after=Stamp(1, 0, "z")) == Stamp(9_000_000, 9, "a")


@given(st.lists(st.tuples(st.floats(0, 2_000), st.integers(0, 1), st.booleans()), max_size=30))
def test_stamps_grow_whatever_the_walls_say(steps):
    with pytest.MonkeyPatch.context() as patch:
        wall = Wall(patch)
        clocks = [HybridClock(name, max_drift=10_000) for name in "ab"]
        last = [Stamp(0, 0, name) for name in "ab"]
        for now, who, sees in steps:
            wall.now = now
            other = last[1 - who]
            made = clocks[who].update(other) if sees else clocks[who].now()
            assert made > last[who]
            assert not sees or made > other
            last[who] = made


def test_bad_input():
    bad: Any = 1
    with pytest.raises(TypeError, match="node must be a non-empty string"):
        HybridClock(bad)
    with pytest.raises(ValueError, match="node must be a non-empty string"):
        HybridClock("")
    for drift in (0, -1, float("inf")):
        with pytest.raises(ValueError, match="max_drift must be a finite number > 0"):
            HybridClock("a", max_drift=drift)
    with pytest.raises(TypeError, match="stamp must be a Stamp"):
        HybridClock("a").update(bad)
    with pytest.raises(TypeError, match="after must be a Stamp"):
        HybridClock("a").now(after=bad)
    assert repr(HybridClock("a")) == "HybridClock('a')"
