"""The contract of the room, sentence by sentence."""

from __future__ import annotations

import asyncio
import inspect

import pytest

import aiopatterns
from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.cache import MISSING, Cache, CacheStatistics, LoadTimeouts, Ttl, cached
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.codec import JSON
from aiopatterns.core.errors import TimeoutExceededError
from aiopatterns.testing import simulate

pytestmark = pytest.mark.promise("cache-semantics")


def simulated(test):
    def run():
        simulate(test)

    run.__name__ = test.__name__
    return run


async def slow(key):
    await sleep(1)
    return f"slow {key}"


def test_headlines_and_signatures():
    assert (aiopatterns.Cache, aiopatterns.cached) == (Cache, cached)
    cache = Cache[str, str](
        "users",
        ttl=Ttl(60, stale=300, negative=5, early=1.0, jitter=0.1),
        max_size=10_000,
        backend=None,
        load=LoadTimeouts(soft=None, hard=None),
        codec=JSON,
    )
    assert inspect.signature(Cache).parameters["max_size"].default == 10_000
    assert cache.name == "users"


@simulated
async def test_ttl_none_never_expires_and_ttl_0_stores_nothing_but_coalesces():
    forever: Cache[str, str] = Cache("c", ttl=None)
    nothing: Cache[str, str] = Cache("c", ttl=0)
    await forever.get_or_load("k", slow)
    calls = [nothing.get_or_load("k", slow) for _ in range(3)]
    assert await asyncio.gather(*calls) == ["slow k"] * 3
    assert nothing.statistics().loads == 1
    assert nothing.get_nowait("k") is MISSING
    await sleep(1e9)
    assert forever.get_nowait("k") == "slow k"


@simulated
async def test_loaders_take_a_key_or_the_list_of_missing_keys():
    cache: Cache[int, str] = Cache("c", ttl=60)
    asked: list[object] = []

    async def one(key):
        asked.append(key)
        return "one"

    async def many(missing):
        asked.append(missing)
        await sleep(1)
        return {key: ValueError("no") if key == 3 else "many" for key in missing if key != 4}

    await cache.get_or_load(1, one)
    batch = asyncio.create_task(cache.get_or_load_many((1, 2, 3, 4), many))
    await sleep(0.5)
    with pytest.raises(ValueError, match="no"):
        await cache.get_or_load(3, one)
    found = await batch
    assert asked == [1, [2, 3, 4]]
    assert (found[1], found[2], list(found)) == ("one", "many", [1, 2, 3])
    assert isinstance(found[3], ValueError)
    assert [cache.get_nowait(key, None) for key in (3, 4)] == [None, None], "never stored"


@simulated
async def test_stale_at_once_soft_where_a_call_waits_hard_frees_the_key():
    cache: Cache[str, str] = Cache("c", ttl=Ttl(10, stale=100), load=LoadTimeouts(soft=0.2, hard=2))
    await cache.set("k", "old")
    await sleep(20)
    began = monotonic()
    assert await cache.get_or_load("k", slow) == "old"
    assert monotonic() == began
    await sleep(2)
    assert cache.get_nowait("k") == "slow k"
    began = monotonic()
    assert await cache.get_or_load("k", slow, fresh=True) == "slow k"
    assert monotonic() - began == pytest.approx(0.2)
    await sleep(2)

    async def stuck(key):
        await sleep(1e6)

    with pytest.raises(TimeoutExceededError):
        await cache.get_or_load("new", stuck)
    assert await cache.get_or_load("new", slow) == "slow new"


@simulated
async def test_a_fresh_value_never_hides_an_error_unless_values_may_go_stale():
    async def broken(key):
        raise OSError("down")

    strict: Cache[str, str] = Cache("c", ttl=60)
    safe: Cache[str, str] = Cache("c", ttl=Ttl(60, stale=60))
    for cache in (strict, safe):
        await cache.set("k", "here")
    with pytest.raises(OSError, match="down"):
        await strict.get_or_load("k", broken, fresh=True)
    assert await safe.get_or_load("k", broken, fresh=True) == "here"


@simulated
async def test_batches_take_no_turn_in_the_fleet_and_single_loads_do():
    backend = MemoryBackend()
    loads = []

    async def one(key):
        loads.append(key)
        return await slow(key)

    async def many(keys):
        return {key: await one(key) for key in keys}

    async with backend:
        a, b = (Cache[str, str]("c", ttl=60, backend=backend) for _ in range(2))
        async with a, b:
            await asyncio.gather(*(cache.get_or_load("k", one) for cache in (a, b)))
            assert loads == ["k"]
            await asyncio.gather(*(cache.get_or_load_many(["m"], many) for cache in (a, b)))
            assert loads == ["k", "m", "m"]


@simulated
async def test_negative_is_the_life_of_a_none_and_of_a_key_that_was_left_out():
    async def none(key):
        return None

    async def nothing(keys):
        return {}

    for terms in (Ttl(60), Ttl(60, negative=5)):
        cache: Cache[str, str | None] = Cache("c", ttl=terms)
        await cache.get_or_load("none", none)
        lives = [cache.get_nowait("none", "gone")]
        await sleep(6)
        lives.append(cache.get_nowait("none", "gone"))
        assert lives == [None, "gone" if terms.negative else None]
        loads = []
        for _ in range(2):
            before = cache.statistics().loads
            await cache.get_or_load_many(["absent"], nothing)
            loads.append(cache.statistics().loads - before)
        assert loads == [1, 0 if terms.negative else 1]


async def test_statistics_and_callbacks():
    names = [
        "hits",
        "misses",
        "loads",
        "joins",
        "stale",
        "evictions",
        "rejected_fills",
        "errors",
        "size",
    ]
    figures = Cache[str, str]("c", ttl=1).statistics()
    assert isinstance(figures, CacheStatistics)
    assert [getattr(figures, name) for name in names] == [0] * 9
    assert figures.hit_ratio == 0
    cache: Cache[str, str] = Cache("c", ttl=60)
    told: list[tuple[str, ...]] = []
    cache.on_invalidate(lambda *keys: told.append(keys))
    await cache.invalidate("a", "b")
    assert told == [("a", "b")]
