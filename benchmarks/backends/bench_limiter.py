"""A shared rate that has room: one call after the other, and a hundred at once.

The limit is one INCR by the client library, which is the least that a count over several
processes can cost: a round trip. Wall time; the server runs on the same machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from aiopatterns.backends import open_backend
from aiopatterns.backends.protocols import Backend
from aiopatterns.core.rate import Rate
from benchmarks.backends.field import server, timed
from benchmarks.harness import Bench, Figure

CALLS = 5_000
AT_ONCE = 100
PLENTY = Rate(1e9)

bench = Bench("backends/limiter", versions=("redis", "hiredis"))
single = bench.case("acquire, one after the other", clock="wall", unit="us/call")
crowd = bench.case("acquire, 100 at once", clock="wall", unit="us/call")


async def in_turn(call: Callable[[], Awaitable[object]]) -> Figure:
    async def work() -> None:
        for _ in range(CALLS):
            await call()

    return await timed(work, CALLS, scale=1e6)


async def at_once(call: Callable[[], Awaitable[object]]) -> Figure:
    async def work() -> None:
        for _ in range(CALLS // AT_ONCE):
            await asyncio.gather(*(call() for _ in range(AT_ONCE)))

    return await timed(work, CALLS, scale=1e6)


def acquire(backend: Backend) -> Callable[[], Awaitable[object]]:
    limiter = backend.limiter("bench")

    async def call() -> None:
        assert (await limiter.acquire("key", PLENTY)).allowed

    return call


@single.ours("aiopatterns, Redis")
async def redis_in_turn() -> Figure:
    async with open_backend(server().url) as backend:
        return await in_turn(acquire(backend))


@single.ours("aiopatterns, memory")
async def memory_in_turn() -> Figure:
    async with open_backend("memory://") as backend:
        return await in_turn(acquire(backend))


@single.limit("redis-py, INCR")
async def incr_in_turn() -> Figure:
    async with Redis.from_url(server().url) as client:
        return await in_turn(lambda: client.incr("bench"))


@crowd.ours("aiopatterns, Redis")
async def redis_at_once() -> Figure:
    async with open_backend(server().url) as backend:
        return await at_once(acquire(backend))


@crowd.limit("redis-py, INCR")
async def incr_at_once() -> Figure:
    async with Redis.from_url(server().url) as client:
        return await at_once(lambda: client.incr("bench"))


if __name__ == "__main__":
    bench.main()
