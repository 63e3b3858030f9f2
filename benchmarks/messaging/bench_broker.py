"""Broker: what a request and its reply cost, in memory and over Redis.

In memory one broker asks itself, 64 callers at a time and one after the other. Over Redis two
brokers on connections of their own meet, as two processes would, both in this one: so the figure is
what both sides cost together. faststream, whose dependencies are not ours, runs in its own
environment, with its subscriber and its callers in one process as well; ``peers/run_faststream.py``
says how it is tuned. Every contender writes and reads its payloads, checks each reply, and has a
deadline for each request.

Goals: 10 us in memory; over Redis an eighth of faststream's time, and 10,000 a second. An error ends
the run, also that of 1,000 callers at once.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

from aiopatterns.backends import open_backend
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.codec import MSGPACK
from aiopatterns.messaging import Broker, Message
from benchmarks import peers
from benchmarks.harness import Bench, Figure
from benchmarks.jobs.contenders import free_port

PROGRAM = Path(__file__).resolve().parent / "peers" / "run_faststream.py"
CALLERS, MANY = 64, 1_000
NEAR, FAR, THEIRS = 20_000, 20_000, 2_000  # requests a run
PAYLOAD = {"id": 17}
TOPIC = "users.get"

bench = Bench("messaging/broker", elsewhere=peers.versions("faststream"), loops=("uvloop",))


@cache
def server() -> RedisServer:
    """The one server of this process; it keeps nothing on disk."""
    started = RedisServer(port=free_port())
    started.start()
    atexit.register(started.stop)
    return started


async def handler(message: Message) -> object:
    return message.payload


async def ask(broker: Broker, callers: int, count: int) -> int:
    """Let so many callers ask, each one request after the other; any error ends the run."""
    each = count // callers

    async def caller() -> None:
        for _ in range(each):
            reply = await broker.request(TOPIC, PAYLOAD, timeout=30.0)
            assert reply == PAYLOAD

    await asyncio.gather(*(caller() for _ in range(callers)))
    assert broker.statistics().pending == 0
    return each * callers


async def near(callers: int) -> int:
    async with Broker("memory://") as broker:
        await broker.subscribe(TOPIC, handler, group="users", concurrency=callers)
        return await ask(broker, callers, NEAR)


async def far(callers: int) -> int:
    async with Broker(server().tcp_url) as here, Broker(server().tcp_url) as there:
        await there.subscribe(TOPIC, handler, group="users", concurrency=callers)
        await here.request(TOPIC)  # they know each other
        return await ask(here, callers, FAR)


def faststream(count: int, *words: object) -> Figure:
    """Run faststream in its environment; its own time for each request that was answered."""
    python = peers.interpreter("faststream")
    assert python is not None, "see benchmarks/peers.py"
    command = [python, str(PROGRAM), *map(str, words), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    if told["failed"]:
        print(f"faststream {words}: {told['failed']} of {count} requests failed", file=sys.stderr)
    return Figure(told["seconds"] / max(1, count - told["failed"]) * 1e6)


memory = bench.case("request and reply in memory, 64 callers", clock="cpu", unit="us/request")


@memory.ours("aiopatterns.Broker")
async def ours_near() -> int:
    return await near(CALLERS)


@memory.limit("write and read both ways, two futures")
async def bare() -> int:
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[tuple[bytes, asyncio.Future[bytes]]] = asyncio.Queue()

    async def serve() -> None:
        while True:
            data, reply = await waiting.get()
            reply.set_result(MSGPACK.encode(MSGPACK.decode(data)))

    async def caller() -> None:
        for _ in range(NEAR // CALLERS):
            reply: asyncio.Future[bytes] = loop.create_future()
            waiting.put_nowait((MSGPACK.encode(PAYLOAD), reply))
            assert MSGPACK.decode(await reply) == PAYLOAD

    serving = loop.create_task(serve())
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    serving.cancel()
    return NEAR // CALLERS * CALLERS


memory.under(10.0)

alone = bench.case("request and reply in memory, one caller", clock="wall", unit="us/request")


@alone.ours("aiopatterns.Broker")
async def ours_alone() -> int:
    return await near(1)


if bench.elsewhere:

    @alone.peer("faststream, TestRedisBroker", follows="faststream docs, Testing")
    async def theirs_alone() -> Figure:
        return faststream(THEIRS, "memory")


redis = bench.case("request and reply over Redis, 64 callers", clock="wall", unit="us/request")


@redis.ours("aiopatterns.Broker")
async def ours_far() -> int:
    return await far(CALLERS)


if bench.elsewhere:

    @redis.peer("faststream", follows="faststream docs, RPC over Redis; Concurrent processing")
    async def theirs_far() -> Figure:
        return faststream(THEIRS, "redis", server().tcp_url, CALLERS)

    redis.at_most(1 / 8, of="faststream")


@redis.limit("two publishes, nobody listens")
async def two_publishes() -> int:
    async with open_backend(server().tcp_url) as backend:
        data = MSGPACK.encode(PAYLOAD)

        async def caller() -> None:
            for _ in range(FAR // CALLERS):
                await backend.pubsub.publish("there", data)
                await backend.pubsub.publish("here", data)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return FAR // CALLERS * CALLERS


redis.under(100.0)

crowd = bench.case("request and reply over Redis, 1,000 callers", clock="wall", unit="us/request")


@crowd.ours("aiopatterns.Broker")
async def ours_crowd() -> int:
    return await far(MANY)


if __name__ == "__main__":
    bench.main()
