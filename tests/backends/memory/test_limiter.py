from __future__ import annotations

import math

import pytest

from aiopatterns.backends.memory import MemoryBackend
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import ClosedError
from aiopatterns.core.rate import Grant, Rate
from aiopatterns.testing import simulate


def test_a_burst_and_then_the_rate():
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            limiter = backend.limiter("a")
            rate = Rate(4)
            grants = [await limiter.acquire("k", rate) for _ in range(5)]
            assert [each.allowed for each in grants] == [True] * 4 + [False]
            assert grants[0] == Grant(True, 0.0, 3, 0.25)
            assert grants[4] == Grant(False, 0.25, 0, 1.0)
            for _ in range(8):
                await sleep(0.25)
                assert (await limiter.acquire("k", rate)).allowed
                assert not (await limiter.acquire("k", rate)).allowed
            await sleep(10)
            assert await limiter.acquire("k", rate, cost=0) == Grant(True, 0.0, 4, 0.0)

    simulate(scenario)


@pytest.mark.promise("backends-limiter-exact")
@pytest.mark.parametrize("amount", [3, 7, 11, 0.3, 999_999, 1e-3])
def test_waiting_as_long_as_told_is_always_enough(amount):
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            limiter = backend.limiter("a")
            for _ in range(50):
                grant = await limiter.acquire("k", Rate(amount), burst=1)
                if not grant.allowed:
                    await sleep(grant.retry_after)
                    grant = await limiter.acquire("k", Rate(amount), burst=1)
                assert grant.allowed

    simulate(scenario)


async def test_looking_takes_nothing_and_too_much_is_never_allowed():
    async with MemoryBackend() as backend:
        limiter = backend.limiter("a")
        assert await limiter.acquire("k", Rate(2, per=100), cost=0) == Grant(True, 0.0, 2, 0.0)
        never = await limiter.acquire("k", Rate(2, per=100), cost=2.5)
        assert never == Grant(False, math.inf, 2, 0.0)
        assert (await limiter.acquire("k", Rate(2, per=100), cost=2)).allowed


async def test_keys_and_names_are_strangers():
    async with MemoryBackend() as backend:
        rate = Rate(1, per=1000)
        for name, key in (("a", "k"), ("a", "l"), ("b", "k"), ("a:k", "l"), ("a", "k:l")):
            assert (await backend.limiter(name).acquire(key, rate)).allowed
            assert not (await backend.limiter(name).acquire(key, rate)).allowed


def test_a_key_at_rest_is_forgotten():
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            for number in range(5_000):
                await backend.limiter("a").acquire(f"key {number}", Rate(10))
                await sleep(0.01)
            assert len(backend._levels) < 50

    simulate(scenario)


async def test_bad_input_is_refused():
    async with MemoryBackend() as backend:
        limiter = backend.limiter("a")
        with pytest.raises(ValueError, match="name must be a non-empty string"):
            backend.limiter("")
        with pytest.raises(ValueError, match="key must be a non-empty string"):
            await limiter.acquire("", Rate(1))
        with pytest.raises(ValueError, match="cost must be"):
            await limiter.acquire("k", Rate(1), cost=-1)
        with pytest.raises(ValueError, match="burst must be at least 1"):
            await limiter.acquire("k", Rate(1), burst=0.5)


async def test_a_closed_backend_is_told_so():
    with pytest.raises(ClosedError):
        await MemoryBackend().limiter("a").acquire("k", Rate(1))
