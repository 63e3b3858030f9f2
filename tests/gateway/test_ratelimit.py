"""Limits of clients: whose they are, what is told, and what happens without the backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import RequestRefusedError
from aiopatterns.gateway.policy import Identity, RoutePolicy
from aiopatterns.gateway.ratelimit import ClientLimit, client_key
from aiopatterns.gateway.request import Request
from aiopatterns.resilience.ratelimit import GCRA, MAX_KEYS, Rate, SlidingWindow, TokenBucket
from aiopatterns.resilience.sharedlimit import SharedRateLimit
from aiopatterns.testing import simulate

if TYPE_CHECKING:
    from aiopatterns.core.rate import Grant


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


def of(client: str = "10.0.0.1", user: str | None = None) -> Request:
    request = Request("GET", b"/", b"", [])
    request.client = client
    if user is not None:
        request.identity = Identity(user, {}, "key")
    return request


async def asked(limit: ClientLimit, request: Request) -> Grant:
    """Ask as a gateway does."""
    return limit.admit(request) or await limit.ask(request)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (of("10.0.0.1"), of("10.0.0.1"), True),
        (of("10.0.0.1"), of("10.0.0.2"), False),
        (of("2001:db8::1"), of("2001:db8::ffff"), True),
        (of("2001:db8::1"), of("2001:db8:0:1::1"), False),
        (of("::ffff:10.0.0.1"), of("::ffff:10.0.0.2"), False),
        (of("10.0.0.1", "ann"), of("10.0.0.2", "ann"), True),
        (of("10.0.0.1", "ann"), of("10.0.0.1", "bob"), False),
        (of("10.0.0.1", "ip:10.0.0.1"), of("10.0.0.1"), False),
        (of("10.0.0.1", "10.0.0.1"), of("10.0.0.1"), False),
        (of("a:b"), of("a:b"), True),
        (of("a:b"), of("a:c"), False),
    ],
)
def test_whose_limit_it_is(one, other, same):
    assert (client_key(one) == client_key(other)) is same


@pytest.mark.promise("gateway-limits")
@pytest.mark.parametrize(
    "limit",
    [
        Rate(3, per=60),
        TokenBucket(Rate(3, per=60)),
        SlidingWindow(Rate(3, per=60)),
        GCRA(Rate(3, per=60), burst=3),
    ],
)
def test_each_client_has_its_own(limit):
    async def main() -> None:
        limits = ClientLimit(limit)
        assert limits.backend is None
        for left in (b"2", b"1", b"0"):
            grant = await asked(limits, of())
            said = dict(limits.headers(grant))
            assert (said[b"ratelimit-limit"], said[b"ratelimit-remaining"]) == (b"3", left)
            assert 0 < int(said[b"ratelimit-reset"]) <= 60
        told: dict[bytes, bytes] = {}
        for _ in range(3):
            with pytest.raises(RequestRefusedError) as caught:
                await asked(limits, of())
            told = dict(caught.value.headers)
            assert caught.value.status == 429
            assert told[b"ratelimit-remaining"] == b"0"
            assert 0 < int(told[b"retry-after"]) <= 60
        await asked(limits, of("10.0.0.2"))
        await sleep(int(told[b"retry-after"]))
        await asked(limits, of())

    simulate(main)


@pytest.mark.promise("gateway-limits-flood")
def test_a_flood_of_clients_takes_bounded_memory():
    bucket = TokenBucket(Rate(1, per=3600))
    limits = ClientLimit(bucket)
    for n in range(MAX_KEYS + 5000):
        limits.admit(of(f"client-{n}"))
    assert len(bucket._meters) <= MAX_KEYS


def shared(url_or_backend: Any, **options: Any) -> ClientLimit:
    return ClientLimit(SharedRateLimit(Rate(3, per=60), url_or_backend, name="api", **options))


async def counts_over_two_processes(first: ClientLimit, second: ClientLimit) -> None:
    for limits in (first, second, first):
        assert limits.admit(of()) is None, "it takes a wait"
        await limits.ask(of())
    for limits in (first, second):
        with pytest.raises(RequestRefusedError) as caught:
            await limits.ask(of())
        told = dict(caught.value.headers)
        assert caught.value.status == 429
        assert 0 < int(told[b"retry-after"]) <= 60
    await second.ask(of("10.0.0.2"))


@pytest.mark.promise("gateway-limits-shared")
async def test_a_shared_limit_counts_for_all_in_memory():
    async with open_backend("memory://") as backend:
        assert shared(backend).backend is backend
        await counts_over_two_processes(shared(backend), shared(backend))


@pytest.mark.promise("gateway-limits-shared")
@pytest.mark.real
async def test_a_shared_limit_counts_for_all_on_redis(redis_url):
    async with open_backend(redis_url) as one, open_backend(redis_url) as other:
        await counts_over_two_processes(shared(one), shared(other))


@pytest.mark.promise("gateway-limits-shared")
@pytest.mark.real
@pytest.mark.parametrize(("on_outage", "status"), [("local", 429), ("allow", None), ("deny", 503)])
async def test_without_the_backend_it_does_what_it_was_told(redis_server, on_outage, status):
    backend = open_backend(redis_server.url)
    async with backend:
        limits = shared(backend, on_outage=on_outage)
        redis_server.pause()
        try:
            seen = None
            for _ in range(5):
                try:
                    await limits.ask(of())
                except RequestRefusedError as error:
                    seen = error.status
                    assert int(dict(error.headers)[b"retry-after"]) >= 1
            assert seen == status
        finally:
            redis_server.resume()


def test_bad_input():
    with pytest.raises(TypeError, match="rate_limit must be a Rate"):
        ClientLimit(wrong(5))
    with pytest.raises(TypeError, match="rate_limit must be None, a Rate"):
        RoutePolicy(rate_limit=wrong(5))


async def test_a_local_limit_is_not_asked_for():
    with pytest.raises(AssertionError):
        await ClientLimit(Rate(1)).ask(of())
