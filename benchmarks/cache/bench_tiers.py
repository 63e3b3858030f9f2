"""The shared tier of a cache: reads, fills and batches over a Redis on the same machine.

*Known to Redis*: a value of 300 bytes is asked for that is in Redis and not in the memory of the
process. Ours reads the key and the version of the whole cache by one MGET, looks at checksum, life
and versions, and decodes. *Cold*: the loader runs; ours also takes the turn of the fleet, reads
again, and fills by comparison. *Batch*: 100 keys, 70 in Redis. *Away*: what a call costs while the
server stands still (SIGSTOP), after the first one. Wall time; the limit is the bare commands of
redis-py with the same coding, without any protection.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from aiopatterns.backends import open_backend
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.cache import Cache
from benchmarks.backends.field import server, timed
from benchmarks.harness import Bench, Figure

CALLS = 1_000
COLD = 300
BATCHES = 50
KEYS = 100
HERE = 70
LIFE = 3600
VALUE = {"id": 17, "name": "x" * 200, "tags": ["a", "b"], "scores": list(range(20))}

bench = Bench("cache/tiers", versions=("redis", "hiredis"))
known = bench.case("known to Redis, not near", clock="wall", unit="us/call")
cold = bench.case("cold: loaded and stored", clock="wall", unit="us/call")
batch = bench.case("batch of 100 keys, 70 in Redis", clock="wall", unit="us/batch")
away = bench.case("later calls while Redis stands still", clock="wall", unit="us/call")


async def load(key: str) -> dict[str, object]:
    return VALUE


async def load_many(keys: list[str]) -> dict[str, dict[str, object]]:
    return dict.fromkeys(keys, VALUE)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Cache[str, dict[str, object]]]:
    cache: Cache[str, dict[str, object]]
    async with Cache("bench", ttl=LIFE, max_size=2_000, backend=open_backend(url)) as cache:
        yield cache


@asynccontextmanager
async def emptied() -> AsyncIterator[Redis]:
    client = Redis.from_url(server().url)
    await client.flushall()
    try:
        yield client
    finally:
        await client.aclose()


@known.ours("aiopatterns.Cache")
async def cache_known() -> Figure:
    async with emptied(), opened(server().url) as other, opened(server().url) as cache:
        keys = [f"key-{number}" for number in range(CALLS)]
        await other.get_or_load_many(keys, load_many)

        async def work() -> None:
            for key in keys:
                assert await cache.get_or_load(key, load) == VALUE

        figure = await timed(work, CALLS, scale=1e6)
        assert cache.statistics().loads == 0
        return figure


@known.limit("redis-py, GET and json.loads")
async def bare_known() -> Figure:
    async with emptied() as client:
        for number in range(CALLS):
            await client.set(f"key-{number}", json.dumps(VALUE))

        async def work() -> None:
            for number in range(CALLS):
                assert json.loads(await client.get(f"key-{number}") or b"") == VALUE

        return await timed(work, CALLS, scale=1e6)


@cold.ours("aiopatterns.Cache")
async def cache_cold() -> Figure:
    async with emptied(), opened(server().url) as cache:

        async def work() -> None:
            for number in range(COLD):
                assert await cache.get_or_load(f"key-{number}", load) == VALUE

        return await timed(work, COLD, scale=1e6)


@cold.limit("redis-py, GET and SET")
async def bare_cold() -> Figure:
    async with emptied() as client:

        async def work() -> None:
            for number in range(COLD):
                assert await client.get(f"key-{number}") is None
                await client.set(f"key-{number}", json.dumps(VALUE), px=LIFE * 1000)

        return await timed(work, COLD, scale=1e6)


@batch.ours("aiopatterns.Cache")
async def cache_batch() -> Figure:
    async with emptied(), opened(server().url) as other, opened(server().url) as cache:
        batches = [[f"key-{each}-{key}" for key in range(KEYS)] for each in range(BATCHES)]
        for keys in batches:
            await other.get_or_load_many(keys[:HERE], load_many)

        async def work() -> None:
            for keys in batches:
                assert len(await cache.get_or_load_many(keys, load_many)) == KEYS

        return await timed(work, BATCHES, scale=1e6)


@batch.limit("redis-py, MGET and a pipeline of SET")
async def bare_batch() -> Figure:
    async with emptied() as client:
        batches = [[f"key-{each}-{key}" for key in range(KEYS)] for each in range(BATCHES)]
        for keys in batches:
            await client.mset(dict.fromkeys(keys[:HERE], json.dumps(VALUE)))

        async def work() -> None:
            for keys in batches:
                found = await client.mget(keys)
                assert sum(json.loads(each) == VALUE for each in found if each) == HERE
                async with client.pipeline(transaction=False) as pipeline:
                    for key in keys[HERE:]:
                        pipeline.set(key, json.dumps(VALUE), px=LIFE * 1000)
                    await pipeline.execute()

        return await timed(work, BATCHES, scale=1e6)


@away.ours("aiopatterns.Cache")
async def cache_away() -> Figure:
    with RedisServer(private=True) as frozen:
        async with opened(frozen.url) as cache:
            frozen.pause()
            await cache.get_or_load("first", load)

            async def work() -> None:
                for number in range(CALLS):
                    assert await cache.get_or_load(f"key-{number}", load) == VALUE

            figure = await timed(work, CALLS, scale=1e6)
            frozen.resume()
        return figure


away.under(1_000)

if __name__ == "__main__":
    bench.main()
