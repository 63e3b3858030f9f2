"""Memory stays flat: many items through each pattern, and no more afterwards than before.

The short form runs with every test command; the long form by ``make stress``.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

import pytest

from aiopatterns import Channel, Pipeline, WorkerPool, amap, produce_consume, stream_map

pytestmark = pytest.mark.real
ROUNDS = [
    pytest.param(5_000, id="short"),
    pytest.param(300_000, id="long", marks=[pytest.mark.stress, pytest.mark.timeout(1_800)]),
]
MIB_PER_100K = 1.0


async def echo(item: int) -> int:
    return item


async def through_channel(items: int) -> None:
    channel = Channel[int](100)

    async def feed() -> None:
        for item in range(items):
            await channel.send(item)
        channel.close()

    feeder = asyncio.create_task(feed())
    assert sum([1 async for _ in channel]) == items
    await feeder


async def through_amap(items: int) -> None:
    assert len(await amap(echo, range(items), limit=10)) == items


async def through_stream_map(items: int) -> None:
    async with stream_map(echo, range(items), limit=10) as results:
        assert sum([1 async for _ in results]) == items


async def through_pool(items: int) -> None:
    async with WorkerPool(echo, workers=4) as pool, pool.stream(range(items)) as outcomes:
        assert sum([1 async for _ in outcomes]) == items


async def through_pipeline(items: int) -> None:
    seen = 0

    async def count(batch: list[int]) -> None:
        nonlocal seen
        seen += len(batch)

    await Pipeline(range(items)).map(echo, workers=4).batch(100).run(into=count)
    assert seen == items


async def through_producers(items: int) -> None:
    report = await produce_consume([range(items)], echo)
    assert report.consumed == items


@pytest.mark.untraced
@pytest.mark.promise("flow-no-leaks")
@pytest.mark.parametrize("items", ROUNDS)
@pytest.mark.parametrize(
    "pattern",
    [
        through_channel,
        through_amap,
        through_stream_map,
        through_pool,
        through_pipeline,
        through_producers,
    ],
)
async def test_memory_stays_flat(pattern, items):
    await pattern(min(items, 20_000))  # warm-up: caches, free lists, histograms
    tracemalloc.start()
    try:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        await pattern(items)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    allowed = max(items / 100_000, 0.1) * MIB_PER_100K * 1024 * 1024
    assert after - before <= allowed
    assert len(asyncio.all_tasks()) == 1
