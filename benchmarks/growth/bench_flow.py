"""How the cost of flow grows: items through channels, pools and stages; tasks of a graph."""

from __future__ import annotations

import asyncio
import operator

from aiopatterns.flow import Channel, Dag, Pipeline, WorkerPool, amap, map_reduce, stream_map
from benchmarks.growing import Growth, Meter

AT_ONCE = 100

growth = Growth("growth/flow")


async def echo(item: int) -> int:
    return item


@growth.pattern("Channel", load="items", once=2_000, operation="hand-over")
async def channel(load: int, meter: Meter) -> None:
    through = Channel[int](AT_ONCE)

    async def feed() -> None:
        for item in range(load):
            await through.send(item)
        through.close()

    with meter.over(load):
        feeder = asyncio.create_task(feed())
        total = sum([1 async for _ in through])
        await feeder
    assert total == load


@growth.pattern("Channel that waits for its consumer", load="items", once=2_000, operation="item")
async def backlog(load: int, meter: Meter) -> None:
    through = Channel[int](load)
    with meter.over(load):
        for item in range(load):
            await through.send(item)
        for item in range(load):
            assert await through.receive() == item


@growth.pattern("amap", load="items", once=2_000, operation="item")
async def mapped(load: int, meter: Meter) -> None:
    with meter.over(load):
        found = await amap(echo, range(load), limit=AT_ONCE)
    assert len(found) == load


@growth.pattern("stream_map, ordered", load="items", once=2_000, operation="item")
async def streamed(load: int, meter: Meter) -> None:
    seen = 0
    with meter.over(load):
        async with stream_map(echo, range(load), limit=AT_ONCE, ordered=True) as results:
            async for _ in results:
                seen += 1
    assert seen == load


@growth.pattern("WorkerPool", load="items", once=1_000, operation="item")
async def pooled(load: int, meter: Meter) -> None:
    seen = 0
    with meter.over(load):
        async with WorkerPool(echo, workers=8) as pool, pool.stream(range(load)) as outcomes:
            async for _ in outcomes:
                seen += 1
    assert seen == load


@growth.pattern("WorkerPool, idle workers", load="workers", once=10, operation="item")
async def crowded(load: int, meter: Meter) -> None:
    async with WorkerPool(echo, workers=load) as pool:
        with meter.over(2_000):
            for item in range(2_000):
                assert await pool.run(item) == item


@growth.pattern("Pipeline of three stages", load="items", once=1_000, operation="item")
async def pipeline(load: int, meter: Meter) -> None:
    with meter.over(load):
        stages = Pipeline(range(load)).map(echo, workers=4).map(echo).map(echo, workers=4)
        report = await stages.run()
    assert report.delivered == load


@growth.pattern("map_reduce in this process", load="items", once=2_000, operation="item")
async def reduced(load: int, meter: Meter) -> None:
    with meter.over(load):
        total = await map_reduce(range(load), abs, operator.add, initial=int)
    assert total == load * (load - 1) // 2


@growth.pattern("Dag, layers of 10 tasks", load="tasks", once=100, operation="task")
async def layers(load: int, meter: Meter) -> None:
    async def work(**results: int) -> int:
        return 1

    dag, before = Dag("layers"), []
    for level in range(load // 10):
        args = {f"x{place}": task for place, task in enumerate(before[:2])}
        before = [dag.add(work, id=f"{level}-{place}", args=args) for place in range(10)]
    with meter.over(load):
        run = await dag.run()
    assert run[f"{load // 10 - 1}-0"] == 1


if __name__ == "__main__":
    growth.main()
