"""Records that are checked when they are made."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aiopatterns.core.errors import CircuitOpenError, UpstreamError
from aiopatterns.core.rate import Rate
from aiopatterns.gateway.policy import (
    BreakerRules,
    HttpCache,
    Identity,
    Limits,
    RoutePolicy,
    Timeouts,
)
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.trip import Consecutive, Trip


def test_defaults_are_those_of_the_documents():
    assert Timeouts() == Timeouts(connect=2, first_byte=15, idle=30, total=60)
    assert Limits() == Limits(10 * 2**20, 32 * 2**10, 8 * 2**10, ())
    policy = RoutePolicy()
    assert policy.timeouts == Timeouts()
    assert policy.breaker == BreakerRules()
    assert (policy.bulkhead, policy.rate_limit, policy.cache) == (None, None, None)
    assert policy.retry is not None
    assert policy.retry.calls() == 3
    assert policy.retry.matches(UpstreamError(name="a:1", kind="connect", sent=False))
    assert not policy.retry.matches(OSError())
    assert policy.retry.budget is not None
    other = RoutePolicy().retry
    assert other is not None
    assert policy.retry.budget is not other.budget


def test_records_are_equal_by_what_they_say():
    assert BreakerRules(Trip(Consecutive(5))) == BreakerRules(Trip(Consecutive(5)))
    assert hash(BreakerRules()) == hash(BreakerRules())
    assert Identity("ann", {}, "jwt") == Identity("ann", {}, "jwt")
    breaker = BreakerRules(Trip(Consecutive(1)), open_for=7).make("there:80")
    breaker.try_acquire().record("failure")
    with pytest.raises(CircuitOpenError) as caught:
        breaker.try_acquire()
    assert caught.value.name == "there:80"


WRONG: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (Timeouts, {"connect": 0}, ValueError, "connect must be"),
    (Timeouts, {"first_byte": -1}, ValueError, "first_byte must be"),
    (Timeouts, {"idle": math.nan}, ValueError, "idle must be"),
    (Timeouts, {"total": 0}, ValueError, "total must be"),
    (Timeouts, {"total": "1"}, TypeError, "total must be"),
    (Limits, {"max_body": -1}, ValueError, "max_body must be"),
    (Limits, {"max_headers": 0}, ValueError, "max_headers must be"),
    (Limits, {"max_target": 1.5}, TypeError, "max_target must be"),
    (Limits, {"trusted_proxies": "10.0.0.1"}, TypeError, "trusted_proxies must be"),
    (Limits, {"trusted_proxies": (7,)}, TypeError, "trusted_proxies must be"),
    (Limits, {"trusted_proxies": ("10.0.0.300",)}, ValueError, "'10.0.0.300'"),
    (Limits, {"trusted_proxies": ("10.0.0.1/8",)}, ValueError, "host bits"),
    (HttpCache, {"max_body": 0}, ValueError, "max_body must be"),
    (HttpCache, {"max_size": 0}, ValueError, "max_size must be"),
    (HttpCache, {"max_body": 10, "max_bytes": 9}, ValueError, "max_bytes must be at least"),
    (BreakerRules, {"trip": 5}, TypeError, "trip must be"),
    (BreakerRules, {"open_for": 0}, ValueError, "open_for must be"),
    (RoutePolicy, {"timeouts": 5}, TypeError, "timeouts must be"),
    (RoutePolicy, {"retry": 5}, TypeError, "retry must be"),
    (RoutePolicy, {"breaker": 5}, TypeError, "breaker must be"),
    (RoutePolicy, {"bulkhead": 0}, ValueError, "bulkhead must be"),
    (RoutePolicy, {"rate_limit": 5}, TypeError, "rate_limit must be"),
    (RoutePolicy, {"cache": 5}, TypeError, "cache must be"),
]


@pytest.mark.parametrize(
    ("kind", "values", "error", "message"), WRONG, ids=[str(each[1]) for each in WRONG]
)
def test_wrong_values_are_named(kind, values, error, message):
    with pytest.raises(error, match=message):
        kind(**values)


def test_what_may_be_left_out():
    assert Timeouts(total=None).total is None
    policy = RoutePolicy(
        retry=None, breaker=None, bulkhead=3, rate_limit=Rate(5), cache=HttpCache()
    )
    assert policy.retry is None
    assert RoutePolicy(retry=Retry(OSError)).retry is not None
