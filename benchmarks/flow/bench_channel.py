"""Hand-over between tasks: Channel, its peers, and the bare loop.

100k items, capacity 100, one producer and one consumer, then four of each. A contender returns
how many items came out and asserts that their sum is right. The last case measures what batches
save.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import anyio

from aiopatterns.flow import Channel, PriorityChannel
from benchmarks.harness import Bench

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ITEMS = 100_000
CAPACITY = 100

bench = Bench("flow/channel")


def check(total: int) -> int:
    """Assert that every number from 0 below ITEMS came out once; return how many that is."""
    assert total == ITEMS * (ITEMS - 1) // 2, total
    return ITEMS


async def exchange(
    feed: Callable[[range], Awaitable[None]], drain: Callable[[int], Awaitable[int]], tasks: int
) -> int:
    """Run ``tasks`` producers and as many consumers to the end."""
    share = ITEMS // tasks
    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            group.create_task(feed(range(number * share, (number + 1) * share)))
        sums = [group.create_task(drain(share)) for _ in range(tasks)]
    return check(sum(each.result() for each in sums))


async def through_channel(tasks: int) -> int:
    channel = Channel[int](CAPACITY)

    async def feed(numbers: range) -> None:
        for number in numbers:
            await channel.send(number)

    async def drain(share: int) -> int:
        total = 0
        for _ in range(share):
            total += await channel.receive()
        return total

    return await exchange(feed, drain, tasks)


async def through_queue(tasks: int) -> int:
    queue: asyncio.Queue[int] = asyncio.Queue(CAPACITY)

    async def feed(numbers: range) -> None:
        for number in numbers:
            await queue.put(number)

    async def drain(share: int) -> int:
        total = 0
        for _ in range(share):
            total += await queue.get()
        return total

    return await exchange(feed, drain, tasks)


async def through_stream(tasks: int) -> int:
    sender, receiver = anyio.create_memory_object_stream[int](CAPACITY)

    async def feed(numbers: range) -> None:
        for number in numbers:
            await sender.send(number)

    async def drain(share: int) -> int:
        total = 0
        for _ in range(share):
            total += await receiver.receive()
        return total

    with sender, receiver:
        return await exchange(feed, drain, tasks)


async def through_deque(tasks: int) -> int:
    items: deque[int] = deque()
    room, there = asyncio.Event(), asyncio.Event()

    async def feed(numbers: range) -> None:
        for number in numbers:
            while len(items) >= CAPACITY:
                room.clear()
                await room.wait()
            items.append(number)
            there.set()

    async def drain(share: int) -> int:
        total = 0
        for _ in range(share):
            while not items:
                there.clear()
                await there.wait()
            total += items.popleft()
            if len(items) < CAPACITY:
                room.set()
        return total

    return await exchange(feed, drain, tasks)


for number in (1, 4):
    case = bench.case(
        f"hand-over {number}x{number}, capacity {CAPACITY}", clock="cpu", unit="us/item"
    )
    case.ours("aiopatterns.Channel")(lambda n=number: through_channel(n))
    case.peer("asyncio.Queue", follows="docs.python.org, asyncio queues, the example")(
        lambda n=number: through_queue(n)
    )
    case.peer("anyio memory stream", follows="anyio docs, Streams, Memory object streams")(
        lambda n=number: through_stream(n)
    )
    case.limit("deque and two events")(lambda n=number: through_deque(n))
    case.at_most(0.6, of="asyncio.Queue")
    case.at_most(1 / 8, of="anyio memory stream")


variants = bench.case("other ways in and out, 1x1", clock="cpu", unit="us/item")


@variants.ours("Channel, async for")
async def iterate() -> int:
    channel = Channel[int](CAPACITY)

    async def feed() -> None:
        for number in range(ITEMS):
            await channel.send(number)
        channel.close()

    total = 0
    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        async for number in channel:
            total += number
    return check(total)


@variants.ours("Channel, receive_many(64)")
async def batches() -> int:
    channel = Channel[int](CAPACITY)

    async def feed() -> None:
        for number in range(ITEMS):
            await channel.send(number)

    total = seen = 0
    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        while seen < ITEMS:
            batch = await channel.receive_many(64)
            seen += len(batch)
            total += sum(batch)
    return check(total)


@variants.ours("PriorityChannel")
async def by_priority() -> int:
    channel = PriorityChannel[int](CAPACITY, key=lambda number: number & 7)

    async def feed() -> None:
        for number in range(ITEMS):
            await channel.send(number)

    total = 0
    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        for _ in range(ITEMS):
            total += await channel.receive()
    return check(total)


@variants.peer("asyncio.PriorityQueue", follows="docs.python.org, asyncio queues: pairs")
async def priority_queue() -> int:
    queue: asyncio.PriorityQueue[tuple[int, int]] = asyncio.PriorityQueue(CAPACITY)

    async def feed() -> None:
        for number in range(ITEMS):
            await queue.put((-(number & 7), number))

    total = 0
    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        for _ in range(ITEMS):
            total += (await queue.get())[1]
    return check(total)


if __name__ == "__main__":
    bench.main()
