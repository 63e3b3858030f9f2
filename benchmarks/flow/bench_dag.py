"""The cost of a task in a Dag beside plain asyncio tasks that wait for each other.

The peers have no states, retries, priorities, resources or trace: the ratio is what those cost.
"""

from __future__ import annotations

import asyncio
import graphlib

from aiopatterns.flow.dag import Dag
from benchmarks.harness import Bench

WIDTH, DEPTH = 20, 50

bench = Bench("flow/dag")


async def work(**results: int) -> int:
    return 1


def name(level: int, place: int) -> str:
    return f"{level}-{place}"


EDGES = {
    name(level, place): [name(level - 1, place), name(level - 1, (place + 1) % WIDTH)]
    if level
    else []
    for level in range(DEPTH)
    for place in range(WIDTH)
}


def declared(limit: int) -> Dag:
    dag = Dag("layers", limit=limit)
    handles = {}
    for node, before in EDGES.items():
        args = {f"x{number}": handles[each] for number, each in enumerate(before)}
        handles[node] = dag.add(work, id=node, args=args)
    return dag


DAGS = {limit: declared(limit) for limit in (1, 8, 20)}
grid = bench.case("1,000 tasks in 50 layers, two results each", clock="cpu", unit="us/task")


async def run(limit: int) -> int:
    run = await DAGS[limit].run()
    assert run[name(DEPTH - 1, 0)] == 1
    return len(EDGES)


@grid.ours("aiopatterns.Dag, limit 8")
async def eight() -> int:
    return await run(8)


@grid.ours("aiopatterns.Dag, limit 20")
async def twenty() -> int:
    return await run(20)


@grid.peer("asyncio tasks that await each other, unlimited", follows="docs.python.org, Tasks")
async def tasks() -> int:
    made: dict[str, asyncio.Task[int]] = {}

    async def one(before: list[str]) -> int:
        return await work(**{f"x{number}": await made[each] for number, each in enumerate(before)})

    for node, before in EDGES.items():
        made[node] = asyncio.ensure_future(one(before))
    assert sum(await asyncio.gather(*made.values())) == len(EDGES)
    return len(EDGES)


@grid.peer("graphlib + one task each, limit 8", follows="docs.python.org, graphlib")
async def sorter() -> int:
    order = graphlib.TopologicalSorter(EDGES)
    order.prepare()
    values: dict[str, int] = {}
    running: dict[asyncio.Task[int], str] = {}
    ready = list(order.get_ready())
    while order.is_active():
        while ready and len(running) < 8:
            node = ready.pop()
            args = {f"x{number}": values[each] for number, each in enumerate(EDGES[node])}
            running[asyncio.ensure_future(work(**args))] = node
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            node = running.pop(task)
            values[node] = task.result()
            order.done(node)
        ready += order.get_ready()
    assert len(values) == len(EDGES)
    return len(EDGES)


@grid.limit("a loop in topological order")
async def loop() -> int:
    values: dict[str, int] = {}
    for node, before in EDGES.items():
        values[node] = await work(**{f"x{n}": values[each] for n, each in enumerate(before)})
    return len(values)


if __name__ == "__main__":
    bench.main()
