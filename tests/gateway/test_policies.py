from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.core.rate import Rate
from aiopatterns.gateway.policies import Policies
from aiopatterns.gateway.policy import BreakerRules, HttpCache, RoutePolicy, Timeouts
from aiopatterns.gateway.stock import Stock
from aiopatterns.gateway.tables import Table
from aiopatterns.resilience import Retry, SharedRateLimit, TokenBucket
from aiopatterns.resilience.halfopen import HalfOpen
from aiopatterns.resilience.trip import Consecutive, Seconds, Trip


@pytest.fixture
def problems():
    return []


@pytest.fixture
def read(problems):
    policies = Policies(Stock({}), open_backend("memory://"))

    def policy(values: Any, *, owner: str = "me") -> RoutePolicy | None:
        table = Table(values, "", lambda where, what: problems.append(f"{where}: {what}"))
        return policies.read(table, lambda _: owner)

    return policy


def test_every_part_is_what_it_is_in_code(read, problems):
    policy = read(
        {
            "timeouts": {"connect": 1, "total": False},
            "retry": {"attempts": 2, "initial": 0.1, "factor": 3, "cap": 1, "budget": 0.5},
            "breaker": {"ratio": 0.25, "min_calls": 5, "window": 30, "open_for": 2, "probes": 3},
            "bulkhead": 7,
            "rate_limit": {"amount": 10, "per": 60},
            "cache": {"max_body": 10, "max_size": 20},
        }
    )
    assert problems == []
    assert policy is not None
    assert policy.timeouts == Timeouts(connect=1, total=None)
    assert isinstance(policy.retry, Retry)
    assert policy.breaker == BreakerRules(Trip(Seconds(30), 5, 0.25), 2, HalfOpen(3))
    assert policy.bulkhead == 7
    assert policy.rate_limit == Rate(10, per=60)
    assert policy.cache == HttpCache(max_body=10, max_size=20)


def test_nothing_said_is_as_in_code(read, problems):
    policy, plain = read({}), RoutePolicy()
    assert (policy.timeouts, policy.breaker, policy.cache) == (Timeouts(), BreakerRules(), None)
    assert isinstance(policy.retry, Retry)
    empty = read({"retry": {}, "breaker": {}, "cache": {}, "timeouts": {}})
    assert (empty.timeouts, empty.breaker, empty.cache) == (Timeouts(), BreakerRules(), HttpCache())
    assert repr(empty.retry) == repr(plain.retry)
    assert problems == []


def test_true_takes_a_thing_as_it_is_and_false_takes_it_away(read, problems):
    taken = read({"retry": True, "breaker": True, "cache": True})
    assert (taken.breaker, taken.cache) == (BreakerRules(), HttpCache())
    assert taken.retry is not None
    parts = {"retry", "breaker", "cache", "bulkhead", "rate_limit"}
    none = read(dict.fromkeys(parts, False))
    assert {name: getattr(none, name) for name in parts} == dict.fromkeys(parts)
    assert problems == []


def test_failures_in_a_row(read, problems):
    policy = read({"breaker": {"consecutive": 5}})
    assert policy.breaker.trip == Trip(Consecutive(5))
    assert read({"breaker": {"consecutive": 5, "window": 3}}) is None
    assert read({"breaker": {"consecutive": 5, "ratio": 0.3}}) is None
    assert problems[0] == "breaker: window is for a 'ratio', not for failures in a row"
    assert problems[1].startswith("breaker: ratio must be None")


def test_limits_may_save_up_or_be_shared(read, problems):
    bucket = read({"rate_limit": {"amount": 5, "burst": 9}}).rate_limit
    assert isinstance(bucket, TokenBucket)
    assert bucket.rate == Rate(5)
    shared = read({"rate_limit": {"amount": 5, "shared": "api", "on_outage": "deny"}}).rate_limit
    assert isinstance(shared, SharedRateLimit)
    assert repr(shared) == "SharedRateLimit('api', 5 per 1 s)"
    assert problems == []


def test_one_owner_and_one_text_are_one_object(read):
    values = {"retry": {"attempts": 2}, "rate_limit": {"amount": 1, "burst": 2}}
    mine, again, other = read(values), read(values), read(values, owner="other")
    assert mine.retry is again.retry is not other.retry
    assert mine.rate_limit is again.rate_limit is not other.rate_limit


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"timeout": {}}, ["timeout: unknown key; did you mean 'timeouts'?"]),
        ({"timeouts": 5}, ["timeouts: must be a table, not 5"]),
        ({"timeouts": False}, ["timeouts: must be a table, not False"]),
        (
            {"timeouts": {"conect": 1, "idle": 0, "total": True}},
            [
                "timeouts.conect: unknown key; did you mean 'connect'?",
                "timeouts.idle: must be a finite number > 0, not 0",
                "timeouts.total: must be a finite number > 0, not True",
            ],
        ),
        ({"retry": 3}, ["retry: must be a table, not 3"]),
        ({"retry": {"attempts": 0}}, ["retry.attempts: must be a whole number >= 1, not 0"]),
        (
            {"retry": {"budget": -1, "factor": 0.5}},
            [
                "retry.factor: must be at least 1.0, not 0.5",
                "retry.budget: ratio must be between 0.0 and 1000.0, not -1",
            ],
        ),
        ({"breaker": {"ratio": 2}}, ["breaker.ratio: must be above 0 and at most 1, not 2"]),
        ({"breaker": {"probes": 0}}, ["breaker.probes: must be a whole number >= 1, not 0"]),
        ({"bulkhead": "x"}, ["bulkhead: must be a whole number >= 1, not 'x'"]),
        ({"bulkhead": True}, ["bulkhead: must be a whole number >= 1, not True"]),
        ({"rate_limit": True}, ["rate_limit: must be a table, not True"]),
        ({"rate_limit": {}}, ["rate_limit.amount: is missing"]),
        (
            {"rate_limit": {"amount": 0, "burst": 0}},
            [
                "rate_limit.amount: must be a finite number > 0, not 0",
                "rate_limit.burst: must be a finite number > 0, not 0",
            ],
        ),
        (
            {"rate_limit": {"amount": 1, "on_outage": "deny"}},
            ["rate_limit.on_outage: is for limits that are 'shared'"],
        ),
        (
            {"rate_limit": {"per": 1, "shared": "", "on_outage": "x"}},
            [
                "rate_limit.amount: is missing",
                "rate_limit.shared: name must be a non-empty string, not ''",
                "rate_limit.on_outage: must be one of 'local', 'allow', 'deny', not 'x'",
            ],
        ),
        ({"cache": {"max_size": 0}}, ["cache.max_size: must be a whole number >= 1, not 0"]),
    ],
)
def test_what_is_wrong_is_told_with_its_place(values, told, read, problems):
    assert read(values) is None or told[0].startswith("timeout: unknown")
    assert problems == told


def test_a_shared_limit_needs_a_backend(problems):
    table = Table(
        {"rate_limit": {"amount": 1, "shared": "api"}}, "", lambda *told: problems.append(told)
    )
    assert Policies(Stock({}), None).read(table, str) is None
    ((where, what),) = problems
    assert where == "rate_limit.shared"
    assert "needs a 'backend'" in what
