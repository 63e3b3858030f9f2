"""The classic: many keys from Redis, one by one, at once, in a pipeline, in one command.

100 and 1,000 keys of 20 bytes, one private server on a Unix socket of this machine, wall time for
all keys. A contender connects, asks once to warm up, and is timed five times; it asserts that
every value has come. Ours is what an application writes that knows nothing of pipelines: a task
for each key, each awaiting its own ``kv.get``.

What the table shows: one by one pays a round trip a key, and two wake-ups of the loop with it.
Gathering does not change that, for each command still has its write, its read and its parsing; a
limit only keeps the pool from running out of connections. A pipeline shares the round trip, and
is then bound by the work that redis-py does in Python for each command. Ours makes one MGET of
the single reads of a turn, packs and parses in bulk, so what is left is mostly the tasks
themselves, as the bare tasks show. MGET is the limit of asking: one command, one reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import redis
from redis.asyncio import BlockingConnectionPool, Redis

from aiopatterns.backends import open_backend
from benchmarks.backends.field import server, timed
from benchmarks.harness import Bench, Case, Figure

SIZES = (100, 1_000)
REPEATS = 5
LIMIT = 20
VALUE = b"x" * 20

# On asyncio's own loop the thousand tasks alone take longer than four MGETs: a goal is missed there.
bench = Bench("backends/client", versions=("redis", "hiredis"))


def keys(size: int) -> list[str]:
    """The keys, as the backend calls them: ``ap:kv:<key>`` on the server."""
    return [f"key:{number}" for number in range(size)]


def named(size: int) -> list[str]:
    """The same keys, as the server calls them."""
    return [f"ap:kv:{key}" for key in keys(size)]


async def measure(work: Callable[[], Awaitable[list[bytes]]], size: int) -> Figure:
    """Warm up, then time ``REPEATS`` fetches of all keys: milliseconds for one."""
    assert await work() == [VALUE] * size

    async def repeated() -> None:
        for _ in range(REPEATS):
            assert len(await work()) == size

    return await timed(repeated, REPEATS, scale=1e3)


def fill(size: int) -> None:
    with redis.Redis.from_url(server().url) as client:
        client.mset(dict.fromkeys(named(size), VALUE))


def add(case: Case, size: int) -> None:
    """Add the contenders for ``size`` keys."""

    @case.ours("aiopatterns, gather of kv.get")
    async def gathered() -> Figure:
        fill(size)
        async with open_backend(server().url) as backend:

            async def work() -> list[bytes]:
                got = await asyncio.gather(*(backend.kv.get(key) for key in keys(size)))
                return cast("list[bytes]", got)

            return await measure(work, size)

    @case.ours("aiopatterns, kv.get_many")
    async def together() -> Figure:
        fill(size)
        async with open_backend(server().url) as backend:

            async def work() -> list[bytes]:
                return list((await backend.kv.get_many(keys(size))).values())

            return await measure(work, size)

    @case.ours("aiopatterns, awaited one by one")
    async def in_turn() -> Figure:
        fill(size)
        async with open_backend(server().url) as backend:

            async def work() -> list[bytes]:
                return [cast("bytes", await backend.kv.get(key)) for key in keys(size)]

            return await measure(work, size)

    @case.peer("redis-py, synchronous, one by one", follows="README, Basic Example")
    async def blocking() -> Figure:
        fill(size)
        with redis.Redis.from_url(server().url) as client:

            async def work() -> list[bytes]:
                return [client.get(name) for name in named(size)]

            return await measure(work, size)

    @case.peer("redis-py, awaited one by one", follows="Asyncio Examples")
    async def awaited() -> Figure:
        fill(size)
        async with Redis.from_url(server().url) as client:

            async def work() -> list[bytes]:
                return [await client.get(name) for name in named(size)]

            return await measure(work, size)

    @case.peer(f"redis-py, gather, at most {LIMIT} at once", follows="Connection Pools")
    async def limited() -> Figure:
        fill(size)
        pool = BlockingConnectionPool.from_url(server().url, max_connections=LIMIT)
        async with Redis.from_pool(pool) as client:
            slots = asyncio.Semaphore(LIMIT)

            async def get(name: str) -> bytes:
                async with slots:
                    return cast("bytes", await client.get(name))

            async def work() -> list[bytes]:
                return await asyncio.gather(*(get(name) for name in named(size)))

            return await measure(work, size)

    @case.peer("redis-py, pipeline", follows="Pipelines, transaction=False")
    async def pipeline() -> Figure:
        fill(size)
        async with Redis.from_url(server().url) as client:

            async def work() -> list[bytes]:
                async with client.pipeline(transaction=False) as pipe:
                    for name in named(size):
                        pipe.get(name)
                    return cast("list[bytes]", await pipe.execute())

            return await measure(work, size)

    @case.limit("redis-py, MGET")
    async def one_command() -> Figure:
        fill(size)
        async with Redis.from_url(server().url) as client:

            async def work() -> list[bytes]:
                return cast("list[bytes]", await client.mget(named(size)))

            return await measure(work, size)

    @case.limit("bare tasks, no Redis")
    async def bare() -> Figure:
        async def get(waiting: list[asyncio.Future[bytes]]) -> bytes:
            waiting.append(asyncio.get_running_loop().create_future())
            return await waiting[-1]

        async def work() -> list[bytes]:
            waiting: list[asyncio.Future[bytes]] = []
            gathered = asyncio.gather(*(get(waiting) for _ in range(size)))
            await asyncio.sleep(0)
            for each in waiting:
                each.set_result(VALUE)
            return await gathered

        return await measure(work, size)


for number in SIZES:
    add(bench.case(f"{number} keys", clock="wall", unit=f"ms/{number} keys"), number)

thousand = bench.cases[-1]
thousand.at_most(4.0, of="redis-py, MGET")
thousand.at_most(0.5, of="redis-py, pipeline")

if __name__ == "__main__":
    bench.main()
