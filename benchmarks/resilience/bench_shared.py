"""Patterns that all processes share: a rate, with and without its backend, and idempotent calls.

The limit of each is what the least that it could do costs: one INCR by the client library for a
rate, a SET that must not overwrite and a second SET for a call that is run once. Wall time; the
server runs on the same machine. Without a backend the clock is that of the processor: such a call
waits for nothing, but for the one that asks whether the server is back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count

from redis.asyncio import Redis

from aiopatterns.backends import open_backend
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.rate import Rate
from aiopatterns.resilience import Idempotent, SharedRateLimit
from benchmarks.backends.field import server, timed
from benchmarks.harness import Bench, Figure

CALLS = 3_000
AWAY = 100_000
PLENTY = Rate(1e9)

bench = Bench("resilience/shared", versions=("redis", "hiredis"))
rate = bench.case("a shared rate that has room", clock="wall", unit="us/call")
away = bench.case("a shared rate whose server is dead", clock="wall", unit="us/call")
first = bench.case("an idempotent call", clock="wall", unit="us/call")
again = bench.case("its repetition", clock="wall", unit="us/call")


async def in_turn(call: Callable[[int], Awaitable[object]], calls: int = CALLS) -> Figure:
    async def work() -> None:
        for number in range(calls):
            await call(number)

    return await timed(work, calls, scale=1e6)


async def acquire(url: str) -> Figure:
    async with open_backend(url) as backend:
        quota = SharedRateLimit(PLENTY, backend, name="bench")
        return await in_turn(lambda _: quota.acquire())


@rate.ours("aiopatterns.SharedRateLimit, Redis")
async def rate_on_redis() -> Figure:
    return await acquire(server().url)


@rate.ours("aiopatterns.SharedRateLimit, memory")
async def rate_in_memory() -> Figure:
    return await acquire("memory://")


@rate.limit("redis-py, INCR")
async def incr() -> Figure:
    async with Redis.from_url(server().url) as client:
        return await in_turn(lambda _: client.incr("bench"))


@away.ours("aiopatterns.SharedRateLimit")
async def rate_without_a_server() -> Figure:
    with RedisServer(private=True) as own:
        async with open_backend(own.url) as backend:
            quota = SharedRateLimit(PLENTY, backend, name="bench")
            await quota.acquire()
            own.kill()
            return await in_turn(lambda _: quota.acquire(), AWAY)


def once(backend_url: str, *, repeated: bool) -> Callable[[], Awaitable[Figure]]:
    async def measure() -> Figure:
        async with open_backend(backend_url) as backend:

            @Idempotent(backend, key=str, ttl=60, name=f"bench-{next(_RUNS)}")
            async def call(number: int) -> int:
                return number

            await call(0)
            return await in_turn(lambda number: call(0 if repeated else number + 1))

    return measure


_RUNS = count()


@first.ours("aiopatterns.Idempotent, Redis")
async def first_on_redis() -> Figure:
    return await once(server().url, repeated=False)()


@first.ours("aiopatterns.Idempotent, memory")
async def first_in_memory() -> Figure:
    return await once("memory://", repeated=False)()


@first.limit("redis-py, SET NX and SET")
async def two_sets() -> Figure:
    run = next(_RUNS)
    async with Redis.from_url(server().url) as client:

        async def call(number: int) -> None:
            key = f"bench-{run}-{number}"
            assert await client.set(key, b"running", nx=True, px=15_000)
            await client.set(key, b"done", px=60_000)

        return await in_turn(call)


@again.ours("aiopatterns.Idempotent, Redis")
async def again_on_redis() -> Figure:
    return await once(server().url, repeated=True)()


@again.ours("aiopatterns.Idempotent, memory")
async def again_in_memory() -> Figure:
    return await once("memory://", repeated=True)()


away.under(1_000)  # a dead server costs less than a millisecond a call

if __name__ == "__main__":
    bench.main()
