"""The rule of ejection, and the standing of one endpoint under it."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aiopatterns.cluster import Ejection
from aiopatterns.cluster.ejection import WINDOW, Standing


@pytest.mark.promise("cluster-bad-input")
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"consecutive": 0}, ValueError, "consecutive must be a whole number >= 1, not 0"),
        ({"consecutive": 2.5}, TypeError, "consecutive must be"),
        ({"base": 0}, ValueError, "base must be a finite number > 0"),
        ({"base": inf}, ValueError, "base must be"),
        ({"max_ejected_ratio": 0}, ValueError, "max_ejected_ratio must be a finite number > 0"),
        ({"max_ejected_ratio": 1.1}, ValueError, "max_ejected_ratio must be between 0 and 1"),
        ({"cap": 29}, ValueError, "cap must be at least 30.0, not 29"),
        ({"min_calls": 0}, ValueError, "min_calls must be"),
        ({"failure_ratio": 0}, ValueError, "failure_ratio must be"),
        ({"failure_ratio": 2}, ValueError, "failure_ratio must be between 0 and 1"),
        ({"panic_ratio": -0.1}, ValueError, "panic_ratio must be between 0 and 1"),
        ({"panic_ratio": "half"}, TypeError, "panic_ratio must be"),
    ],
)
def test_bad_input(options, error, text):
    with pytest.raises(error, match=text):
        Ejection(**options)


@pytest.mark.parametrize(
    ("ratio", "total", "allowed"),
    [(0.5, 1, 0), (0.5, 2, 1), (0.5, 3, 1), (0.5, 10, 5), (0.1, 5, 1), (0.29, 100, 29), (1, 4, 3)],
)
def test_how_many_may_be_out(ratio, total, allowed):
    assert Ejection(max_ejected_ratio=ratio).allowed(total) == allowed


@pytest.mark.promise("cluster-balancer-never-empty")
@given(st.floats(0.001, 1), st.integers(1, 1_000))
def test_never_all_may_be_out(ratio, total):
    assert 0 <= Ejection(max_ejected_ratio=ratio).allowed(total) < total


def test_panic_is_below_the_share_and_without_any():
    assert Ejection().panics(4, 10)
    assert not Ejection().panics(5, 10)
    assert Ejection(panic_ratio=0).panics(0, 3)
    assert not Ejection(panic_ratio=0).panics(1, 3)


def test_failures_in_a_row():
    standing = Standing(Ejection(consecutive=3))
    assert [standing.fail(0.0), standing.fail(0.0)] == [False, False]
    assert not standing.succeed(0.0)
    assert [standing.fail(0.0) for _ in range(3)] == [False, False, True]


def test_half_of_the_calls_of_a_window():
    standing = Standing(Ejection(consecutive=5, min_calls=4))
    assert not standing.succeed(0.0)
    assert not standing.fail(1.0)
    assert not standing.succeed(2.0)
    assert standing.fail(3.0)


def test_calls_of_an_earlier_window_do_not_count():
    standing = Standing(Ejection(consecutive=5, min_calls=4))
    for _ in range(4):
        standing.succeed(0.0)
        standing.fail(0.0)
        standing.succeed(0.0)
    assert not standing.fail(WINDOW)


def test_without_rules_nothing_is_held_against_it():
    standing = Standing(None)
    assert not any(standing.fail(0.0) for _ in range(100))


def test_each_time_lasts_longer_up_to_the_cap():
    standing = Standing(Ejection(base=30, cap=100))
    now, lengths = 0.0, []
    for _ in range(5):
        lengths.append(standing.eject(now))
        now = standing.until
    assert lengths == [30, 60, 90, 100, 100]


def test_who_was_in_for_as_long_as_it_had_been_out_begins_anew():
    standing = Standing(Ejection(base=30))
    assert standing.eject(0.0) == 30
    assert standing.succeed(30.0)
    assert standing.eject(59.0) == 60
    assert standing.succeed(119.0)
    assert standing.eject(179.0) == 30


def test_one_trial_and_what_it_leads_to():
    standing = Standing(Ejection(base=30))
    standing.eject(0.0)
    assert (standing.out, standing.until) == (True, 30.0)
    assert standing.offer("trial", 31.0) == 61.0  # if it hangs, that is when the next is due
    assert standing.trial == "trial"
    standing.void(40.0)
    assert standing.until == 43.0
    assert not standing.fail(41.0)  # of a call in a panic: it is out already
    assert standing.succeed(42.0)
    assert (standing.out, standing.until, standing.generation) == (False, inf, 2)


class Life(RuleBasedStateMachine):
    """A standing is always in one of two states, and always on its way out of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.terms = Ejection(consecutive=2, base=5, cap=20, min_calls=3)
        self.standing = Standing(self.terms)
        self.now = 0.0
        self.changes = 0

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def succeed(self):
        was = self.standing.out
        assert self.standing.succeed(self.now) == was
        self.changes += was

    @rule()
    def fail(self):
        if self.standing.fail(self.now):
            assert 5 <= self.standing.eject(self.now) <= 20
            self.changes += 1

    @precondition(lambda self: self.standing.out and self.now >= self.standing.until)
    @rule(ends=st.sampled_from(["failure", "ignore", "hangs"]))
    def trial(self, ends):
        self.standing.offer("trial", self.now)
        assert self.standing.trial == "trial"
        if ends == "failure":
            self.standing.eject(self.now)
            self.changes += 1
        elif ends == "ignore":
            self.standing.void(self.now)

    @invariant()
    def a_way_back_is_never_far(self):
        standing = self.standing
        assert standing.generation == self.changes
        if standing.out:
            assert standing.until <= self.now + self.terms.cap
        else:
            assert standing.until == inf


TestLife = Life.TestCase
