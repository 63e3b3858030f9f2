"""Probes: their number, the verdict, and the time it may take."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.resilience.halfopen import HalfOpen, Limits, Probes
from aiopatterns.resilience.trip import Consecutive, Slow, Trip


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


@pytest.mark.parametrize(
    ("rules", "trip", "limits"),
    [
        (HalfOpen(), Trip(), (1, 1, 2)),
        (HalfOpen(4), Trip(), (2, 3, 5)),
        (HalfOpen(4), Trip(ratio=1.0), (4, 1, 5)),
        (HalfOpen(4), Trip(Consecutive(9)), (2, 3, 5)),
        (HalfOpen(5), Trip(), (3, 3, 6)),
        (HalfOpen(10, ratio=0.3), Trip(), (3, 8, 11)),  # 0.3 * 10 is more than 3
        (HalfOpen(10, ratio=0.01), Trip(), (1, 10, 11)),
        (HalfOpen(5, successes=2), Trip(), (4, 2, 6)),
        (HalfOpen(5, failures=2), Trip(), (2, 4, 6)),
        (HalfOpen(5, successes=2, failures=1), Trip(), (1, 2, 6)),
        (HalfOpen(4), Trip(slow=Slow(1, 0.5)), (2, 3, 2)),
        (HalfOpen(4, slow_ratio=1.0), Trip(slow=Slow(1, 0.5)), (2, 3, 4)),
    ],
    ids=str,
)
def test_rules_come_down_to_whole_numbers(rules, trip, limits):
    assert rules.limits(trip) == Limits(*limits)


@given(
    st.integers(1, 8),
    st.data(),
    st.sampled_from(["early", "all"]),
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=8, max_size=8),
)
def test_every_round_has_one_verdict_and_an_early_one_is_right(probes, data, verdict, results):
    successes = data.draw(st.none() | st.integers(1, probes))
    failures = data.draw(st.none() | st.integers(1, probes + 1 - (successes or 1)))
    rules = HalfOpen(probes, verdict, successes=successes, failures=failures)
    trip = Trip(slow=Slow(1.0, data.draw(st.sampled_from([0.2, 0.5, 1.0]))))
    results = results[:probes]
    round_ = Probes(rules, trip, now=0.0, patience=30.0)
    for _ in results:
        assert round_.free
        round_.claim(0.0)
    assert not round_.free
    limits = rules.limits(trip)
    found = None
    for number, (failed, slow) in enumerate(results, 1):
        assert found is None
        found = round_.record(2.0 if slow else 0.5, failed=failed)
        if found is not None:
            break
    assert found is not None
    if verdict == "all":
        assert number == probes
    bad = sum(failed for failed, _ in results)
    late = sum(slow for _, slow in results)
    if found == "open" or verdict == "all":
        assert (found == "open") == (bad >= limits.failures or late >= limits.slow)
    else:
        good = sum(not failed for failed, _ in results[:number])
        assert good >= limits.successes
        assert late < limits.slow


def test_a_place_that_is_given_back_is_free():
    probes = Probes(HalfOpen(2), Trip(), now=0.0, patience=30.0)
    probes.claim(0.0)
    probes.claim(0.0)
    assert not probes.free
    probes.give_back()
    assert probes.free
    assert probes.totals().calls == 0


def test_the_time_of_a_round_is_that_of_the_rules():
    probes = Probes(HalfOpen(2, max_seconds=5, on_max="closed"), Trip(), now=10.0, patience=30.0)
    assert (probes.ends, probes.on_max) == (15.0, "closed")
    probes.claim(12.0)
    assert probes.ends == 15.0
    probes.give_back()
    assert probes.ends == 15.0


def test_without_rules_a_probe_has_the_time_of_the_break():
    probes = Probes(HalfOpen(3, "all"), Trip(), now=10.0, patience=30.0)
    assert probes.ends == math.inf
    probes.claim(20.0)
    assert probes.ends == 50.0
    probes.claim(25.0)
    assert probes.ends == 55.0
    probes.give_back()
    assert probes.ends == 55.0
    probes.record(1.0, failed=False)
    assert probes.ends == math.inf


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"probes": 0}, ValueError, r"^probes must be a whole number >= 1, not 0"),
        ({"probes": 1.5}, TypeError, r"^probes must be"),
        ({"verdict": "late"}, ValueError, r"^verdict must be one of 'early', 'all', not 'late'"),
        ({"max_seconds": 0}, ValueError, r"^max_seconds must be a finite number > 0"),
        ({"max_seconds": -1}, ValueError, r"^max_seconds must be"),
        ({"max_seconds": math.nan}, ValueError, r"^max_seconds must be"),
        ({"max_seconds": "5"}, TypeError, r"^max_seconds must be"),
        ({"on_max": "half"}, ValueError, r"^on_max must be one of 'open', 'closed'"),
        ({"successes": 0}, ValueError, r"^successes must be"),
        ({"successes": 2}, ValueError, r"^successes must be at most probes=1, not 2"),
        ({"failures": 0}, ValueError, r"^failures must be"),
        ({"failures": 2}, ValueError, r"^failures must be at most probes=1, not 2"),
        ({"failures": True}, TypeError, r"^failures must be"),
        ({"ratio": 0}, ValueError, r"^ratio must be above 0 and at most 1"),
        ({"ratio": 2}, ValueError, r"^ratio must be"),
        ({"ratio": math.nan}, ValueError, r"^ratio must be"),
        ({"slow_ratio": 0}, ValueError, r"^slow_ratio must be above 0 and at most 1"),
        ({"slow_ratio": "1"}, TypeError, r"^slow_ratio must be"),
        (
            {"probes": 5, "successes": 3, "ratio": 0.5},
            ValueError,
            r"^successes must be None with ratio=0.5, not 3",
        ),
        ({"probes": 5, "failures": 3, "ratio": 0.5}, ValueError, r"^failures must be None with"),
        (
            {"probes": 5, "successes": 4, "failures": 3},
            ValueError,
            r"^successes \+ failures must be at most probes \+ 1, .* not 4 \+ 3 with probes=5",
        ),
    ],
    ids=str,
)
def test_senseless_rules_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        wrong(HalfOpen)(**options)
