"""Bounded maps: amap and stream_map, their peers, and bare workers over one iterator.

Two questions, always with limit 100: what an item costs (100k calls that do nothing, CPU time),
and how near the ideal a map gets when calls wait (10k calls of 1 ms, wall time; 100 ms is the
floor). A call that does nothing never suspends, so the sleep case is the honest one for
concurrency. Every contender asserts that all results came, in order where it promises order.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

import aioitertools.asyncio
import aiometer
import aiostream

from aiopatterns.flow import amap, stream_map
from benchmarks.harness import Bench

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Call = Callable[[int], Awaitable[int]]

LIMIT = 100
NOTHINGS = 100_000
NAPS = 10_000

bench = Bench("flow/mapping", versions=("aioitertools", "aiometer", "aiostream"))


async def nothing(number: int) -> int:
    return number


async def nap(number: int) -> int:
    await asyncio.sleep(0.001)
    return number


def check(found: Sequence[int], count: int, *, ordered: bool = True) -> int:
    """Assert that every number is there."""
    assert list(found if ordered else sorted(found)) == list(range(count))
    return count


async def by_amap(call: Call, count: int) -> int:
    return check(await amap(call, range(count), limit=LIMIT), count)


async def by_stream(call: Call, count: int, *, ordered: bool) -> int:
    async with stream_map(call, range(count), LIMIT, ordered=ordered) as results:
        found = [each async for each in results]
    return check(found, count, ordered=ordered)


async def by_workers(call: Call, count: int) -> int:
    """Run the bare loop: workers that share an iterator, no failure, no context, no window."""
    found = [0] * count
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            found[number] = await call(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(LIMIT):
            group.create_task(work())
    return check(found, count)


async def by_semaphore(call: Call, count: int) -> int:
    semaphore = asyncio.Semaphore(LIMIT)

    async def bounded(number: int) -> int:
        async with semaphore:
            return await call(number)

    return check(await asyncio.gather(*map(bounded, range(count))), count)


async def by_aioitertools(call: Call, count: int) -> int:
    found = await aioitertools.asyncio.gather(*map(call, range(count)), limit=LIMIT)
    return check(found, count)


async def by_aiometer(call: Call, count: int) -> int:
    found = []
    async with aiometer.amap(call, range(count), max_at_once=LIMIT) as results:
        async for each in results:
            found.append(each)
    return check(found, count, ordered=False)


async def by_aiostream(call: Call, count: int) -> int:
    numbers = aiostream.stream.iterate(range(count))
    mapped = aiostream.stream.map(numbers, call, ordered=False, task_limit=LIMIT)
    async with mapped.stream() as results:
        found = [each async for each in results]
    return check(found, count, ordered=False)


def contest(name: str, call: Call, count: int, *, clock: str, unit: str) -> object:
    case = bench.case(name, clock=clock, unit=unit)
    bound = functools.partial(functools.partial, call=call, count=count)
    case.ours("amap")(bound(by_amap))
    case.ours("stream_map")(bound(by_stream, ordered=False))
    case.ours("stream_map, ordered")(bound(by_stream, ordered=True))
    case.limit("workers over an iterator")(bound(by_workers))
    case.peer("asyncio.Semaphore and gather", follows="docs.python.org, Synchronization")(
        bound(by_semaphore)
    )
    case.peer("aioitertools.gather", follows="aioitertools docs, asyncio: gather, limit=")(
        bound(by_aioitertools)
    )
    case.peer("aiometer.amap", follows="aiometer README, amap, max_at_once=")(bound(by_aiometer))
    case.peer("aiostream map", follows="aiostream docs, map operator, task_limit=")(
        bound(by_aiostream)
    )
    return case


noops = contest(
    "100k calls that do nothing, limit 100", nothing, NOTHINGS, clock="cpu", unit="us/item"
)
naps = contest("10k calls of 1 ms, limit 100", nap, NAPS, clock="wall", unit="us/item")
for each in ("amap", "stream_map", "stream_map, ordered"):
    noops.under(0.5 if each == "amap" else 1.5, ours=each)
    naps.at_most(1.15, of="workers over an iterator", ours=each)


if __name__ == "__main__":
    bench.main()
