"""A stream's consumer: what a message costs, with 100 handlers at once.

COUNT messages are in the stream before the consumer comes, each with an envelope; its handlers do
nothing. The limit is a bare loop of redis-py: XREADGROUP with COUNT 100 and one XACK for all of
them, which reads no message, runs no handler, retries nothing and loses what it had when it is
cancelled. faststream, whose dependencies are not ours, runs in its own environment, one message at
a time as its documentation has it, and with as many workers;
``peers/run_faststream_stream.py`` says how it is tuned.

Goals: at least half as fast as the bare loop, and 20 times as fast as faststream.
"""

from __future__ import annotations

import atexit
import json
import subprocess
from functools import cache
from itertools import count
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.clock import yield_now
from aiopatterns.core.codec import MSGPACK
from aiopatterns.messaging import Message, Stream, StreamConsumer
from benchmarks import peers
from benchmarks.harness import Bench, Figure
from benchmarks.jobs.contenders import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    Clock = Callable[[], float]

PROGRAM = Path(__file__).resolve().parent / "peers" / "run_faststream_stream.py"
HANDLERS, COUNT, THEIRS = 100, 40_000, 2_000
PAYLOAD = {"id": 17}

bench = Bench("messaging/stream", elsewhere=peers.versions("faststream"), loops=("uvloop",))
numbers = count()


@cache
def server() -> RedisServer:
    """The one server of this process; it keeps nothing on disk."""
    started = RedisServer(port=free_port())
    started.start()
    atexit.register(started.stop)
    return started


@cache
def filled() -> set[str]:
    return set()


async def fill(url: str) -> Stream:
    """Open the stream; the first time it is filled."""
    stream = Stream("bench", url, codec=MSGPACK)
    await stream.__aenter__()
    if url == "memory://" or url not in filled():
        filled().add(url)
        for _ in range(0, COUNT, 1_000):
            await stream.append_many([PAYLOAD] * 1_000, key="k")
    return stream


def own_key(message: Message) -> str:
    return message.id


async def consume(
    url: str, *, waits: bool = False, ordered: bool = False, clock: Clock = perf_counter
) -> Figure:
    """Handle every message once, by a group that is new; the filling is not measured."""
    stream, handled = await fill(url), 0
    consumer = StreamConsumer(stream, group=f"g{next(numbers)}", prefetch=2 * HANDLERS)

    def plain(message: Message) -> None:
        nonlocal handled
        assert message.payload["id"] == 17
        handled += 1
        if handled == COUNT:
            consumer.stop()

    async def handler(message: Message) -> None:
        if waits:
            await yield_now()
        plain(message)

    started = clock()
    try:
        await consumer.run(handler, concurrency=HANDLERS, key=own_key if ordered else None)
    finally:
        seconds = clock() - started
        await stream.__aexit__(None, None, None)
    assert consumer.statistics().acked == COUNT
    return Figure(seconds / COUNT * 1e6)


redis = bench.case("Redis, 100 handlers at once", clock="wall", unit="us/message")


@redis.ours("aiopatterns.StreamConsumer")
async def ours() -> Figure:
    return await consume(server().tcp_url)


@redis.limit("bare loop, COUNT 100")
async def bare() -> Figure:
    client, group, done = Redis.from_url(server().tcp_url), f"raw{next(numbers)}", 0
    if not await client.exists("raw"):
        async with client.pipeline(transaction=False) as pipeline:
            for _ in range(COUNT):
                pipeline.xadd("raw", {"p": MSGPACK.encode(PAYLOAD)})
            await pipeline.execute()
    await client.xgroup_create("raw", group, id="0")
    started = perf_counter()
    while done < COUNT:
        found: Any = await client.xreadgroup(group, "c", {"raw": ">"}, count=100)
        ((_, entries),) = found
        done += await client.xack("raw", group, *[entry for entry, _ in entries])
    seconds = perf_counter() - started
    await client.xgroup_destroy("raw", group)
    await client.aclose()
    return Figure(seconds / COUNT * 1e6)


redis.at_most(2.0, of="bare loop, COUNT 100")

if bench.elsewhere:

    @redis.peer("faststream", follows="faststream docs, Redis Streams; Concurrent processing")
    async def theirs() -> Figure:
        python = peers.interpreter("faststream")
        assert python is not None, "see benchmarks/peers.py"
        with RedisServer(port=free_port()) as own:
            command = [python, str(PROGRAM), own.tcp_url, str(THEIRS)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        told = json.loads(done.stdout.splitlines()[-1])
        return Figure(told["seconds"] / THEIRS * 1e6)

    redis.at_most(1 / 20, of="faststream")


waiting = bench.case("Redis, handlers that wait for one turn", clock="wall", unit="us/message")


@waiting.ours("aiopatterns.StreamConsumer")
async def ours_waiting() -> Figure:
    return await consume(server().tcp_url, waits=True)


keyed = bench.case("Redis, in order of 40,000 keys", clock="wall", unit="us/message")


@keyed.ours("aiopatterns.StreamConsumer")
async def ours_keyed() -> Figure:
    return await consume(server().tcp_url, ordered=True)


memory = bench.case("in memory, 100 handlers at once", clock="cpu", unit="us/message")


@memory.ours("aiopatterns.StreamConsumer")
async def ours_memory() -> Figure:
    return await consume("memory://", clock=process_time)


if __name__ == "__main__":
    bench.main()
