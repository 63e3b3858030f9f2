from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.redis.lease import KEEP, RedisLease
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import ClosedError

pytestmark = pytest.mark.real


@pytest.fixture
async def backend(redis_url):
    async with open_backend(redis_url) as opened:
        yield opened


@pytest.fixture
def wire(redis_url):
    with Wire(redis_url) as connection:
        yield connection


async def test_one_holds_it_until_its_time_is_over(backend, wire):
    lease = backend.lease("a")
    held = await lease.try_acquire(ttl=50)
    assert held is not None
    assert await backend.lease("a").try_acquire(ttl=5) is None
    wire.call("HSET", "ap:lease:a", "d", held.token)  # as if its time were over
    assert not await held.renew()
    assert not await held.release()
    other = await lease.try_acquire(ttl=5)
    assert other is not None
    assert other.token > held.token
    assert not await held.renew()
    assert not await held.release()
    assert await other.renew()


async def test_renewing_goes_on_as_before_or_as_told(backend, wire):
    held = await backend.lease("a").try_acquire(ttl=50)
    assert held is not None

    def left() -> int:
        return wire.call("PTTL", "ap:lease:a") - KEEP

    assert 49_000 < left() <= 50_000
    assert await held.renew(ttl=90)
    assert 89_000 < left() <= 90_000
    assert await held.renew(ttl=0.0001)
    await sleep(0.002)
    assert not await held.renew(ttl=5)


async def test_a_released_lease_is_free_and_its_token_is_remembered(backend, wire):
    held = await backend.lease("a").try_acquire(ttl=50)
    assert held is not None
    # As if the server's clock had been set back since.
    ahead = held.token + 10**12
    wire.call("HSET", "ap:lease:a", "t", ahead)
    assert await held.release()
    assert not await held.release()
    assert not await held.renew()
    assert 0 < wire.call("PTTL", "ap:lease:a") <= KEEP
    again = await backend.lease("a").try_acquire(ttl=50)
    assert again is not None
    assert again.token == ahead + 1
    assert not await held.release()


async def test_each_step_is_repeated_safely(backend):
    """What the client does when an answer is lost: the same call with the same nonce."""

    class Twice:
        """A client that gets no answer to its first try."""

        def key(self, kind: str, *parts: str) -> str:
            return backend.client.key(kind, *parts)

        async def run(self, *call, repeatable: bool):
            assert repeatable
            first = await backend.client.run(*call)
            assert await backend.client.run(*call) == first
            return first

    twice: Any = Twice()
    lease = RedisLease(twice, "a")
    held = await lease.try_acquire(ttl=50)
    assert held is not None
    assert await lease.try_acquire(ttl=50) is None
    assert await held.renew()
    assert await held.release()
    assert not await held.release()
    assert await lease.try_acquire(ttl=50) is not None


async def test_a_lost_answer_changes_nothing(fault_proxy):
    async with fault_proxy as proxy, open_backend(proxy.url) as backend:
        lease = backend.lease("a")
        proxy.drop_replies(matching=b"ap:")
        held = await lease.try_acquire(ttl=50)
        assert held is not None
        proxy.drop_replies(matching=b"ap:")
        assert await held.renew()
        proxy.drop_replies(matching=b"ap:")
        assert await held.release()
        assert not await held.release()


@pytest.mark.promise("backends-round-trips")
async def test_every_call_is_one_round_trip(backend):
    lease = backend.lease("a")
    before = 0
    for _ in range(2):  # the first time the scripts are not known
        before = backend.statistics().round_trips
        held = await lease.try_acquire(ttl=50)
        assert held is not None
        assert await held.renew()
        assert await held.release()
    assert backend.statistics().round_trips == before + 3


async def test_bad_input_is_refused(backend):
    with pytest.raises(ValueError, match="name must be a non-empty string"):
        backend.lease("")
    with pytest.raises(ValueError, match="ttl must be a finite number > 0"):
        await backend.lease("a").try_acquire(ttl=0)
    held = await backend.lease("a").try_acquire(ttl=5)
    assert held is not None
    with pytest.raises(ValueError, match="ttl must be a finite number > 0"):
        await held.renew(ttl=-1)


async def test_a_closed_backend_is_told_so(redis_url):
    backend = open_backend(redis_url)
    async with backend:
        held = await backend.lease("a").try_acquire(ttl=50)
    assert held is not None
    for call in (backend.lease("a").try_acquire(ttl=5), held.renew(), held.release()):
        with pytest.raises(ClosedError):
            await call
    async with backend:
        assert await held.renew()
