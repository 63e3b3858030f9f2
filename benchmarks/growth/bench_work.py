"""How the cost of work that is handed over grows: jobs, messages, subscribers, callers."""

from __future__ import annotations

import asyncio

from aiopatterns.jobs import JobQueue, Worker
from aiopatterns.messaging import Broker, EventBus, Message, Stream, StreamConsumer
from benchmarks.backends.field import server
from benchmarks.growing import Growth, Meter
from benchmarks.growth.field import server_memory

AT_ONCE = 100
BATCH = 1_000
REQUESTS = 2_000
PAYLOAD = {"id": 17}

growth = Growth("growth/work")


async def run_jobs(url: str, load: int, meter: Meter) -> None:
    """Fill a queue, then empty it by one worker: what is timed is both."""
    jobs, done = JobQueue("bench", url), 0

    @jobs.job(name="noop")
    async def noop(key: int) -> int:
        nonlocal done
        done += 1
        return key

    async with jobs:
        with meter.over(load):
            for first in range(0, load, BATCH):
                keys = range(first, min(load, first + BATCH))
                await jobs.enqueue_many([noop.job(key) for key in keys])
            if url != "memory://":
                meter.server_holds(server_memory())
            await Worker(jobs, concurrency=AT_ONCE).run_until_empty()
        assert done == load


@growth.pattern("JobQueue in memory", load="jobs", once=200, operation="job")
async def memory_jobs(load: int, meter: Meter) -> None:
    await run_jobs("memory://", load, meter)


@growth.pattern("JobQueue on Redis", load="jobs", once=200, operation="job", clock="wall")
async def redis_jobs(load: int, meter: Meter) -> None:
    server().command("FLUSHALL")
    before = server_memory()
    await run_jobs(server().url, load, meter)
    assert meter.server is not None
    meter.server -= before


async def run_stream(url: str, load: int, meter: Meter) -> None:
    """Fill a stream, then handle every message by one group."""
    handled = 0
    stream = Stream("bench", url)
    consumer = StreamConsumer(stream, group="bench", prefetch=2 * AT_ONCE)

    async def handle(message: Message) -> None:
        nonlocal handled
        handled += 1
        if handled == load:
            consumer.stop()

    async with stream:
        with meter.over(load):
            for first in range(0, load, BATCH):
                count = min(load - first, BATCH)
                await stream.append_many([PAYLOAD] * count)
            if url != "memory://":
                meter.server_holds(server_memory())
            await consumer.run(handle, concurrency=AT_ONCE)


@growth.pattern("Stream in memory", load="messages", once=300, operation="message")
async def memory_stream(load: int, meter: Meter) -> None:
    await run_stream("memory://", load, meter)


@growth.pattern("Stream on Redis", load="messages", once=300, operation="message", clock="wall")
async def redis_stream(load: int, meter: Meter) -> None:
    server().command("FLUSHALL")
    before = server_memory()
    await run_stream(server().url, load, meter)
    assert meter.server is not None
    meter.server -= before


@growth.pattern("EventBus, all hear it", load="subscribers", once=10, operation="call of one")
async def hearing(load: int, meter: Meter) -> None:
    bus, calls = EventBus(), 0

    async def handle(event: str) -> None:
        nonlocal calls
        calls += 1

    for _ in range(load):
        bus.subscribe(str, handle)
    events = 20_000 // load
    with meter.over(events * load):
        for _ in range(events):
            await bus.publish("event")
    assert calls == events * load


@growth.pattern("EventBus, one hears it", load="patterns", once=100, operation="event")
async def matching(load: int, meter: Meter) -> None:
    bus, calls = EventBus(), 0

    async def handle(event: str) -> None:
        nonlocal calls
        calls += 1

    for number in range(load):
        bus.subscribe(f"user.{number}.*", handle)
    with meter.over(REQUESTS):
        for number in range(REQUESTS):
            await bus.publish("event", topic=f"user.{number % load}.{number}")
    assert calls == REQUESTS


async def ask(url: str, callers: int, meter: Meter) -> None:
    async def handle(message: Message) -> object:
        return message.payload

    async with Broker(url) as here, Broker(url) as there:
        serving = here if url == "memory://" else there
        await serving.subscribe("users.get", handle, group="users", concurrency=callers)
        await here.request("users.get", PAYLOAD, timeout=30.0)
        each = max(1, REQUESTS // callers)

        async def caller() -> None:
            for _ in range(each):
                assert await here.request("users.get", PAYLOAD, timeout=30.0) == PAYLOAD

        with meter.over(callers * each):
            await asyncio.gather(*(caller() for _ in range(callers)))


@growth.pattern("Broker in memory", load="callers", once=10, operation="request")
async def memory_callers(load: int, meter: Meter) -> None:
    await ask("memory://", load, meter)


@growth.pattern("Broker on Redis", load="callers", once=10, operation="request", clock="wall")
async def redis_callers(load: int, meter: Meter) -> None:
    await ask(server().url, load, meter)


if __name__ == "__main__":
    growth.main()
