"""When a circuit opens: the rules, what they refuse, and the tally that follows them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.resilience.trip import Consecutive, Count, Seconds, Slow, Tally, Trip


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


@pytest.mark.parametrize(
    ("trip", "least", "ratio"),
    [
        (Trip(), 20, 0.5),
        (Trip(Seconds(1)), 20, 0.5),
        (Trip(Seconds(1), min_calls=3, ratio=0.1), 3, 0.1),
        (Trip(Count(100)), 20, 0.5),
        (Trip(Count(7)), 7, 0.5),
        (Trip(Count(7), min_calls=2), 2, 0.5),
        (Trip(Consecutive(7)), 7, 1.0),
    ],
    ids=str,
)
def test_what_is_not_said_has_a_meaning(trip, least, ratio):
    assert (trip.least_calls, trip.failure_ratio) == (least, ratio)


def test_rules_are_values():
    assert Trip(Count(5), slow=Slow(1)) == Trip(Count(5), slow=Slow(1, 0.5))
    assert Trip(window=Consecutive(5)) != Trip(window=Count(5))
    assert len({Trip(), Trip(), Trip(Count(1))}) == 2


def test_only_slow_calls_that_are_asked_for_are_slow():
    assert (Trip().slow_after, Trip().slow_ratio) == (math.inf, math.inf)
    trip = Trip(slow=Slow(2.0, 0.25))
    assert (trip.slow_after, trip.slow_ratio) == (2.0, 0.25)


def test_probes_fail_by_the_ratio_of_the_trip_but_not_by_that_of_a_row():
    assert Trip(ratio=0.3).probe_ratio == 0.3
    assert Trip(Consecutive(5)).probe_ratio == 0.5


@given(
    st.integers(1, 6),
    st.sampled_from([0.1, 0.3, 0.5, 1.0]),
    st.one_of(st.none(), st.integers(1, 6)),
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.5, 1.0, 2.0])), max_size=40),
)
def test_a_tally_says_what_a_list_says(n, ratio, failures, calls):
    failures = None if failures is None else min(failures, n)
    least = max(1, n - 1)
    trip = Trip(Count(n), min_calls=least, ratio=ratio, slow=Slow(1.0, 0.75), failures=failures)
    tally = Tally(trip)
    for end, (failed, elapsed) in enumerate(calls, 1):
        held = calls[max(0, end - n) : end]
        bad = sum(each for each, _ in held)
        slow = sum(each > 1.0 for _, each in held)
        expected = (failures is not None and bad >= failures) or (
            len(held) >= least and (bad / len(held) >= ratio or slow / len(held) >= 0.75)
        )
        assert tally.record(elapsed, failed=failed, at=0.0) == expected
        totals = tally.totals()
        assert (totals.calls, totals.failures, totals.slow) == (len(held), bad, slow)
        assert tally.telling(totals) == (len(held) >= least)


def test_other_thresholds_keep_the_calls():
    tally = Tally(Trip(Count(4)))
    for _ in range(3):
        assert not tally.record(1.0, failed=True, at=0.0)
    tally.adopt(Trip(Count(4), failures=4, slow=Slow(0.5)))
    assert not tally.reached()
    assert tally.record(1.0, failed=True, at=0.0)
    assert tally.totals().slow == 1


def of(cls: type, *args: object, **options: object) -> tuple[Any, ...]:
    """What is to be made, and of what."""
    return cls, args, options


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(
    ("made", "error", "match"),
    [
        (of(Seconds, 0), ValueError, r"^seconds must be a finite number > 0, not 0"),
        (of(Seconds, math.nan), ValueError, r"^seconds must be"),
        (of(Seconds, math.inf), ValueError, r"^seconds must be"),
        (of(Seconds, wrong("10")), TypeError, r"^seconds must be"),
        (of(Count, 0), ValueError, r"^n must be a whole number >= 1, not 0"),
        (of(Count, wrong(2.5)), TypeError, r"^n must be"),
        (of(Count, True), TypeError, r"^n must be"),
        (of(Consecutive, -1), ValueError, r"^n must be a whole number >= 1"),
        (of(Consecutive, wrong(None)), TypeError, r"^n must be"),
        (of(Slow, 0), ValueError, r"^seconds must be"),
        (of(Slow, math.nan), ValueError, r"^seconds must be"),
        (of(Slow, 1, 0), ValueError, r"^ratio must be above 0 and at most 1, not 0"),
        (of(Slow, 1, 1.01), ValueError, r"^ratio must be above 0 and at most 1, not 1.01"),
        (of(Slow, 1, math.nan), ValueError, r"^ratio must be"),
        (of(Slow, 1, wrong("x")), TypeError, r"^ratio must be"),
        (of(Trip, wrong(10)), TypeError, r"^window must be Seconds\(...\), Count"),
        (of(Trip, min_calls=0), ValueError, r"^min_calls must be"),
        (of(Trip, min_calls=wrong(1.5)), TypeError, r"^min_calls must be"),
        (of(Trip, failures=0), ValueError, r"^failures must be"),
        (of(Trip, failures=wrong("3")), TypeError, r"^failures must be"),
        (of(Trip, ratio=0), ValueError, r"^ratio must be"),
        (of(Trip, ratio=-0.5), ValueError, r"^ratio must be"),
        (of(Trip, ratio=50), ValueError, r"^ratio must be above 0 and at most 1, not 50"),
        (of(Trip, ratio=math.nan), ValueError, r"^ratio must be"),
        (of(Trip, ratio=wrong(True)), TypeError, r"^ratio must be"),
        (of(Trip, slow=wrong(2.0)), TypeError, r"^slow must be None or a Slow"),
        (
            of(Trip, Count(10), min_calls=11),
            ValueError,
            r"^min_calls must be at most the 10 of Count\(n=10\), not 11",
        ),
        (of(Trip, Count(10), failures=11), ValueError, r"^failures must be at most the 10"),
        (
            of(Trip, Consecutive(3), min_calls=3),
            ValueError,
            r"^min_calls must be None with Consecutive\(n=3\), which says it all, not 3",
        ),
        (of(Trip, Consecutive(3), ratio=0.5), ValueError, r"^ratio must be None with"),
        (of(Trip, Consecutive(3), failures=3), ValueError, r"^failures must be None with"),
    ],
    ids=str,
)
def test_senseless_rules_are_refused(made, error, match):
    cls, args, options = made
    with pytest.raises(error, match=match):
        cls(*args, **options)
