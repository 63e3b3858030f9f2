"""scatter_gather beside asyncio.gather and anyio's own gathering."""

from __future__ import annotations

import asyncio

import anyio

from aiopatterns.flow.gathering import scatter_gather
from benchmarks.harness import Bench

CALLS, ROUNDS = 10, 200

bench = Bench("flow/gathering")


async def call() -> int:
    await asyncio.sleep(0)
    return 1


ten = bench.case("10 calls that wait one turn", clock="cpu", unit="us/call")


@ten.ours("aiopatterns.scatter_gather")
async def ours() -> int:
    calls = [call] * CALLS
    for _ in range(ROUNDS):
        assert len((await scatter_gather(calls)).values) == CALLS
    return ROUNDS * CALLS


@ten.peer("asyncio.gather", follows="docs.python.org, Running Tasks Concurrently")
async def gather() -> int:
    for _ in range(ROUNDS):
        found = await asyncio.gather(*(call() for _ in range(CALLS)), return_exceptions=True)
        assert len(found) == CALLS
    return ROUNDS * CALLS


@ten.peer("anyio task group", follows="anyio.readthedocs.io, Creating and managing tasks")
async def group() -> int:
    for _ in range(ROUNDS):
        found: list[int] = []

        async def keep() -> None:
            found.append(await call())

        async with anyio.create_task_group() as tasks:
            for _ in range(CALLS):
                tasks.start_soon(keep)
        assert len(found) == CALLS
    return ROUNDS * CALLS


@ten.limit("one after the other")
async def serial() -> int:
    for _ in range(ROUNDS):
        assert sum([await call() for _ in range(CALLS)]) == CALLS
    return ROUNDS * CALLS


first = bench.case("first 2 of 10, the losers cancelled and awaited", clock="cpu", unit="us/call")


async def loser() -> int:
    await asyncio.sleep(60)
    return 0


@first.ours("aiopatterns.scatter_gather(need=2)")
async def quorum() -> int:
    calls = [call, call, *[loser] * (CALLS - 2)]
    for _ in range(ROUNDS):
        assert len((await scatter_gather(calls, need=2)).values) == 2
    return ROUNDS * CALLS


@first.peer("asyncio.wait by hand", follows="docs.python.org, Waiting Primitives")
async def waiting() -> int:
    for _ in range(ROUNDS):
        pending = {asyncio.ensure_future(each()) for each in [call, call, *[loser] * (CALLS - 2)]}
        done: set[asyncio.Future[int]] = set()
        while len(done) < 2:
            ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            done |= ended
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        assert len(done) == 2
    return ROUNDS * CALLS


if __name__ == "__main__":
    bench.main()
