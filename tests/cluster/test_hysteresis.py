"""Hysteresis: rise, fall, latency grades and dwell, against a plain model."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster.hysteresis import LATENCIES, HealthState, Hysteresis, Thresholds

HEALTHY, DEGRADED = HealthState.HEALTHY, HealthState.DEGRADED
UNKNOWN, UNHEALTHY = HealthState.UNKNOWN, HealthState.UNHEALTHY
FAST, SLOW = 0.01, 0.3


def thresholds(**changes: Any) -> Thresholds:
    values = {"rise": 2, "fall": 3, "degraded_after": 0.1, "down_after": 0.5, "dwell": 5.0}
    return Thresholds(**(values | changes))


def course(results: str, *, step: float = 10.0, **changes: Any) -> list[HealthState]:
    """The state after each result: ``+`` fast, ``s`` slow, ``-`` failed, ``!`` suspected."""
    hysteresis, states = Hysteresis(thresholds(**changes), 0.0), []
    for at, result in enumerate(results):
        before, now = hysteresis.state, at * step
        if result in "+s":
            changed = hysteresis.succeed(FAST if result == "+" else SLOW, now)
        else:
            changed = hysteresis.fail(now) if result == "-" else hysteresis.suspect(now)
        assert changed == (hysteresis.state is not before)
        assert not changed or hysteresis.since == now
        states.append(hysteresis.state)
    return states


@pytest.mark.parametrize(
    ("results", "last"),
    [
        ("+", HEALTHY),  # the first result decides alone
        ("-", UNHEALTHY),
        ("s", DEGRADED),
        ("!", UNKNOWN),  # but not what others have seen
        ("!!!", UNHEALTHY),
        ("!!+", HEALTHY),
        ("+--", HEALTHY),
        ("+---", UNHEALTHY),
        ("+--+--", HEALTHY),  # in a row
        ("+-!-", UNHEALTHY),  # both kinds of failures count
        ("-+", UNHEALTHY),
        ("-++", HEALTHY),
        ("-+-+", UNHEALTHY),
        ("-+!+", UNHEALTHY),
        ("-ss", DEGRADED),
        ("---", UNHEALTHY),
        ("+s", HEALTHY),  # one outlier is none
        ("++++s", HEALTHY),
        ("++++ss", DEGRADED),
        ("s" + "+" * (LATENCIES - 1), HEALTHY),
        ("ss" + "+" * (LATENCIES - 2), DEGRADED),
        ("ss" + "+" * (LATENCIES - 1), HEALTHY),
        ("ss---", UNHEALTHY),
        ("ss---++", HEALTHY),  # slow ones before an outage are forgotten
    ],
)
@pytest.mark.promise("cluster-health-hysteresis")
def test_the_state_after_some_results(results, last):
    assert course(results)[-1] is last


def test_a_state_lasts_its_dwell_time():
    assert course("+" + "-" * 6, step=1.0) == [HEALTHY] * 5 + [UNHEALTHY] * 2
    assert course("-" + "+" * 6, step=1.0) == [UNHEALTHY] * 5 + [HEALTHY] * 2
    assert course("+" + "s" * 6, step=1.0) == [HEALTHY] * 5 + [DEGRADED] * 2
    assert course("+" + "-" * 6, step=1.0, dwell=0.0) == [HEALTHY] * 3 + [UNHEALTHY] * 4


def test_grades_can_be_switched_off():
    assert course("sss", degraded_after=math.inf, down_after=math.inf) == [HEALTHY] * 3


def test_the_percentile_lets_one_outlier_pass():
    hysteresis = Hysteresis(thresholds(), 0.0)
    assert hysteresis.p95 is None
    for latency in (9.0, 0.02, 0.01):
        hysteresis.succeed(latency, 0.0)
    assert hysteresis.p95 == 0.02


@given(
    results=st.text("+s-!", max_size=60),
    step=st.sampled_from([0.5, 2.0, 7.0]),
    rise=st.integers(1, 4),
    fall=st.integers(1, 4),
    dwell=st.sampled_from([0.0, 3.0, 10.0]),
)
@pytest.mark.promise("cluster-health-hysteresis")
def test_nothing_but_enough_results_in_a_row_changes_a_state(results, step, rise, fall, dwell):
    states = course(results, step=step, rise=rise, fall=fall, dwell=dwell)
    before, since = UNKNOWN, -math.inf
    for at, after in enumerate(states):
        if after is not before:
            here = results[: at + 1]
            assert after is not UNKNOWN
            assert at * step - since >= dwell
            if after is UNHEALTHY:
                failed = len(here) - len(here.rstrip("-!"))
                assert failed >= fall or (before is UNKNOWN and here[-1] == "-")
            elif before is UNHEALTHY:
                assert len(here) - len(here.rstrip("+s")) >= rise
            else:
                assert here[-1] in "+s"
            before, since = after, at * step


@given(results=st.text("+s-!", max_size=30))
def test_enough_of_one_kind_always_leads_there(results):
    """Whatever went before: the way up and the way down are both open."""
    assert course(results + "-" * 3)[-1] is UNHEALTHY
    assert course(results + "+" * (LATENCIES + 1))[-1] is HEALTHY


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"rise": 0}, ValueError, "rise must be a whole number >= 1"),
        ({"rise": 1.5}, TypeError, "rise must be"),
        ({"fall": 0}, ValueError, "fall must be"),
        ({"degraded_after": 0}, ValueError, "degraded_after must be a number > 0"),
        ({"down_after": math.nan}, ValueError, "down_after must be"),
        ({"down_after": 0.05}, ValueError, r"down_after must be at least degraded_after \(0.1\)"),
        ({"dwell": -1}, ValueError, "dwell must be a finite number >= 0"),
        ({"dwell": math.inf}, ValueError, "dwell must be a finite number >= 0"),
    ],
)
@pytest.mark.promise("cluster-bad-input")
def test_bad_input_names_the_field(change, error, text):
    with pytest.raises(error, match=text):
        thresholds(**change)
