"""What a stage of a pipeline costs: fused with its neighbours, and with a boundary of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice

from aiostream import pipe, stream

from aiopatterns.flow.pipeline import Pipeline
from benchmarks.harness import Bench

ITEMS = 30_000
PEER_ITEMS = 3_000  # aiostream starts a task for each item; more would only take longer
STAGES = 8
WORKERS = 4
SLEEPS = 2_000
SLEEPERS = 50

bench = Bench("flow/pipeline", versions=("aiostream",))


async def step(x: int) -> int:
    return x


def plain_step(x: int) -> int:
    return x


async def pause(x: int) -> int:
    await asyncio.sleep(0.001)
    return x


async def drained(pipeline: Pipeline[int], items: int = ITEMS) -> None:
    report = await pipeline.run()
    assert report.delivered == items
    assert all(stage.processed == items for stage in report.stages)


async def counted(streamed: object, items: int) -> None:
    count = 0
    async with streamed.stream() as results:  # type: ignore[attr-defined]
        async for _ in results:
            count += 1
    assert count == items


# -------------------------------------------------------------------------------- fused stages

fused = bench.case(f"{STAGES} adjacent serial async stages", clock="cpu", unit="us/item and stage")


@fused.ours("Pipeline, async functions")
async def fused_async() -> int:
    pipeline = Pipeline(range(ITEMS))
    for _ in range(STAGES):
        pipeline = pipeline.map(step)
    await drained(pipeline)
    return ITEMS * STAGES


@fused.ours("Pipeline, plain functions")
async def fused_plain() -> int:
    pipeline = Pipeline(range(ITEMS))
    for _ in range(STAGES):
        pipeline = pipeline.map(plain_step)
    await drained(pipeline)
    return ITEMS * STAGES


@fused.peer("aiostream map", follows="aiostream.readthedocs.io, operators, map (task_limit=1)")
async def fused_aiostream() -> int:
    streamed = stream.iterate(range(PEER_ITEMS))
    for _ in range(STAGES):
        streamed = streamed | pipe.map(step, task_limit=1)
    await counted(streamed, PEER_ITEMS)
    return PEER_ITEMS * STAGES


@fused.limit("a loop of awaits, nothing counted")
async def fused_limit() -> int:
    steps = [step] * STAGES
    for x in range(ITEMS):
        value = x
        for each in steps:
            value = await each(value)
        assert value == x
    return ITEMS * STAGES


# ---------------------------------------------------------------------------------- boundaries

boundary = bench.case(f"a stage with {WORKERS} workers, no-op", clock="cpu", unit="us/item")


@boundary.ours("Pipeline, ordered")
async def ordered() -> int:
    await drained(Pipeline(range(ITEMS)).map(step, workers=WORKERS))
    return ITEMS


@boundary.ours("Pipeline, unordered")
async def unordered() -> int:
    await drained(Pipeline(range(ITEMS)).map(step, workers=WORKERS, ordered=False))
    return ITEMS


@boundary.ours("Pipeline, ordered by key")
async def keyed() -> int:
    await drained(Pipeline(range(ITEMS)).map(step, key=lambda x: x % 16, workers=WORKERS))
    return ITEMS


@boundary.ours("Pipeline, three such stages in a row, each")
async def three() -> int:
    pipeline = Pipeline(range(ITEMS))
    for _ in range(3):
        pipeline = pipeline.map(step, workers=WORKERS)
    await drained(pipeline)
    return 3 * ITEMS


@boundary.ours("Pipeline without a stage: source and output alone")
async def no_stage() -> int:
    await drained(Pipeline(range(ITEMS)))
    return ITEMS


@boundary.peer("aiostream map", follows="aiostream.readthedocs.io, operators, map (task_limit)")
async def aiostream_map() -> int:
    streamed = stream.iterate(range(PEER_ITEMS)) | pipe.map(step, task_limit=WORKERS)
    await counted(streamed, PEER_ITEMS)
    return PEER_ITEMS


@boundary.peer("asyncio.Queue and workers, by hand, unordered", follows="docs.python.org, Queues")
async def queues() -> int:
    inbox: asyncio.Queue[int] = asyncio.Queue(100)
    outbox: asyncio.Queue[int] = asyncio.Queue(100)

    async def work() -> None:
        while True:
            await outbox.put(await step(await inbox.get()))

    async def feed() -> None:
        for x in range(ITEMS):
            await inbox.put(x)

    tasks = [asyncio.ensure_future(work()) for _ in range(WORKERS)]
    tasks.append(asyncio.ensure_future(feed()))
    for _ in range(ITEMS):
        await outbox.get()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return ITEMS


@boundary.limit("workers over one iterator, nothing ordered or counted")
async def iterator() -> int:
    results: deque[int] = deque()
    items = iter(range(ITEMS))

    async def work() -> None:
        for x in items:
            results.append(await step(x))

    await asyncio.gather(*(work() for _ in range(WORKERS)))
    assert len(results) == ITEMS
    return ITEMS


# -------------------------------------------------------------------------------------- batches

batches = bench.case("batches of 100", clock="cpu", unit="us/item")


@batches.ours("Pipeline.batch(100, within=1)")
async def batch() -> int:
    report = await Pipeline(range(ITEMS)).batch(100, within=1.0).run()
    assert report.delivered == ITEMS // 100
    return ITEMS


@batches.peer("aiostream chunks", follows="aiostream.readthedocs.io, operators, chunks (no timer)")
async def chunks() -> int:
    await counted(stream.iterate(range(ITEMS)) | pipe.chunks(100), ITEMS // 100)
    return ITEMS


@batches.limit("islice")
async def sliced() -> int:
    items = iter(range(ITEMS))
    count = 0
    while list(islice(items, 100)):
        count += 1
    assert count == ITEMS // 100
    return ITEMS


# ---------------------------------------------------------------------------- work that waits

waits = bench.case(
    f"three stages of {SLEEPERS} workers, {SLEEPS} items, each 1 ms a stage",
    clock="wall",
    unit="ms/run",
)


@waits.ours("Pipeline, ordered")
async def waiting() -> int:
    pipeline = Pipeline(range(SLEEPS))
    for _ in range(3):
        pipeline = pipeline.map(pause, workers=SLEEPERS)
    await drained(pipeline, SLEEPS)
    return 1


@waits.peer("aiostream map", follows="aiostream.readthedocs.io, operators, map (task_limit)")
async def aiostream_waiting() -> int:
    streamed = stream.iterate(range(SLEEPS))
    for _ in range(3):
        streamed = streamed | pipe.map(pause, task_limit=SLEEPERS)
    await counted(streamed, SLEEPS)
    return 1


@waits.limit("150 workers, each taking an item through all three")
async def waiting_limit() -> int:
    items = iter(range(SLEEPS))

    async def work() -> None:
        for x in items:
            await pause(await pause(await pause(x)))

    await asyncio.gather(*(work() for _ in range(3 * SLEEPERS)))
    return 1


if __name__ == "__main__":
    bench.main()
