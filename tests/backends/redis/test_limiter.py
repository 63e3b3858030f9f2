from __future__ import annotations

import math

import anyio
import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendUnavailableError, ClosedError
from aiopatterns.core.rate import Grant, Rate

pytestmark = pytest.mark.real


@pytest.fixture
async def backend(redis_url):
    async with open_backend(redis_url) as opened:
        yield opened


@pytest.fixture
def wire(redis_url):
    with Wire(redis_url) as connection:
        yield connection


async def test_a_burst_and_then_a_refusal_that_says_when(backend):
    limiter, rate = backend.limiter("a"), Rate(3, per=3_000)
    assert await limiter.acquire("k", rate, cost=0) == Grant(True, 0.0, 3, 0.0)
    grants = [await limiter.acquire("k", rate) for _ in range(4)]
    assert [(each.allowed, each.remaining) for each in grants] == [
        (True, 2),
        (True, 1),
        (True, 0),
        (False, 0),
    ]
    assert 990 < grants[3].retry_after <= 1_000
    assert 2_990 < grants[3].reset_after <= 3_000
    assert (await limiter.acquire("k", rate, cost=3.5)).retry_after == math.inf
    assert not (await limiter.acquire("k", rate)).allowed


@pytest.mark.promise("backends-limiter-exact")
@pytest.mark.parametrize("amount", [333, 500])
async def test_waiting_as_long_as_told_is_always_enough(backend, amount):
    limiter = backend.limiter("a")
    for number in range(20):
        grant = await limiter.acquire("k", Rate(amount), burst=1)
        if not grant.allowed:
            await sleep(grant.retry_after + 0.002)
            grant = await limiter.acquire("k", Rate(amount), burst=1)
        assert grant.allowed, number


@pytest.mark.promise("backends-limiter-exact")
async def test_many_callers_never_exceed_burst_and_rate(backend):
    limiter, rate, began, allowed = backend.limiter("a"), Rate(200), monotonic(), 0

    async def call() -> None:
        nonlocal allowed
        for _ in range(30):
            grant = await limiter.acquire("k", rate, burst=20)
            allowed += grant.allowed

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(call)
    assert 20 <= allowed <= 20 + 200 * (monotonic() - began) + 1


async def test_a_key_at_rest_is_forgotten_by_the_server(backend, wire):
    await backend.limiter("a").acquire("k", Rate(1, per=50))
    assert 49_000 < wire.call("PTTL", "ap:lim:a:k") <= 50_000
    await backend.limiter("a").acquire("fast", Rate(1e9))
    assert wire.call("PTTL", "ap:lim:a:fast") in (-2, 0, 1)
    await backend.limiter("a").acquire("slow", Rate(1e-9, per=1e9), burst=1)
    assert 1e14 < wire.call("PTTL", "ap:lim:a:slow") <= 1e15
    await backend.limiter("a").acquire("look", Rate(1), cost=0)
    assert wire.call("EXISTS", "ap:lim:a:look") == 0


async def test_a_clock_that_was_set_back_locks_nobody_out(backend, wire):
    limiter, rate = backend.limiter("a"), Rate(2, per=2_000)
    await limiter.acquire("k", rate)
    level, at = wire.call("GET", "ap:lim:a:k").split()
    wire.call("SET", "ap:lim:a:k", f"{level} {int(at) + 10**12}", "PX", 60_000)
    assert (await limiter.acquire("k", rate)).allowed
    refused = await limiter.acquire("k", rate)
    assert not refused.allowed
    assert refused.retry_after <= 1_000


async def test_keys_and_names_are_strangers(backend):
    rate = Rate(1, per=1_000)
    for name, key in (("a", "k"), ("a", "l"), ("a:k", "l"), ("a", "k:l"), ("a%3Ak", "l")):
        assert (await backend.limiter(name).acquire(key, rate)).allowed
        assert not (await backend.limiter(name).acquire(key, rate)).allowed


async def test_a_lost_answer_is_told_and_takes_once(fault_proxy):
    async with fault_proxy as proxy, open_backend(proxy.url) as backend:
        limiter, rate = backend.limiter("a"), Rate(5, per=5_000)
        await limiter.acquire("k", rate)
        proxy.drop_replies(matching=b"ap:")
        with pytest.raises(BackendUnavailableError):
            await limiter.acquire("k", rate)
        assert (await limiter.acquire("k", rate, cost=0)).remaining == 3


@pytest.mark.promise("backends-round-trips")
async def test_every_call_is_one_round_trip(backend):
    limiter = backend.limiter("a")
    await limiter.acquire("k", Rate(1))
    before = backend.statistics().round_trips
    for _ in range(3):
        await limiter.acquire("k", Rate(1))
    assert backend.statistics().round_trips == before + 3


async def test_bad_input_is_refused(backend):
    limiter = backend.limiter("a")
    with pytest.raises(ValueError, match="name must be a non-empty string"):
        backend.limiter("")
    with pytest.raises(ValueError, match="key must be a non-empty string"):
        await limiter.acquire("", Rate(1))
    with pytest.raises(ValueError, match="cost must be"):
        await limiter.acquire("k", Rate(1), cost=-1)


async def test_a_closed_backend_is_told_so(redis_url):
    with pytest.raises(ClosedError):
        await open_backend(redis_url).limiter("a").acquire("k", Rate(1))
