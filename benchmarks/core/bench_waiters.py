"""Waiting lines: one task parks, another wakes it; the price of one round."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiopatterns.core.clock import yield_now
from aiopatterns.core.waiters import PriorityWaiters, Waiters
from benchmarks.harness import Bench

ROUNDS = 20_000
bench = Bench("core/waiters")
parking = bench.case("park and wake", clock="cpu", unit="us/round")


async def rounds(park: Callable[[], Awaitable[object]], wake: Callable[[], object]) -> int:
    """Let one task park ``ROUNDS`` times, woken by this one in its every turn."""

    async def parked() -> None:
        for _ in range(ROUNDS):
            await park()

    task = asyncio.ensure_future(parked())
    await yield_now()
    while not task.done():
        wake()
        await yield_now()
    await task
    return ROUNDS


@parking.ours("Waiters")
async def waiters() -> int:
    line = Waiters()
    return await rounds(line.wait, line.wake)


@parking.ours("PriorityWaiters")
async def priority_waiters() -> int:
    line = PriorityWaiters()
    return await rounds(line.wait, line.wake)


@parking.peer("asyncio.Semaphore", follows="docs.python.org, Synchronization Primitives")
async def semaphore() -> int:
    free = asyncio.Semaphore(0)

    def release() -> None:
        if free.locked():
            free.release()

    return await rounds(free.acquire, release)


@parking.peer("asyncio.Event", follows="docs.python.org, Synchronization Primitives")
async def event() -> int:
    happened = asyncio.Event()

    async def park() -> None:
        await happened.wait()
        happened.clear()

    return await rounds(park, happened.set)


@parking.limit("a bare future")
async def future() -> int:
    loop = asyncio.get_running_loop()
    line: list[asyncio.Future[None]] = []

    async def park() -> None:
        parked = loop.create_future()
        line.append(parked)
        await parked

    def wake() -> None:
        if line:
            line.pop().set_result(None)

    return await rounds(park, wake)


if __name__ == "__main__":
    bench.main()
