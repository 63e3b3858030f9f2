"""map_reduce over processes beside multiprocessing.Pool, ProcessPoolExecutor and the serial loop.

Every contender starts its two processes inside the measured time and has them warm before the work.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import operator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial

from aiopatterns.flow.executors import Processes
from aiopatterns.flow.mapreduce import map_reduce
from benchmarks.harness import Bench

WORKERS = 2
ITEMS, QUICK = 5_000, 200_000

bench = Bench("flow/mapreduce")


def work(number: int) -> int:
    """About 0.2 ms."""
    total = 0
    for i in range(4_000):
        total += i * number
    return total


def quick(number: int) -> int:
    return number + 1


def serial(fn, items: int) -> int:
    return sum(map(fn, range(items)))


@cache
def expected(fn, items: int) -> int:
    """Not made at import: every worker process imports this module."""
    return serial(fn, items)


def pooled(fn, items: int, chunk: int) -> int:
    with multiprocessing.get_context("forkserver").Pool(WORKERS) as pool:
        pool.map(abs, range(WORKERS * 2))
        return sum(pool.imap(fn, range(items), chunk))


async def with_processes(fn, items: int, **options) -> int:
    async with Processes(WORKERS) as processes:
        await asyncio.gather(*(processes.run(abs, i) for i in range(WORKERS * 2)))
        return await map_reduce(
            range(items), fn, operator.add, initial=int, executor=processes, **options
        )


def executor_map(fn, items: int, chunk: int) -> int:
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(WORKERS, mp_context=context) as pool:
        list(pool.map(abs, range(WORKERS * 2)))
        return sum(pool.map(fn, range(items), chunksize=chunk))


def declare(name: str, fn, items: int, chunk: int) -> None:
    case = bench.case(name, clock="wall", unit="us/item")

    @case.ours("aiopatterns.map_reduce, chunks measured")
    async def ours() -> int:
        assert await with_processes(fn, items) == expected(fn, items)
        return items

    @case.ours("aiopatterns.map_reduce, partial folds")
    async def folded() -> int:
        assert await with_processes(fn, items, combine=operator.add) == expected(fn, items)
        return items

    @case.peer("multiprocessing.Pool.imap", follows="docs.python.org, chunksize")
    async def pool() -> int:
        assert await asyncio.to_thread(pooled, fn, items, chunk) == expected(fn, items)
        return items

    @case.peer("ProcessPoolExecutor.map", follows="docs.python.org, chunksize")
    async def executor() -> int:
        assert await asyncio.to_thread(executor_map, fn, items, chunk) == expected(fn, items)
        return items

    @case.limit("serial loop")
    async def alone() -> int:
        assert serial(fn, items) == expected(fn, items)
        return items


declare("5,000 items of 0.2 ms, pools started inside", work, ITEMS, 100)
declare("200,000 items of nothing, pools started inside", quick, QUICK, 2_000)

calls = bench.case("one call after the other", clock="wall", unit="us/call")
ROUNDS = 2_000


@calls.ours("aiopatterns.Processes.run")
async def call_ours() -> int:
    async with Processes(1) as processes:
        for number in range(ROUNDS):
            assert await processes.run(quick, number) == number + 1
    return ROUNDS


@calls.peer("ProcessPoolExecutor + run_in_executor", follows="docs.python.org, run_in_executor")
async def call_executor() -> int:
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        for number in range(ROUNDS):
            assert await loop.run_in_executor(pool, partial(quick, number)) == number + 1
    return ROUNDS


if __name__ == "__main__":
    bench.main()
