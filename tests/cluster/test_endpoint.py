"""State of one endpoint: calls in flight, latency, the weight of a newcomer."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster.endpoint import REMEMBERED, SAMPLES, Endpoint, Traffic
from tests.cluster.endpoints import endpoints, who


def one(**options):
    return Endpoint(who("a"), Traffic(), **options)


def took(endpoint, seconds, *, at, failed=False):
    endpoint.begin("a call", at - seconds)
    endpoint.observe(endpoint.end("a call", at), at, failed=failed)


def known(endpoint, seconds, *, at):
    for _ in range(SAMPLES):
        took(endpoint, seconds, at=at)


def test_load_is_what_is_in_flight_for_the_weight():
    light, heavy = endpoints([1, 3])  # the mean is 2
    for each in (light, heavy):
        assert each.load == 1.0
        each.begin(1, 0.0)
        each.begin(2, 0.0)
    assert light.load == 5.0
    assert heavy.load == pytest.approx(1 + 4 / 3)
    assert light.end(1, 2.5) == 2.5
    assert (light.in_flight, light.load) == (1, 3.0)


def test_a_weight_of_next_to_nothing_counts_finite():
    nothing, _ = endpoints([1e-9, 1e9])
    nothing.begin(1, 0.0)
    assert nothing.load == pytest.approx(5e17)
    nothing.end(1, 0.0)
    assert nothing.load == 1.0


def test_what_all_have_in_common():
    traffic = Traffic()
    a, b = endpoints([1, 1], traffic)
    a.begin(1, 1.0)
    b.begin(2, 2.0)
    assert (traffic.in_flight, traffic.now) == (2, 2.0)
    a.end(1, 3.0)
    assert (traffic.in_flight, traffic.now) == (1, 3.0)


def test_latency_is_the_mean_of_about_a_second():
    endpoint = one()
    assert endpoint.latency(0.0) == 0.0
    known(endpoint, 0.1, at=1.0)
    assert endpoint.latency(1.0) == pytest.approx(0.1)
    took(endpoint, 0.3, at=2.0)  # a second later: half of the way
    assert endpoint.latency(2.0) == pytest.approx(0.2)
    for step in range(1, 51):
        took(endpoint, 0.3, at=2 + step / 10)
    assert endpoint.latency(7.0) == pytest.approx(0.3, rel=0.01)


def test_an_old_latency_is_forgotten_and_the_next_call_counts_whole():
    endpoint = one()
    known(endpoint, 1.0, at=1.0)
    assert endpoint.latency(1.0 + REMEMBERED - 0.1) == pytest.approx(1.0)
    assert endpoint.latency(1.0 + REMEMBERED) == 0.0
    took(endpoint, 0.1, at=20.0)
    assert endpoint.latency(20.0) == 0.0
    known(endpoint, 0.1, at=20.0)
    assert endpoint.latency(20.0) == pytest.approx(0.1)


def test_a_latency_is_known_by_the_mean_of_some_calls():
    endpoint = one()
    took(endpoint, 0.5, at=1.0)  # it had to connect
    for _ in range(SAMPLES - 1):
        assert (endpoint.latency(1.0), endpoint.lag) == (0.0, 0.0)
        took(endpoint, 0.01, at=1.0)
    assert endpoint.lag == endpoint.latency(1.0) == pytest.approx(0.54 / 5)


def test_the_age_of_the_oldest_call_counts_up_to_ten_times():
    endpoint = one()
    known(endpoint, 0.1, at=1.0)
    endpoint.begin("old", 1.0)
    endpoint.begin("young", 1.4)
    assert endpoint.latency(1.05) == pytest.approx(0.1)
    assert endpoint.latency(1.5) == pytest.approx(0.5)
    assert endpoint.latency(60.0) == pytest.approx(1.0)
    endpoint.end("old", 60.0)
    assert endpoint.latency(61.0) == pytest.approx(1.0)


def test_nothing_is_known_by_a_first_call_that_hangs():
    endpoint = one()
    endpoint.begin("hangs", 0.0)
    assert endpoint.latency(100.0) == 0.0


def test_a_latency_is_looked_at_anew_after_a_while():
    endpoint = one()
    known(endpoint, 0.1, at=1.0)
    endpoint.begin("old", 1.0)
    assert endpoint.latency(1.2) == pytest.approx(0.2)
    assert endpoint.latency(1.204) == pytest.approx(0.2)  # for 5 ms it is good enough
    assert endpoint.latency(1.206) == pytest.approx(0.206)


def test_failures_never_make_it_look_faster():
    endpoint = one()
    took(endpoint, 0.001, at=0.5, failed=True)
    assert endpoint.latency(0.5) == 0.0  # not even known
    known(endpoint, 0.1, at=1.0)
    took(endpoint, 0.001, at=2.0, failed=True)
    assert endpoint.latency(2.0) == pytest.approx(0.1)
    took(endpoint, 2.0, at=3.0, failed=True)  # a timeout
    assert endpoint.latency(3.0) > 1.0
    assert (endpoint.calls, endpoint.successes, endpoint.failures) == (8, 5, 3)


def test_a_newcomer_grows_in_ten_steps():
    endpoint = one(born=100.0)
    now, seen = 100.0, []
    while now < inf:
        now = endpoint.grow(now, 10.0)
        seen.append((endpoint.ramp, now))
    assert [ramp for ramp, _ in seen] == [step / 10 for step in range(1, 11)]
    assert [due for _, due in seen] == [*(100.0 + step for step in range(2, 11)), inf]


def test_who_was_there_from_the_beginning_does_not_grow():
    endpoint = one()
    assert (endpoint.grow(0.0, 10.0), endpoint.ramp) == (inf, 1.0)
    assert (one(born=5.0).grow(5.0, 0.0), endpoint.ramp) == (inf, 1.0)


def test_statistics():
    endpoint = one()
    known(endpoint, 0.1, at=1.0)
    endpoint.begin("a call", 1.0)
    found = endpoint.statistics(1.0)
    assert (found.instance.id, found.in_flight, found.calls, found.successes) == ("a", 1, 6, 5)
    assert (found.failures, found.ejected, found.stale) == (0, False, False)
    assert found.latency == pytest.approx(0.1)
    assert one().statistics(0.0).latency is None


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 20), st.booleans()), max_size=40))
def test_latency_stays_between_the_least_and_ten_times_the_most(calls):
    endpoint, now, measured = one(), 0.0, [0.0]
    for passed, seconds, failed in calls:
        now += passed
        took(endpoint, seconds, at=now, failed=failed)
        measured.append(now - (now - seconds))
        assert 0.0 <= endpoint.latency(now) <= max(measured) * (1 + 1e-9)
