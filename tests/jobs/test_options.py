"""Options of a job: defaults, what is refused, how often a crash is survived."""

from __future__ import annotations

import math

import pytest

from aiopatterns.jobs.limits import Limits
from aiopatterns.jobs.options import Batching, JobOptions, check_priority
from aiopatterns.jobs.unique import Unique
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.retry import Retry


def test_defaults():
    options = JobOptions()
    assert (options.retry, options.timeout, options.priority) == (None, None, 0)
    assert (options.limits, options.unique, options.result_ttl) == (None, None, 3600.0)
    assert not options.demote


@pytest.mark.parametrize(
    ("retry", "attempts"),
    [
        (None, 3),
        (Retry(on=OSError, attempts=7), 7),
        (Retry(on=OSError, attempts=1), 1),
        (Retry(on=OSError, attempts=None), 2**31 - 1),
    ],
)
def test_how_often_it_may_be_started(retry, attempts):
    assert JobOptions(retry=retry).attempts == attempts


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"retry": 3}, TypeError, "retry must be a Retry or None, not 3"),
        ({"timeout": 0}, ValueError, "timeout must be a finite number > 0, not 0"),
        ({"timeout": math.nan}, ValueError, "timeout must be a finite number > 0, not nan"),
        ({"timeout": "5"}, TypeError, "timeout must be a finite number > 0, not '5'"),
        ({"priority": 10}, ValueError, "priority must be a whole number from 0 to 9, not 10"),
        ({"priority": -1}, ValueError, "priority must be a whole number >= 0, not -1"),
        ({"priority": 1.0}, TypeError, "priority must be a whole number >= 0"),
        ({"priority": True}, TypeError, "priority must be a whole number >= 0"),
        ({"limits": 5}, TypeError, "limits must be Limits or None, not 5"),
        ({"unique": "k"}, TypeError, "unique must be a Unique or None, not 'k'"),
        ({"result_ttl": -1}, ValueError, "result_ttl must be a finite number >= 0, not -1"),
        ({"result_ttl": math.inf}, ValueError, "result_ttl must be a finite number >= 0"),
        ({"result_ttl": None}, TypeError, "result_ttl must be a finite number >= 0"),
    ],
)
def test_bad_input(given, error, message):
    with pytest.raises(error, match=message):
        JobOptions(**given)


def test_a_retry_with_a_budget_is_refused():
    with pytest.raises(ValueError, match="retry must have no budget"):
        JobOptions(retry=Retry(on=OSError, budget=Budget.ratio(0.5)))


def test_everything_at_once_is_fine():
    JobOptions(
        retry=Retry(on=OSError),
        timeout=0.1,
        priority=9,
        limits=Limits(concurrency=1),
        unique=Unique("k"),
        result_ttl=0,
    )


@pytest.mark.parametrize("priority", range(10))
def test_every_priority(priority):
    assert check_priority(priority) == priority


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize(
    ("size", "within", "message"),
    [(0, 1, "size must be a whole number >= 1"), (1, 0, "within must be a finite number > 0")],
)
def test_bad_batches(size, within, message):
    with pytest.raises(ValueError, match=message):
        Batching(size, within)
    assert Batching(1, 0.1).size == 1
