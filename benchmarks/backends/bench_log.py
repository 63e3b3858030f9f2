"""A group works off a log of entries with 100 bytes each: claim a hundred, acknowledge them with
the next claim.

The limit is the bare loop of the client library: XREADGROUP COUNT 100, then XACK of all of them,
without retries, releases, dead letters or a fence. Wall time; the server runs on the same machine.
"""

from __future__ import annotations

from redis.asyncio import Redis

from aiopatterns.backends import open_backend
from aiopatterns.backends.protocols import Backend
from aiopatterns.backends.records import GroupTurn
from benchmarks.backends.field import server, timed
from benchmarks.harness import Bench, Figure

ENTRIES = 10_000
BATCH = 100
BODY = b"x" * 100

bench = Bench("backends/log", versions=("redis", "hiredis"))
work_off = bench.case("claim and acknowledge, 100 at a time", clock="wall", unit="us/entry")
append = bench.case("append, 100 at a time", clock="wall", unit="us/entry")


async def appended(backend: Backend) -> Figure:
    log = backend.log("bench")
    await log.trim(max_length=0)

    async def work() -> None:
        for _ in range(ENTRIES // BATCH):
            await log.append_many([BODY] * BATCH)

    return await timed(work, ENTRIES, scale=1e6)


async def worked_off(backend: Backend) -> Figure:
    await appended(backend)
    log = backend.log("bench")
    await log.delete_group("g")
    await log.create_group("g")

    async def work() -> None:
        done, acks = 0, list[str]()
        while done < ENTRIES or acks:
            turned = await log.turn("g", "c", GroupTurn(acks=acks, limit=BATCH))
            acks = [each.id for each in turned.claimed]
            done += len(acks)
        assert done == ENTRIES

    return await timed(work, ENTRIES, scale=1e6)


@work_off.ours("aiopatterns, Redis")
async def redis_worked_off() -> Figure:
    async with open_backend(server().url) as backend:
        return await worked_off(backend)


@work_off.ours("aiopatterns, memory")
async def memory_worked_off() -> Figure:
    async with open_backend("memory://") as backend:
        return await worked_off(backend)


@work_off.limit("redis-py, XREADGROUP and XACK")
async def bare() -> Figure:
    async with Redis.from_url(server().url) as client:
        await client.delete("bench")
        await client.xgroup_create("bench", "g", id="0", mkstream=True)
        pipe = client.pipeline(transaction=False)
        for _ in range(ENTRIES):
            pipe.xadd("bench", {"p": BODY})
        await pipe.execute()

        async def work() -> None:
            done = 0
            while done < ENTRIES:
                found = await client.xreadgroup("g", "c", {"bench": ">"}, count=BATCH)
                ids = [each for each, _ in found[0][1]]
                await client.xack("bench", "g", *ids)
                done += len(ids)

        return await timed(work, ENTRIES, scale=1e6)


@append.ours("aiopatterns, Redis")
async def redis_appended() -> Figure:
    async with open_backend(server().url) as backend:
        return await appended(backend)


@append.ours("aiopatterns, memory")
async def memory_appended() -> Figure:
    async with open_backend("memory://") as backend:
        return await appended(backend)


@append.limit("redis-py, XADD in a pipeline")
async def pipelined() -> Figure:
    async with Redis.from_url(server().url) as client:
        await client.delete("bench")

        async def work() -> None:
            for _ in range(ENTRIES // BATCH):
                pipe = client.pipeline(transaction=False)
                for _ in range(BATCH):
                    pipe.xadd("bench", {"p": BODY})
                await pipe.execute()

        return await timed(work, ENTRIES, scale=1e6)


if __name__ == "__main__":
    bench.main()
