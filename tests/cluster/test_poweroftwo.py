"""Power of two choices: even when idle, near the best under load, away from the slow and the hung."""

from __future__ import annotations

from collections import Counter

import pytest

from aiopatterns.cluster import PowerOfTwo
from aiopatterns.cluster.endpoint import REMEMBERED, SAMPLES, Traffic
from aiopatterns.testing import explore
from tests.cluster.endpoints import endpoints


def picked(made, traffic, calls=2_000):
    picker = PowerOfTwo().picker(made, traffic)
    return Counter(picker.pick(None).id for _ in range(calls))


def known(endpoint, latency, now=0.0):
    for _ in range(SAMPLES):
        endpoint.begin("known", now - latency)
        endpoint.observe(endpoint.end("known", now), now, failed=False)


@pytest.mark.promise("cluster-balancer-distribution")
@pytest.mark.parametrize("total", [1, 2, 3, 9, 10, 26])
def test_idle_endpoints_share_evenly(total):
    counts = picked(endpoints([1] * total), Traffic(), calls=400 * total)
    assert len(counts) == total
    assert max(counts.values()) - min(counts.values()) <= 8


@pytest.mark.promise("cluster-balancer-distribution")
@pytest.mark.parametrize("rhythm", [2, 3, 6])
def test_who_calls_in_a_rhythm_gets_everybody(rhythm):
    picker = PowerOfTwo().picker(endpoints([1, 1, 1]), Traffic())
    picked = [picker.pick(None).id for _ in range(600 * rhythm)]
    counts = Counter(picked[::rhythm])
    assert min(counts[name] for name in "abc") > 120


@pytest.mark.promise("cluster-balancer-distribution")
def test_idle_endpoints_share_by_weight():
    counts = picked(endpoints([3, 1, 2]), Traffic(), calls=6_000)
    assert [counts[name] for name in "abc"] == [3_000, 1_000, 2_000]


@pytest.mark.promise("cluster-balancer-distribution")
def test_calls_in_flight_stay_even_under_load():
    """Mitzenmacher: the fullest has log log n more than the mean, not sqrt as with chance."""

    async def fill() -> None:
        made = endpoints([1] * 20)
        picker = PowerOfTwo().picker(made, Traffic())
        for number in range(2_000):
            picker.pick(None).begin(number, 0.0)
        assert max(each.in_flight for each in made) <= 105
        assert min(each.in_flight for each in made) >= 90

    explore(fill, range(50))


def test_calls_in_flight_follow_the_weights():
    made = endpoints([4, 1])
    picker = PowerOfTwo().picker(made, Traffic())
    for number in range(100):
        picker.pick(None).begin(number, 0.0)
    assert abs(made[0].in_flight - 80) <= 2


def test_about_as_fast_is_as_fast():
    traffic = Traffic()
    made = endpoints([1, 1], traffic)
    known(made[0], 0.010)
    known(made[1], 0.019)
    assert picked(made, traffic)["a"] == 1_000


@pytest.mark.parametrize("slow", [0, 1])
def test_a_slow_one_gets_less(slow):
    traffic = Traffic()
    made = endpoints([1, 1], traffic)
    known(made[slow], 0.030)
    known(made[1 - slow], 0.010)
    assert picked(made, traffic)["ab"[slow]] == 0
    for number in range(2):  # three calls there take as long as one here: a tie, at last
        made[1 - slow].begin(number, 0.0)
    made[1 - slow].lag = 0.010
    assert picked(made, traffic)["ab"[slow]] > 0


def test_one_that_hangs_is_shunned_before_its_call_ends():
    traffic = Traffic()
    made = endpoints([1] * 3, traffic)
    for each in made:
        known(each, 0.010)
    made[0].begin("hangs", 0.0)
    for number in range(8):
        made[1 + number % 2].begin(number, 0.05)
    assert picked(made, traffic)["a"] == 0  # one call there against four at each of the others


def test_what_was_slow_is_tried_again():
    traffic = Traffic()
    made = endpoints([1, 1], traffic)
    known(made[0], 1.0)
    known(made[1], 0.001)
    assert picked(made, traffic)["a"] == 0
    known(made[1], 0.001, now=REMEMBERED)
    assert picked(made, traffic)["a"] == 1_000


def test_what_is_next_to_nothing_makes_no_difference():
    traffic = Traffic()
    made = endpoints([1, 1], traffic)
    known(made[0], 0.00002)
    known(made[1], 0.0009)
    assert picked(made, traffic)["a"] == 1_000


def test_latency_counts_only_where_both_are_known():
    traffic = Traffic()
    made = endpoints([1, 1], traffic)
    known(made[0], 1.0)
    assert picked(made, traffic)["a"] == 1_000
