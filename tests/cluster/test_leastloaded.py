"""Least loaded: the fewest calls for its weight, among equals anybody."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster import LeastLoaded
from aiopatterns.cluster.endpoint import Traffic
from tests.cluster.endpoints import endpoints


@pytest.mark.promise("cluster-balancer-distribution")
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(1, 60))
def test_calls_in_flight_follow_the_weights(weights, calls):
    made = endpoints(weights)
    picker = LeastLoaded().picker(made, Traffic())
    for number in range(calls):
        picker.pick(None).begin(number, 0.0)
    for each in made:
        others = min(other.in_flight / other.instance.weight for other in made)
        assert (each.in_flight - 1) / each.instance.weight <= others + 1e-9


def test_among_equals_anybody_by_weight():
    made = endpoints([3, 1])
    picker = LeastLoaded().picker(made, Traffic())
    counts = Counter(picker.pick(None).id for _ in range(4_000))
    assert 2_800 < counts["a"] < 3_200


def test_the_rest_of_the_idle_share_what_the_busy_would_get():
    made = endpoints([1] * 5)
    made[0].begin("a call", 0.0)
    picker = LeastLoaded().picker(made, Traffic())
    counts = Counter(picker.pick(None).id for _ in range(4_000))
    assert counts["a"] == 0
    assert min(counts[name] for name in "bcde") > 850
