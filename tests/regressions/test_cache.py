"""Fifteen complaints about other caches, each a named test that this one has no part in.

The number is that of the complaint; the project and its thread stand in the first line of each.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.cache import MISSING, Cache, LoadTimeouts, Ttl, cached
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendUnavailableError, ClosedError, TimeoutExceededError
from aiopatterns.testing import capture_events, simulate
from aiopatterns.testing.leaks import open_timers

pytestmark = pytest.mark.promise("cache-complaints")


class Source:
    def __init__(self, delay=0.0):
        self.delay = delay
        self.loads = 0

    async def __call__(self, key):
        self.loads += 1
        mine = self.loads
        await sleep(self.delay)
        return f"{key}#{mine}"


def two(backend, **options):
    return [Cache[str, str]("shared", backend=backend, **options) for _ in range(2)]


def simulated(test):
    def run():
        simulate(test)

    run.__name__ = test.__name__
    return run


class Counting:
    """A kv that counts the calls which are at the server at the same time; it may be away."""

    now = most = 0
    away = False

    def __init__(self, kv):
        self.inner = kv

    def __getattr__(self, name):
        async def call(*args, **options):
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await sleep(0.001)
                if self.away:
                    raise BackendUnavailableError("nobody answers")
                return await getattr(self.inner, name)(*args, **options)
            finally:
                self.now -= 1

        return call


def counting() -> Any:
    backend: Any = MemoryBackend()
    backend.kv = Counting(backend.kv)
    return backend


@simulated
async def test_01_waiters_hold_no_connection():
    # cashews #127: 5,000 callers with a lock hang or raise, for waiters hold every connection.
    backend, source = counting(), Source(delay=1)
    async with backend, Cache[str, str]("c", ttl=60, backend=backend) as cache:
        calls = [cache.get_or_load("k", source) for _ in range(5_000)]
        assert set(await asyncio.gather(*calls)) == {"k#1"}
        assert source.loads == 1
        assert backend.kv.most <= 3


@simulated
async def test_02_an_outage_floods_neither_callers_nor_logs():
    # cashews #150: errors for callers and a flood of log lines.
    backend, source = counting(), Source()
    async with backend, Cache[str, str]("c", ttl=60, backend=backend) as cache:
        await cache.get_or_load("before", source)
        backend.kv.away = True
        with capture_events() as events:
            for number in range(500):
                assert await cache.get_or_load(f"k{number}", source) == f"k{number}#{number + 2}"
        assert len(events) <= 3
        backend.kv.away = False
        await sleep(5)


@simulated
async def test_03_no_marker_is_ever_given_to_a_caller():
    # cashews #235: internal markers come back as values.
    backend = MemoryBackend()

    async def nothing(keys):
        return {}

    async def none(key):
        return None

    async with backend:
        a, b = (
            Cache[str, object]("m", ttl=Ttl(60, negative=30), backend=backend) for _ in range(2)
        )
        async with a, b:
            assert await a.get_or_load_many(["k"], nothing) == {}
            for cache in (a, b):
                assert await cache.get("k", "default") == "default"
                assert await cache.get_or_load_many(["k"], nothing) == {}
                assert cache.get_nowait("k", "default") == "default"
            assert await b.get_or_load("k", none) is None


async def test_04_the_first_call_may_be_any():
    # cashews #135: delete_tags before the first use is an AttributeError.
    cache: Cache[str, str] = Cache("first", ttl=60)
    await cache.invalidate_tags("t")
    await cache.invalidate("k")
    await cache.clear()
    with pytest.raises(ClosedError, match="async with Cache"):
        await Cache[str, str]("first", ttl=60, backend="memory://").invalidate_tags("t")


@simulated
async def test_05_a_subscription_that_fails_does_not_keep_the_cache_from_opening():
    # cashews #365, #238: the listener's start-up times out, and with it the program.
    backend, source = counting(), Source()
    backend.kv.away = True
    async with backend, Cache[str, str]("c", ttl=60, backend=backend) as cache:
        assert await cache.get_or_load("k", source) == "k#1"
        backend.kv.away = False
        await sleep(5)
        assert await cache.get_or_load("m", source) == "m#2"


@simulated
async def test_06_a_decorated_function_works_while_the_server_is_away():
    # aiocache #1040, #47: the decorator raises when Redis is down.
    backend, source = counting(), Source()
    async with backend, Cache[str, str]("c", ttl=60, backend=backend) as cache:

        @cached(cache, key="{name}")
        async def load(name: str) -> str:
            return await source(name)

        backend.kv.away = True
        assert [await load("k"), await load("k"), await load.fresh("k")] == ["k#1", "k#1", "k#2"]
        await load.invalidate("k")
        assert await load("k") == "k#3"
        backend.kv.away = False
        await sleep(5)


async def test_07_memory_is_bounded_always():
    # aiocache #429, #501: the memory cache has no limit.
    cache: Cache[int, int] = Cache("bounded", ttl=None)
    for number in range(10_500):
        await cache.set(number, number)
    assert cache.statistics().size == 10_000
    small: Cache[int, int] = Cache("small", ttl=None, max_size=5)

    async def many(keys):
        return {key: key for key in keys}

    assert len(await small.get_or_load_many(range(100), many)) == 100
    assert small.statistics().size == 5


@simulated
async def test_08_batches_at_the_same_time_load_each_key_once():
    # aiocache #187, #217, #27, #587: no lock in multi_cached, dog-piles.
    cache: Cache[int, int] = Cache("batches", ttl=60)
    asked = []

    async def many(keys):
        asked.extend(keys)
        await sleep(0.1)
        return {key: key for key in keys}

    calls = [cache.get_or_load_many(range(at, at + 20), many) for at in range(50)]
    await asyncio.gather(*calls)
    assert sorted(asked) == list(range(69))


async def test_09_an_entry_keeps_the_value_and_no_task():
    # async-lru #82: Task objects for each entry, GC pauses of half a second.
    cache: Cache[int, int] = Cache("tasks", ttl=60)
    tasks = []

    async def loader(key):
        tasks.append(weakref.ref(asyncio.current_task()))
        return key

    for number in range(100):
        await cache.get_or_load(number, loader)
    await sleep(0)
    gc.collect()
    assert [each() for each in tasks] == [None] * 100


@simulated
async def test_10_expiry_needs_no_timer_and_comes_on_time():
    # async-lru #598, #609, #480: timers expire late, and fail when the entry is gone.
    cache: Cache[int, int] = Cache("expiry", ttl=10, max_size=3)

    async def loader(key):
        return key

    for number in range(10):
        await cache.get_or_load(number, loader)
    assert not open_timers(asyncio.get_running_loop())
    await sleep(9.999)
    assert cache.get_nowait(9) == 9
    await sleep(0.001)
    assert cache.get_nowait(9) is MISSING


def test_11_a_cache_survives_its_loop_and_an_abandoned_load():
    # async-lru #697, #708, #611, #732: cancellation, and use on another loop.
    cache: Cache[str, str] = Cache("loops", ttl=60)
    source = Source(delay=60)

    async def abandoned():
        task = asyncio.create_task(cache.get_or_load("k", source))
        await sleep(0.001)
        task.cancel()

    async def again():
        source.delay = 0
        return await cache.get_or_load("k", source)

    asyncio.run(abandoned())
    assert asyncio.run(again()) == "k#2"
    assert simulate(again) == "k#2"


@simulated
async def test_12_nobody_waits_for_ever_for_somebody_elses_load():
    # dogpile.cache #171, #220, #271: a lock without a limit to the wait.
    backend = MemoryBackend()
    source, other = Source(delay=1e6), Source()
    async with backend:
        first, second = two(backend, ttl=60, load=LoadTimeouts(hard=5))
        async with first, second:
            stuck = asyncio.create_task(first.get_or_load("k", source))
            await sleep(1)
            began = monotonic()
            assert await second.get_or_load("k", other) == "k#1"
            assert monotonic() - began < 60
            with pytest.raises(TimeoutExceededError):
                await stuck


@simulated
async def test_13_an_invalidation_is_for_all_and_a_failing_codec_fails_no_call():
    # dogpile.cache #138, #264, #235: regions are invalidated per process; pickling fails the call.
    backend, source = MemoryBackend(), Source()
    async with backend:
        a, b = two(backend, ttl=Ttl(60, stale=600))
        async with a, b:
            for cache in (a, b):
                await cache.get_or_load("k", source)
            await a.clear()
            await sleep(0.1)
            assert b.get_nowait("k") is MISSING
            assert await b.get_or_load("k", lambda key: unwritable()) is not None


async def unwritable():
    return object()


@simulated
async def test_14_a_cancelled_refresh_frees_its_key():
    # FusionCache #218, #560: a cancelled eager refresh dead-locks the key.
    cache: Cache[str, str] = Cache("refresh", ttl=Ttl(10, stale=100), load=LoadTimeouts(hard=5))
    source = Source()
    await cache.get_or_load("k", source)
    source.delay = 1e6
    await sleep(11)
    async with cache:
        assert await cache.get_or_load("k", source) == "k#1"
    source.delay = 0
    await sleep(2)
    assert await cache.get_or_load("k", source) == "k#1"
    await sleep(0.1)
    assert await cache.get_or_load("k", source) == "k#3"
    source.delay = 1e6
    await sleep(11)
    await cache.get_or_load("k", source)
    await sleep(6)
    source.delay = 0
    await cache.get_or_load("k", source)
    await sleep(0.1)
    assert await cache.get_or_load("k", source) == "k#5", "the hard time has freed the key"


@simulated
async def test_15_tags_are_counters_and_cleared_is_not_stale():
    # FusionCache #627, #648, #553, #573, #574: markers that evict all; stale after a clear.
    backend, source = MemoryBackend(), Source()
    async with backend:
        a, b = two(backend, ttl=Ttl(10, stale=100))
        async with a, b:
            await a.get_or_load("k", source, tags=["t"])
            await a.invalidate_tags("other")
            await a.invalidate_tags("other")
            assert await b.get_or_load("k", source) == "k#1", "another tag concerns nobody"
            await a.invalidate_tags("t")
            await sleep(0.1)
            assert await b.get_or_load("k", source, tags=["t"]) == "k#2"
            await sleep(20)
            await a.clear()
            await sleep(0.1)
            assert await b.get_or_load("k", source) == "k#3", "not the stale one"
            loads = [asyncio.create_task(each.get_or_load("new", source)) for each in (a, b)]
            assert await asyncio.gather(*loads) == ["new#4"] * 2, "one load in the fleet"
