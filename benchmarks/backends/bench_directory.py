"""A directory of 1,000 members with 200 bytes each: looking at all of them, and renewing one.

The limit is the bare HGETALL by the client library. Wall time; the server runs on the same
machine. A renewal is counted in round trips.
"""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from aiopatterns.backends import open_backend
from aiopatterns.backends.protocols import Backend, Directory
from aiopatterns.backends.redis.backend import RedisBackend
from benchmarks.backends.field import server, timed
from benchmarks.harness import Bench, Figure

MEMBERS = 1_000
SNAPSHOTS = 50
RENEWALS = 500
DATA = b"x" * 200

bench = Bench("backends/directory", versions=("redis", "hiredis"))
look = bench.case("snapshot of 1,000 members", clock="wall", unit="ms/snapshot")
renewal = bench.case("renewal", clock="wall", unit="us/renewal")
trips = bench.case("round trips, renewal", clock="count", unit="trips/renewal")


async def filled(backend: Backend) -> Directory:
    directory = backend.directory("bench")
    await asyncio.gather(
        *(directory.put(f"member-{number}", DATA, ttl=600) for number in range(MEMBERS))
    )
    return directory


async def snapshots(backend: Backend) -> Figure:
    directory = await filled(backend)

    async def work() -> None:
        for _ in range(SNAPSHOTS):
            assert len((await directory.snapshot()).members) == MEMBERS

    return await timed(work, SNAPSHOTS, scale=1e3)


async def renewals(backend: Backend) -> Figure:
    directory = await filled(backend)

    async def work() -> None:
        for number in range(RENEWALS):
            assert await directory.put(f"member-{number}", DATA, ttl=600)

    return await timed(work, RENEWALS, scale=1e6)


@look.ours("aiopatterns, Redis")
async def redis_snapshots() -> Figure:
    async with open_backend(server().url) as backend:
        return await snapshots(backend)


@look.ours("aiopatterns, memory")
async def memory_snapshots() -> Figure:
    async with open_backend("memory://") as backend:
        return await snapshots(backend)


@look.limit("redis-py, HGETALL")
async def hgetall() -> Figure:
    async with Redis.from_url(server().url) as client:
        await client.hset("bench", mapping={f"member-{each}": DATA for each in range(MEMBERS)})

        async def work() -> None:
            for _ in range(SNAPSHOTS):
                assert len(await client.hgetall("bench")) == MEMBERS

        return await timed(work, SNAPSHOTS, scale=1e3)


@renewal.ours("aiopatterns, Redis")
async def redis_renewals() -> Figure:
    async with open_backend(server().url) as backend:
        return await renewals(backend)


@renewal.ours("aiopatterns, memory")
async def memory_renewals() -> Figure:
    async with open_backend("memory://") as backend:
        return await renewals(backend)


@trips.ours("aiopatterns, Redis")
async def redis_trips() -> Figure:
    backend = open_backend(server().url)
    assert isinstance(backend, RedisBackend)
    async with backend:
        directory = await filled(backend)
        before = backend.statistics().round_trips
        for number in range(RENEWALS):
            await directory.put(f"member-{number}", DATA, ttl=600)
        return Figure((backend.statistics().round_trips - before) / RENEWALS)


look.under(20)
trips.under(1)

if __name__ == "__main__":
    bench.main()
