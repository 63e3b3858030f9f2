"""The queue protocol bare: what an enqueue and a step cost before any worker is around them.

20,000 jobs of 100 bytes whose results are kept for an hour, one private server on a Unix socket.
*Step loop*: one caller settles what it has and claims anew, so many jobs at once, until all are
done: the line above which no worker of this library can get. *Enqueue*: batches of 500. The limit
is redis-py with the fewest commands that would do, in pipelines of its own: no lease, no fence, no
recovery; what is claimed and lost is lost. Redis time is that of the scripts alone, as the server
counts it (``INFO commandstats``).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from itertools import count
from typing import cast

from redis.asyncio import Redis

from aiopatterns.backends import open_backend
from aiopatterns.backends.queue import NewJob, Queue, Settled, Turn
from benchmarks.backends.field import server, timed
from benchmarks.harness import Bench, Figure

JOBS = 20_000
BATCH = 500
KEEP = 3_600.0
BODY = b"x" * 100
RESULT = b"r" * 20
_numbers = count()

bench = Bench("backends/queue", versions=("redis", "hiredis"), loops=("uvloop",))


async def fill(queue: Queue) -> None:
    run = next(_numbers)
    for first in range(0, JOBS, BATCH):
        jobs = [NewJob(f"{run:06}-{n:08}", BODY, keep=KEEP) for n in range(first, first + BATCH)]
        assert all(each.created for each in await queue.enqueue(jobs))


async def drain(queue: Queue, at_once: int) -> None:
    settled: list[Settled] = []
    worker, done = f"w{next(_numbers)}", 0
    for number in count(1):
        turned = await queue.step(Turn(worker, number, 15.0, settled, at_once))
        done += len(settled)
        if not turned.claimed:
            break
        settled = [Settled(job.id, "done", RESULT) for job in turned.claimed]
    await queue.step(Turn(worker, number + 1, 15.0, leave=True))
    assert done == JOBS


async def loop(url: str, at_once: int) -> Figure:
    async with open_backend(url) as backend:
        queue = backend.queue("bench")
        await fill(queue)
        return await timed(lambda: drain(queue, at_once), JOBS, scale=1e6)


async def enqueue(url: str) -> Figure:
    async with open_backend(url) as backend:
        queue = backend.queue("bench")
        figure = await timed(lambda: fill(queue), JOBS, scale=1e6)
        await drain(queue, BATCH)
        return figure


async def script_time(work: Callable[[Queue], Awaitable[object]], after: bool) -> Figure:
    """Microseconds of Redis for each job of ``work``, after or before the other half."""
    async with open_backend(server().url) as backend:
        queue = backend.queue("bench")
        if after:
            await fill(queue)
        server().command("CONFIG", "RESETSTAT")
        await work(queue)
        told = cast("str", server().command("INFO", "commandstats"))
        if not after:
            await drain(queue, BATCH)
    found = re.search(r"cmdstat_evalsha:calls=\d+,usec=(\d+)", told)
    assert found is not None
    return Figure(int(found[1]) / JOBS)


async def bare_fill(client: Redis) -> None:
    run = next(_numbers)
    for first in range(0, JOBS, BATCH):
        ids = [f"{run:06}-{n:08}" for n in range(first, first + BATCH)]
        pipeline = client.pipeline(transaction=False)
        pipeline.hset("bare:jobs", mapping=dict.fromkeys(ids, BODY))
        pipeline.rpush("bare:lane", *ids)
        await pipeline.execute()


async def bare_drain(client: Redis, at_once: int) -> None:
    done, settled = 0, list[bytes]()
    while True:
        pipeline = client.pipeline(transaction=False)
        if settled:
            pipeline.hdel("bare:jobs", *settled)
            for each in settled:
                pipeline.set(b"bare:res:" + each, RESULT, px=int(KEEP * 1_000))
        pipeline.lpop("bare:lane", at_once)
        *_, ids = await pipeline.execute()
        done += len(settled)
        if not ids:
            break
        assert len(await client.hmget("bare:jobs", ids)) == len(ids)
        settled = ids
    assert done == JOBS


step = bench.case("step loop, result kept", clock="wall", unit="us/job")
redis = bench.case("Redis in that loop", clock="server cpu", unit="us/job", warm=False)
batch = bench.case("enqueue, batches of 500", clock="wall", unit="us/job")
redis_batch = bench.case("Redis for that enqueue", clock="server cpu", unit="us/job", warm=False)


@step.ours("aiopatterns, Redis, 32 at once")
async def redis_32() -> Figure:
    return await loop(server().url, 32)


@step.ours("aiopatterns, Redis, 100 at once")
async def redis_100() -> Figure:
    return await loop(server().url, 100)


@step.ours("aiopatterns, memory, 32 at once")
async def memory_32() -> Figure:
    return await loop("memory://", 32)


@step.limit("redis-py, fewest commands, 32 at once")
async def bare_32() -> Figure:
    async with Redis.from_url(server().url) as client:
        await bare_fill(client)
        return await timed(lambda: bare_drain(client, 32), JOBS, scale=1e6)


@redis.ours("32 at once")
async def server_32() -> Figure:
    return await script_time(lambda queue: drain(queue, 32), after=True)


@redis.ours("100 at once")
async def server_100() -> Figure:
    return await script_time(lambda queue: drain(queue, 100), after=True)


@batch.ours("aiopatterns, Redis")
async def redis_enqueue() -> Figure:
    return await enqueue(server().url)


@batch.ours("aiopatterns, memory")
async def memory_enqueue() -> Figure:
    return await enqueue("memory://")


@batch.limit("redis-py, fewest commands")
async def bare_enqueue() -> Figure:
    async with Redis.from_url(server().url) as client:
        figure = await timed(lambda: bare_fill(client), JOBS, scale=1e6)
        await client.delete("bare:jobs", "bare:lane")
        return figure


@redis_batch.ours("500 at once")
async def server_enqueue() -> Figure:
    return await script_time(fill, after=False)


redis.under(6.0)

if __name__ == "__main__":
    bench.main()
