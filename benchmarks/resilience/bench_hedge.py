"""Hedges that do not fire, and hedges that do.

First a call that is quick goes through a hedge that waits much longer. Then every call is late,
so that a hedge begins, wins, and the primary is cancelled and awaited. The contenders beside it do
the same by hand, as recipes on the web do it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio

from aiopatterns.resilience import Hedge
from benchmarks.harness import Bench

QUICK = 10_000
LATE = 1_000

bench = Bench("resilience/hedge")
quick = bench.case("no hedge is needed", clock="cpu", unit="us/call")
late = bench.case("the hedge wins", clock="cpu", unit="us/call")

Call = Callable[[], Awaitable[int]]


async def turn() -> int:
    await asyncio.sleep(0)
    return 1


class Late:
    """Every other call waits until it is cancelled."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.calls % 2 == 0:
            return 1
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled += 1
        return 0


async def repeat(call: Call, times: int) -> int:
    done = 0
    for _ in range(times):
        done += await call()
    assert done == times
    return done


async def all_late(hedged: Callable[[Call], Call]) -> int:
    work = Late()
    done = await repeat(hedged(work), LATE)
    assert (work.calls, work.cancelled) == (2 * LATE, LATE)
    return done


def by_wait(after: float) -> Callable[[Call], Call]:
    """Tasks and ``asyncio.wait``; the loser is cancelled and awaited."""

    def hedged(fn: Call) -> Call:
        async def call() -> int:
            first = asyncio.ensure_future(fn())
            done, _ = await asyncio.wait([first], timeout=after)
            if done:
                return first.result()
            tasks = [first, asyncio.ensure_future(fn())]
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            return done.pop().result()

        return call

    return hedged


@quick.ours("aiopatterns.Hedge")
async def ours_quick() -> int:
    return await repeat(Hedge(60)(turn), QUICK)


@quick.ours("aiopatterns.Hedge, the time found out")
async def found_out() -> int:
    return await repeat(Hedge()(turn), QUICK)


@quick.peer("task and asyncio.wait, by hand", follows="docs.python.org, Coroutines and Tasks: wait")
async def wait_quick() -> int:
    return await repeat(by_wait(60)(turn), QUICK)


@quick.limit("an anyio task group around the call")
async def group() -> int:
    async def call() -> int:
        async with anyio.create_task_group():
            return await turn()

    return await repeat(call, QUICK)


@late.ours("aiopatterns.Hedge")
async def ours_late() -> int:
    return await all_late(Hedge(0))


@late.peer("tasks and asyncio.wait, by hand", follows="docs.python.org, Coroutines and Tasks: wait")
async def wait_late() -> int:
    return await all_late(by_wait(0))


if __name__ == "__main__":
    bench.main()
