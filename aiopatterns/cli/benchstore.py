"""What ``aiopatterns bench`` measures over a backend: in memory, and on an embedded Redis.

The same cases run on both; the difference is what a network and another process cost. Jobs, streams
and requests have both of their sides in this process.
"""

from __future__ import annotations

from functools import partial
from itertools import count as numbers
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from anyio import Event

from aiopatterns.backends.queue import MAX_BATCH
from aiopatterns.cli.benchcases import Case
from aiopatterns.flow.mapping import amap
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.worker import Worker
from aiopatterns.messaging.broker import Broker
from aiopatterns.messaging.consumer import StreamConsumer
from aiopatterns.messaging.stream import Stream
from aiopatterns.resilience.ratelimit import Rate
from aiopatterns.resilience.sharedlimit import SharedRateLimit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AsyncExitStack

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.cli.calibration import Run
    from aiopatterns.messaging.message import Message

__all__ = ["store_cases"]

_AT_ONCE: Final = 64
_VALUE: Final = b"x" * 100
_TTL: Final = 60.0
_PAYLOAD: Final = MappingProxyType({"id": 17})


def store_cases(backend: Backend, group: str) -> tuple[Case, ...]:
    """Return the cases that need a backend.

    Args:
        backend: An open one.
        group: What they are called together.
    """
    opened: dict[str, Callable[[Backend, AsyncExitStack], Awaitable[Run]]] = {
        "read a value, one after the other": _get,
        f"read a value, {_AT_ONCE} at once": _get_many,
        "ask a shared rate limit": _limit,
        "a job, enqueued and run, many at once": _jobs,
        "a job, from enqueue to its result, one after the other": _job,
        "a message through a stream, many at once": _stream,
        f"a request to a handler, {_AT_ONCE} at once": _requests,
    }
    return tuple(Case(group, name, partial(each, backend)) for name, each in opened.items())


async def _get(backend: Backend, _: AsyncExitStack) -> Run:
    await backend.kv.set("bench", _VALUE, ttl=_TTL)

    async def run(count: int) -> None:
        for _ in range(count):
            assert await backend.kv.get("bench") == _VALUE

    return run


async def _get_many(backend: Backend, _: AsyncExitStack) -> Run:
    await backend.kv.set("bench", _VALUE, ttl=_TTL)

    async def get(_: int) -> None:
        assert await backend.kv.get("bench") == _VALUE

    async def run(count: int) -> None:
        await amap(get, range(count), limit=_AT_ONCE)

    return run


async def _limit(backend: Backend, _: AsyncExitStack) -> Run:
    limit = SharedRateLimit(Rate(1e6), backend, name="bench")

    async def run(count: int) -> None:
        for _ in range(count):
            await limit.acquire()

    return run


async def _jobs(backend: Backend, stack: AsyncExitStack) -> Run:
    queue = JobQueue("bench", backend)
    left, done = 0, Event()

    @queue.job(name="work", result_ttl=0)
    async def work() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    await stack.enter_async_context(queue)
    await stack.enter_async_context(Worker(queue, publish=False))

    async def run(count: int) -> None:
        nonlocal left, done
        left, done = count, Event()
        await queue.enqueue_many([work.job() for _ in range(count)])
        await done.wait()

    return run


async def _job(backend: Backend, stack: AsyncExitStack) -> Run:
    queue = JobQueue("benchone", backend)

    @queue.job(name="work", result_ttl=_TTL)
    async def work(number: int) -> int:
        return number

    await stack.enter_async_context(queue)
    await stack.enter_async_context(Worker(queue, publish=False))

    async def run(count: int) -> None:
        for number in range(count):
            handle = await work.enqueue(number)
            assert await handle.result() == number

    return run


async def _stream(backend: Backend, _: AsyncExitStack) -> Run:
    names = numbers()

    async def run(count: int) -> None:
        left = count
        async with Stream(f"bench{next(names)}", backend) as stream:
            for start in range(0, count, MAX_BATCH):
                await stream.append_many([{**_PAYLOAD}] * min(MAX_BATCH, count - start))
            consumer = StreamConsumer(stream, group="bench")

            async def handle(_: Message) -> None:
                nonlocal left
                left -= 1
                if not left:
                    consumer.stop()

            await consumer.run(handle, concurrency=100)
        assert not left

    return run


async def _requests(backend: Backend, stack: AsyncExitStack) -> Run:
    async def answer(message: Message) -> object:
        return message.payload

    broker = await stack.enter_async_context(Broker(backend))
    await broker.subscribe("bench.ask", answer, group="bench", concurrency=_AT_ONCE)

    async def ask(number: int) -> None:
        assert await broker.request("bench.ask", number, timeout=30) == number

    async def run(count: int) -> None:
        await amap(ask, range(count), limit=_AT_ONCE)

    return run
