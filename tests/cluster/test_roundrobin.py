"""Round robin, plain and weighted: exact counts, even spacing, a start by chance."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster import RoundRobin, WeightedRoundRobin
from aiopatterns.cluster.endpoint import Traffic
from tests.cluster.endpoints import endpoints

PLAIN, WEIGHTED = RoundRobin(), WeightedRoundRobin()


def names(strategy, weights, calls):
    picker = strategy.picker(endpoints(weights), Traffic())
    return "".join(picker.pick(None).id for _ in range(calls))


@pytest.mark.promise("cluster-balancer-distribution")
@given(st.integers(1, 12), st.integers(1, 40))
def test_everybody_in_turn(total, calls):
    taken = names(PLAIN, [3] * total, calls)
    counts = Counter(taken)
    assert max(counts.values()) - min(counts.values() if len(counts) == total else [0]) <= 1
    for at in range(calls - total):
        assert taken[at] == taken[at + total]


def test_plain_turns_heed_no_weight():
    assert Counter(names(PLAIN, [5, 1, 1], 300)) == {"a": 100, "b": 100, "c": 100}


def test_a_newcomer_gets_less_of_plain_turns():
    made = endpoints([1, 1])
    made[1].ramp = 0.1
    picker = PLAIN.picker(made, Traffic())
    assert Counter(picker.pick(None).id for _ in range(110)) == {"a": 100, "b": 10}


@pytest.mark.promise("cluster-balancer-distribution")
@given(st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_weighted_turns_are_exact_and_evenly_spaced(weights):
    total = sum(weights)
    taken = names(WEIGHTED, weights, 3 * total)
    for at, weight in enumerate(weights):
        name = chr(ord("a") + at)
        assert taken.count(name) == 3 * weight
        places = [place for place, each in enumerate(taken) if each == name]
        gaps = [b - a for a, b in pairwise(places)]
        assert max(gaps, default=0) <= -(-total // weight) + len(weights)


def test_spacing_by_hand():
    taken = names(WEIGHTED, [5, 1, 1], 14)
    assert "aaaa" not in taken  # nginx itself runs four of them in a row
    assert Counter(taken) == {"a": 10, "b": 2, "c": 2}


@pytest.mark.promise("cluster-balancer-distribution")
@given(st.lists(st.floats(0.05, 40), min_size=2, max_size=6))
def test_any_weights_are_exact_to_a_call(weights):
    calls = 2_000
    counts = Counter(names(WEIGHTED, weights, calls))
    for at, weight in enumerate(weights):
        expected = calls * weight / sum(weights)
        assert abs(counts[chr(ord("a") + at)] - expected) <= len(weights) + 1


def test_weights_that_are_far_apart():
    assert Counter(names(WEIGHTED, [1, 777.3], 7783)) in ({"a": 10, "b": 7773}, {"a": 9, "b": 7774})
    assert set(names(WEIGHTED, [1e-9, 1e9], 100)) == {"b"}


@pytest.mark.parametrize("weights", [[1] * 8, [1, 2, 3, 4, 5, 6, 7, 2**0.5]])
def test_processes_begin_at_different_places(weights):
    firsts = {names(WEIGHTED, weights, 1) for _ in range(200)}
    assert len(firsts) >= 4


def test_the_turn_is_the_pick():
    picker = PLAIN.picker(endpoints([1, 1, 1]), Traffic())
    assert picker.turn is not None
    assert {picker.turn().id, picker.pick("any key").id, picker.turn().id} == {"a", "b", "c"}
