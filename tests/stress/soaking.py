"""What a soak does: parts that work in rounds, through outages, and what a process holds.

Each part is an async context manager that gives ``work(items)``: it does so many operations, waits
until they are all done, checks them and forgets them, so that what it knows does not grow.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections import Counter
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from anyio import create_task_group, fail_after

from aiopatterns.cache import Cache
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendError, NoHandlersError, TimeoutExceededError
from aiopatterns.core.rate import Rate
from aiopatterns.flow import amap
from aiopatterns.jobs import JobQueue, Worker
from aiopatterns.messaging import Broker, Message, Stream, StreamConsumer
from aiopatterns.resilience import (
    Bulkhead,
    CircuitBreaker,
    Retry,
    SingleFlight,
    Stack,
    Timeout,
    TokenBucket,
)
from aiopatterns.resilience.backoff import Constant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    Work = Callable[[int], Awaitable[None]]

__all__ = ["PARTS", "Held", "slope"]

CHUNK = 250
LOST = 120.0  # seconds; an outage takes a few, a lease that ends 15
KEYS = 600  # of the cache; twice as many as fit into the near tier
PLENTY = Rate(1_000_000)


@asynccontextmanager
async def jobs(url: str) -> AsyncIterator[Work]:
    """Every job that was acknowledged is run."""
    queue, pending, numbers = JobQueue("soak", url), set[int](), count()

    @queue.job(result_ttl=0)
    async def work(number: int) -> None:
        pending.discard(number)

    async def some(items: int) -> None:
        for _ in range(0, items, CHUNK):
            chunk = [*islice(numbers, CHUNK)]
            pending.update(chunk)
            unsent = [work.using(id=f"n{number}").job(number) for number in chunk]
            await acknowledged(partial(queue.enqueue_many, unsent))
            await emptied(pending)

    async with queue, Worker(queue, concurrency=50):
        yield some


@asynccontextmanager
async def cached(url: str) -> AsyncIterator[Work]:
    """Two processes' caches with both tiers; nobody reads what he has invalidated."""
    rows, numbers = Counter[int](), count()
    caches: list[Cache[int, list[int]]] = [
        Cache("soak", ttl=60, max_size=KEYS // 2, backend=url) for _ in range(2)
    ]

    async def load(key: int) -> list[int]:
        return [key, rows[key]]

    async def one(number: int) -> None:
        cache, key = caches[number % 2], number * 7 % KEYS
        floor = 0
        if number % 20 == 0:
            rows[key] += 1
            floor = rows[key]
            await cache.invalidate(key)
        found = await cache.get_or_load(key, load)
        assert found[0] == key
        assert found[1] >= floor

    async def some(items: int) -> None:
        await amap(one, islice(numbers, items), limit=20)

    async with caches[0], caches[1]:
        yield some


@asynccontextmanager
async def messages(url: str) -> AsyncIterator[Work]:
    """Every entry of a stream is handled, and every request is answered at last."""
    pending, numbers = set[int](), count()
    consumer = StreamConsumer(Stream("soak", url, max_length=4 * CHUNK), group="g")

    async def handle(message: Message) -> None:
        pending.discard(message.payload)

    async def answer(message: Message) -> Any:
        return message.payload

    async def ask(broker: Broker, number: int) -> None:
        while True:
            with suppress(BackendError, NoHandlersError, TimeoutExceededError):
                assert await broker.request("soak.ask", number, timeout=2) == number
                return
            await sleep(0.05)

    async with (
        Stream("soak", url, max_length=4 * CHUNK) as stream,
        Broker(url) as broker,
        await broker.subscribe("soak.*", answer, group="g"),
        create_task_group() as tasks,
    ):

        async def some(items: int) -> None:
            for _ in range(0, items, CHUNK):
                chunk = [*islice(numbers, CHUNK)]
                streamed, asked = chunk[::2], chunk[1::2]
                pending.update(streamed)
                await acknowledged(partial(stream.append_many, streamed))
                await amap(partial(ask, broker), asked, limit=20)
                await emptied(pending)

        tasks.start_soon(consume, consumer, handle)
        yield some
        consumer.stop()


async def consume(consumer: StreamConsumer, handle: Any) -> None:
    await consumer.run(handle, concurrency=16)


@asynccontextmanager
async def guarded(url: str) -> AsyncIterator[Work]:
    """Calls through a stack of policies, each with a key that never comes again."""
    del url
    numbers, flights = count(), SingleFlight()
    bucket: TokenBucket = TokenBucket(PLENTY, key=lambda number: number)
    stack = Stack(
        Timeout(30),
        Retry(on=OSError, attempts=3, backoff=Constant(0)),
        CircuitBreaker("soak"),
        Bulkhead(10, max_queue=100),
        bucket,
    )
    failing = set[int]()

    @stack
    async def call(number: int) -> int:
        if number % 50 == 0 and number not in failing:
            failing.add(number)
            raise OSError(number)
        failing.discard(number)
        return number

    async def one(number: int) -> None:
        assert await flights.run(number, lambda: call(number)) == number

    async def some(items: int) -> None:
        await amap(one, islice(numbers, items), limit=20)

    yield some


PARTS = {"jobs": jobs, "cache": cached, "messages": messages, "resilience": guarded}


async def acknowledged(send: Callable[[], Awaitable[object]]) -> None:
    """Send until it is acknowledged: the server may be away."""
    while True:
        try:
            await send()
        except BackendError:
            await sleep(0.05)
        else:
            return


async def emptied(pending: set[int]) -> None:
    """Wait until all is done; what is not by then is lost."""
    with fail_after(LOST):
        while pending:
            await sleep(0.002)


class Held(NamedTuple):
    """What this process holds at one instant.

    Attributes:
        memory: Resident memory, in MiB.
        tasks: Tasks of the loop.
        threads: Threads that are alive.
        files: Open file descriptors.
    """

    memory: float
    tasks: int
    threads: int
    files: int

    @classmethod
    def now(cls) -> Held:
        """Collect garbage, and look."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return cls(
            memory=pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
            tasks=len(asyncio.all_tasks()),
            threads=threading.active_count(),
            files=len([*Path("/proc/self/fd").iterdir()]),
        )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How much the second coordinate grows for each of the first: the line of least squares."""
    middle = sum(x for x, _ in points) / len(points)
    spread = sum((x - middle) ** 2 for x, _ in points)
    return sum((x - middle) * y for x, y in points) / spread if spread else 0.0
