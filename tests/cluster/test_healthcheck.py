"""A check as it is written down, and as it is planned."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aiopatterns.cluster.healthcheck import Check, Plan, plan
from aiopatterns.cluster.hysteresis import Thresholds

GRADES = Thresholds(rise=2, fall=3, degraded_after=0.1, down_after=0.5, dwell=5.0)


async def check() -> None: ...


def plain() -> None: ...


def test_a_function_is_a_check_of_readiness():
    expected = Plan("db", check, frozenset({"readiness"}), 10.0, 5.0, GRADES)
    assert plan("db", check, 10.0, GRADES) == expected
    assert plan("db", Check(check), 10.0, GRADES) == expected


def test_a_check_may_differ_from_its_checker():
    planned = plan(
        "db",
        Check(
            check,
            kinds=("liveness", "startup"),
            interval=60,
            timeout=20,
            degraded_after=2,
            down_after=math.inf,
        ),
        10.0,
        GRADES,
    )
    assert (planned.interval, planned.timeout) == (60, 20)
    assert planned.kinds == {"liveness", "startup"}
    assert planned.thresholds == Thresholds(
        rise=2, fall=3, degraded_after=2, down_after=math.inf, dwell=5.0
    )


def test_the_timeout_is_half_of_its_own_interval():
    assert plan("db", Check(check, interval=4), 10.0, GRADES).timeout == 2.0


def test_a_check_in_no_set():
    assert plan("db", Check(check, kinds=()), 10.0, GRADES).kinds == frozenset()


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ({"fn": plain}, TypeError, "fn must be an async function, not the plain function plain"),
        ({"fn": 7}, TypeError, "fn must be a function"),
        (
            {"kinds": "readiness"},
            TypeError,
            r"kinds must be a collection, such as \('readiness',\)",
        ),
        ({"kinds": 7}, TypeError, "kinds must be a collection"),
        ({"kinds": ("ready",)}, ValueError, "kinds must be one of 'liveness', 'readiness'"),
        ({"interval": 0}, ValueError, "interval must be a finite number > 0"),
        ({"interval": math.inf}, ValueError, "interval must be"),
        ({"timeout": -1}, ValueError, "timeout must be"),
        ({"degraded_after": 0}, ValueError, "degraded_after must be a number > 0"),
        ({"down_after": "1"}, TypeError, "down_after must be"),
    ],
)
@pytest.mark.promise("cluster-bad-input")
def test_bad_input_of_a_check(values, error, text):
    with pytest.raises(error, match=text):
        Check(**({"fn": check} | values))


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (plain, TypeError, r"checks\['db'\] must be an async function"),
        (None, TypeError, r"checks\['db'\] must be a function"),
        (Check(check, timeout=11), ValueError, r"timeout of check 'db' must be at most its inter"),
        (Check(check, degraded_after=1), ValueError, "down_after must be at least degraded_after"),
    ],
)
@pytest.mark.promise("cluster-bad-input")
def test_bad_input_of_a_plan(given: Any, error, text):
    with pytest.raises(error, match=text):
        plan("db", given, 10.0, GRADES)
