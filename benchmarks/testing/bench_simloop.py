"""What a simulated run costs beside a real loop, with 4 workers and an hour's timeout around."""

from __future__ import annotations

import asyncio

import anyio

from aiopatterns.testing import SimLoop, explore
from benchmarks.harness import Bench

RUNS = 200
ITEMS = 20
WORKERS = 4


async def scenario() -> None:
    """Four workers take twenty items from a bounded queue; nobody waits for the hour."""
    queue: asyncio.Queue[int | None] = asyncio.Queue(3)
    done: list[int] = []

    async def worker() -> None:
        while (item := await queue.get()) is not None:
            await anyio.sleep(0)
            done.append(item)

    with anyio.move_on_after(3600):
        async with anyio.create_task_group() as group:
            for _ in range(WORKERS):
                group.start_soon(worker)
            for item in [*range(ITEMS), *[None] * WORKERS]:
                await queue.put(item)
    assert sorted(done) == [*range(ITEMS)]


def on_loops(make: type[asyncio.AbstractEventLoop]) -> None:
    for _ in range(RUNS):
        with asyncio.Runner(loop_factory=make) as runner:
            runner.run(scenario())


bench = Bench("testing/simloop")
runs = bench.case(f"a run of {WORKERS} workers and {ITEMS} items", clock="cpu", unit="ms/run")


@runs.ours("explore")
async def explored() -> int:
    # A simulation brings its own loop, so it runs in a thread without one.
    await asyncio.to_thread(explore, scenario, range(RUNS))
    return RUNS


@runs.ours("SimLoop, seed 0")
async def in_order() -> int:
    await asyncio.to_thread(on_loops, SimLoop)
    return RUNS


@runs.limit("asyncio's loop")
async def real() -> int:
    await asyncio.to_thread(on_loops, asyncio.SelectorEventLoop)
    return RUNS


# 200 seeds of such a scenario in half a second means 2.5 ms each; this is far below.

if __name__ == "__main__":
    bench.main()
