from __future__ import annotations

import math
from typing import Any, cast

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.cluster.health import HealthChecker
from aiopatterns.contrib.web import (
    PAGES,
    ask,
    checked_checker,
    checked_limiter,
    checked_owners,
    health_page,
    limit_headers,
    refusal,
    request_id,
)
from aiopatterns.core.codec import JSON
from aiopatterns.core.rate import Grant, Rate
from aiopatterns.jobs import JobQueue
from aiopatterns.resilience import GCRA, SharedRateLimit, SlidingWindow, TokenBucket
from aiopatterns.testing import simulate


@pytest.mark.parametrize("sent", ["a", "0123-abc", "!" * 128, "req:7/x~"])
def test_a_harmless_request_id_is_taken_over(sent):
    assert request_id(sent) == sent


@pytest.mark.parametrize(
    "sent", [None, "", "a b", "a\n", "a\r\nSet-Cookie: x", "\x00", "é", "!" * 129, "a\tb"]
)
def test_any_other_gives_way_to_a_fresh_one(sent):
    first, second = request_id(sent), request_id(sent)
    assert first != second
    assert first != sent
    assert len(first) == 24


def test_what_is_no_owner_no_limiter_and_no_checker_is_refused():
    checked_owners([JobQueue("x"), open_backend("memory://")])
    for wrong in (5, JobQueue, object()):
        with pytest.raises(TypeError, match="owners must be async context managers"):
            checked_owners([wrong])
    with pytest.raises(TypeError, match=r"limiter\.acquire must be a function, not None"):
        checked_limiter(cast("Any", Rate(1)))
    with pytest.raises(TypeError, match="checker must be a HealthChecker"):
        checked_checker(cast("Any", {"db": None}))


@pytest.mark.parametrize("kind", [TokenBucket, GCRA, SlidingWindow])
def test_limiters_of_a_process_answer_by_key(kind):
    limiter = checked_limiter(kind(Rate(1, per=10)))

    async def scenario() -> None:
        while (grant := await ask(limiter, "ann")).allowed:
            pass
        assert 0 < grant.retry_after <= 10
        assert (await ask(limiter, "bob")).allowed

    simulate(scenario)


async def ask_shared(url: str, name: str) -> None:
    limiter = SharedRateLimit(Rate(2, per=60), url, name=name)
    async with limiter.backend:
        first = await ask(checked_limiter(limiter), "ann")
        assert first.allowed
        assert first.remaining == 1
        assert (await ask(limiter, "ann")).allowed
        refused = await ask(limiter, "ann")
        assert not refused.allowed
        assert 0 < refused.retry_after <= 60
        assert (await ask(limiter, "bob")).allowed


def test_a_shared_limit_answers_by_key():
    simulate(lambda: ask_shared("memory://", "web"))


@pytest.mark.real
async def test_a_shared_limit_answers_by_key_on_redis(redis_url):
    await ask_shared(redis_url, "web")


async def test_a_shared_limit_that_refuses_for_an_outage_says_no_time():
    class Down:
        async def acquire(self, cost=1.0, *, key=None, max_wait=None):
            from aiopatterns.core.errors import RateLimitedError

            raise RateLimitedError("away", name="x", retry_after=None)

    grant = await ask(Down(), "ann")
    assert grant == Grant(allowed=False, retry_after=math.inf, remaining=0, reset_after=math.inf)
    assert limit_headers(grant) == {"RateLimit-Remaining": "0"}


def test_headers_round_up_and_say_at_least_a_second():
    grant = Grant(allowed=True, retry_after=0.0, remaining=3, reset_after=1.2)
    assert limit_headers(grant) == {"RateLimit-Remaining": "3", "RateLimit-Reset": "2"}
    status, headers, body = refusal(grant._replace(allowed=False, retry_after=0.0))
    assert status == 429
    assert headers["Retry-After"] == "1"
    assert headers["Content-Type"] == "application/problem+json"
    assert JSON.decode(body)["status"] == 429


async def test_a_page_is_the_last_report():
    checker = HealthChecker({})
    assert set(PAGES.values()) == {"liveness", "readiness", "startup"}
    for kind in PAGES.values():
        status, headers, body = health_page(checker, kind)
        assert status == 200
        assert headers["Cache-Control"] == "no-store"
        assert JSON.decode(body) == {"kind": kind, "status": "healthy", "ok": True, "checks": {}}

    async def database() -> bool:
        return False

    checker.add("db", database)
    status, _, body = health_page(checker, "readiness")
    assert (status, JSON.decode(body)["checks"]["db"]["status"]) == (503, "unknown")
    async with checker:
        await checker.check_now("db")
        status, _, body = health_page(checker, "readiness")
    assert (status, JSON.decode(body)["checks"]["db"]["status"]) == (503, "unhealthy")
