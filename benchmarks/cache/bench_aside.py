"""Cache-aside: a hit through the decorator, a load, and a batch of which a part is missing.

A contender awaits a decorated function of one key that it has called before, CALLS times. All keep
a life of an hour; ours counts hits, bounds by S3-FIFO and has tags, stale lives and batches at
hand. What is left of a hit, 0.21 us on the machine where a bare coroutine over a dict takes 0.11: the
clock 45 ns, the count of hits 20, the kind of the argument 20, the end of the life and the mark of
a use 15. In the second case each call is for a new key, so the function runs each time: a
task of its own, shared by all who ask, is 6 us on uvloop and 10 on asyncio, the entry 3, begin and
end of the load 3, and the rest are the dozen coroutines that the call goes through. In the third a
batch of 100 keys is asked for of which 70 are there; a peer without batches asks for each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import aiocache
import async_lru
import cashews

from aiopatterns.cache import Cache, cached
from benchmarks.harness import Bench

CALLS = 50_000
SLOW_CALLS = 2_000  # for peers that take fifty times as long
LOADS = 2_000
BATCHES = 50
KEYS = 100
HERE = 70
LIFE = 3600

bench = Bench("cache/aside", versions=("async-lru", "cashews", "aiocache"))
hit = bench.case("hit through the decorator", clock="cpu", unit="ns/call")
load = bench.case("miss: the function is called", clock="cpu", unit="us/call")
batch = bench.case("batch of 100 keys, 30 missing", clock="cpu", unit="us/key")


async def double(number: int) -> int:
    return 2 * number


async def repeat(call: Callable[[int], Awaitable[int]], calls: int) -> int:
    assert await call(7) == 14
    for _ in range(calls):
        await call(7)
    assert await call(7) == 14
    return calls


async def spread(call: Callable[[int], Awaitable[int]]) -> int:
    total = 0
    for number in range(LOADS):
        total += await call(number)
    assert total == LOADS * (LOADS - 1)
    return LOADS


def ours() -> Callable[[int], Awaitable[int]]:
    cache: Cache[str, int] = Cache("bench", ttl=LIFE)
    return cached(cache, key="double:{number}")(double)


def lru() -> Callable[[int], Awaitable[int]]:
    return async_lru.alru_cache(maxsize=10_000, ttl=LIFE)(double)


def of_cashews() -> Callable[[int], Awaitable[int]]:
    cache = cashews.Cache()
    cache.setup("mem://", size=10_000, check_interval=0)
    return cache(ttl=LIFE, key="double:{number}")(double)


def of_aiocache() -> Callable[[int], Awaitable[int]]:
    return aiocache.cached(ttl=LIFE, key_builder=lambda fn, number: f"double:{number}")(double)


@hit.ours("aiopatterns @cached")
async def _() -> int:
    return await repeat(ours(), CALLS)


@hit.peer("async-lru", follows="README: alru_cache with ttl")
async def _() -> int:
    call = lru()
    calls = await repeat(call, CALLS)
    await call.cache_close()  # type: ignore[attr-defined]
    return calls


@hit.peer("cashews", follows="README: cache(ttl, key) over mem://")
async def _() -> int:
    return await repeat(of_cashews(), SLOW_CALLS)


@hit.peer("aiocache", follows="docs: cached with a key builder")
async def _() -> int:
    return await repeat(of_aiocache(), SLOW_CALLS)


@hit.limit("bare coroutine over a dict")
async def _() -> int:
    values = {7: 14}

    async def call(number: int) -> int:
        return values[number]

    return await repeat(call, CALLS)


@load.ours("aiopatterns @cached")
async def _() -> int:
    return await spread(ours())


@load.peer("async-lru", follows="README: alru_cache with ttl")
async def _() -> int:
    call = lru()
    calls = await spread(call)
    await call.cache_close()  # type: ignore[attr-defined]
    return calls


@load.peer("cashews", follows="README: cache(ttl, key) over mem://")
async def _() -> int:
    return await spread(of_cashews())


@load.peer("aiocache", follows="docs: cached with a key builder")
async def _() -> int:
    return await spread(of_aiocache())


@load.limit("bare coroutine into a dict")
async def _() -> int:
    values: dict[int, int] = {}

    async def call(number: int) -> int:
        if number not in values:
            values[number] = await double(number)
        return values[number]

    return await spread(call)


@batch.ours("aiopatterns get_or_load_many")
async def _() -> int:
    cache: Cache[int, int] = Cache("bench", ttl=LIFE)

    async def many(numbers: list[int]) -> Mapping[int, int]:
        assert len(numbers) == KEYS - HERE
        return {number: 2 * number for number in numbers}

    for number in range(HERE):
        await cache.set(number, 2 * number)
    for _ in range(BATCHES):
        found = await cache.get_or_load_many(range(KEYS), many)
        assert found[KEYS - 1] == 2 * (KEYS - 1)
        await cache.invalidate(*range(HERE, KEYS))
    return BATCHES * KEYS


@batch.peer("aiocache", follows="docs: multi_cached")
async def _() -> int:
    cache = aiocache.SimpleMemoryCache()
    cache._cache = {}  # its default is shared by all

    async def many(numbers: list[int]) -> Mapping[str, int]:
        return {str(number): 2 * number for number in numbers}

    call = aiocache.multi_cached("numbers", ttl=LIFE)(many)
    call.cache = cache
    for number in range(HERE):
        await cache.set(str(number), 2 * number)
    for _ in range(BATCHES):
        found = await call(numbers=[str(number) for number in range(KEYS)])
        assert len(found) == KEYS
        for number in range(HERE, KEYS):
            await cache.delete(str(number))
    return BATCHES * KEYS


@batch.limit("a dict and one call")
async def _() -> int:
    values = {number: 2 * number for number in range(HERE)}
    for _ in range(BATCHES):
        missing = [number for number in range(KEYS) if number not in values]
        values.update({number: await double(number) for number in missing})
        assert len(values) == KEYS
        for number in missing:
            del values[number]
    return BATCHES * KEYS


hit.at_most(0.5, of="async-lru")
hit.at_most(1 / 50, of="cashews")
hit.at_most(1 / 50, of="aiocache")

if __name__ == "__main__":
    bench.main()
