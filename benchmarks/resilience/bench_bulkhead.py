"""Bulkheads with a permit to spare, with a line, and refusing.

First a contender passes a bulkhead of 20 that is nearly empty CALLS times and calls a function
that returns at once. Then WAITERS tasks go through a bulkhead of 10, each holding its permit for
one turn of the loop. Last, a full bulkhead refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio

from aiopatterns.core.errors import BulkheadFullError, OverloadedError
from aiopatterns.resilience import AIMD, AdaptiveLimit, Bulkhead, Gradient, Throttle
from benchmarks.harness import Bench
from benchmarks.resilience.peers import peer

CALLS = 50_000
WAITERS = 2_000
SEMAPHORE = "asyncio.Semaphore"

bench = Bench("resilience/bulkhead", versions=("hyx",))
free = bench.case("a permit is free, then a call", clock="cpu", unit="us/call")
block = bench.case("a permit is free, as a block", clock="cpu", unit="us/call")
line = bench.case("2000 tasks through 10 permits", clock="cpu", unit="us/task")
full = bench.case("refused", clock="cpu", unit="us/call")
adaptive = bench.case("adaptive limits and throttles", clock="cpu", unit="us/call")

Call = Callable[[], Awaitable[int]]


async def nothing() -> int:
    return 1


async def turn() -> int:
    await asyncio.sleep(0)
    return 1


async def repeat(call: Call) -> int:
    done = 0
    for _ in range(CALLS):
        done += await call()
    assert done == CALLS
    return done


async def queue(call: Call) -> int:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call()) for _ in range(WAITERS)]  # type: ignore[arg-type]
    assert sum(task.result() for task in tasks) == WAITERS
    return WAITERS


async def refuse(call: Call, *refusal: type[Exception]) -> int:
    refused = 0
    for _ in range(CALLS):
        try:
            await call()
        except refusal:
            refused += 1
    assert refused == CALLS
    return refused


def inside(manager: object, fn: Call) -> Call:
    """A function that calls ``fn`` inside an async context manager that may be entered often."""

    async def call() -> int:
        async with manager:  # type: ignore[attr-defined]
            return await fn()

    return call


@free.ours("aiopatterns.Bulkhead, as a policy")
async def policy() -> int:
    return await repeat(Bulkhead(20)(nothing))


@free.ours("aiopatterns.Bulkhead, as a policy, the last permit")
async def last_permit() -> int:
    return await repeat(Bulkhead(1)(nothing))


@free.limit("bare call")
@block.limit("bare call")
@adaptive.limit("bare call")
async def bare() -> int:
    return await repeat(nothing)


@block.ours("aiopatterns.Bulkhead.slot")
async def slot() -> int:
    bulkhead = Bulkhead(20)

    async def call() -> int:
        async with bulkhead.slot():
            return await nothing()

    return await repeat(call)


@free.peer(SEMAPHORE, follows="docs.python.org, Synchronization Primitives: async with sem")
@block.peer(SEMAPHORE, follows="docs.python.org, Synchronization Primitives: async with sem")
async def semaphore() -> int:
    return await repeat(inside(asyncio.Semaphore(20), nothing))


@free.peer("anyio.Semaphore, fast_acquire", follows="anyio docs, Semaphores: fast_acquire=True")
@block.peer("anyio.Semaphore, fast_acquire", follows="anyio docs, Semaphores: fast_acquire=True")
async def anyio_semaphore() -> int:
    return await repeat(inside(anyio.Semaphore(20, fast_acquire=True), nothing))


@free.peer("anyio.CapacityLimiter", follows="anyio docs, Capacity limiters: async with limiter")
@block.peer("anyio.CapacityLimiter", follows="anyio docs, Capacity limiters: async with limiter")
async def capacity_limiter() -> int:
    return await repeat(inside(anyio.CapacityLimiter(20), nothing))


@line.ours("aiopatterns.Bulkhead")
async def ours_in_line() -> int:
    return await queue(Bulkhead(10, max_queue=WAITERS)(turn))


@line.ours("aiopatterns.Bulkhead, by priority")
async def priority_in_line() -> int:
    return await queue(Bulkhead(10, max_queue=WAITERS, order="priority")(turn))


@line.ours("aiopatterns.Bulkhead, with max_wait")
async def bounded_in_line() -> int:
    return await queue(Bulkhead(10, max_queue=WAITERS, max_wait=60)(turn))


@line.peer(SEMAPHORE, follows="docs.python.org, Synchronization Primitives: async with sem")
async def semaphore_in_line() -> int:
    return await queue(inside(asyncio.Semaphore(10), turn))


@line.peer("anyio.Semaphore, fast_acquire", follows="anyio docs, Semaphores: fast_acquire=True")
async def anyio_semaphore_in_line() -> int:
    return await queue(inside(anyio.Semaphore(10, fast_acquire=True), turn))


@line.peer("anyio.CapacityLimiter", follows="anyio docs, Capacity limiters: async with limiter")
async def capacity_limiter_in_line() -> int:
    return await queue(inside(anyio.CapacityLimiter(10), turn))


@line.limit("2000 tasks that take a turn")
async def turns() -> int:
    return await queue(turn)


@full.ours("aiopatterns.Bulkhead")
async def ours_full() -> int:
    return await refuse(Bulkhead(0)(nothing), BulkheadFullError)


@adaptive.ours("aiopatterns.AdaptiveLimit(AIMD)")
async def aimd() -> int:
    return await repeat(AdaptiveLimit(AIMD())(nothing))


@adaptive.ours("aiopatterns.AdaptiveLimit(Gradient)")
async def gradient() -> int:
    return await repeat(AdaptiveLimit(Gradient())(nothing))


@adaptive.ours("aiopatterns.Throttle")
async def throttle() -> int:
    return await repeat(Throttle()(nothing))


@full.ours("aiopatterns.AdaptiveLimit")
async def adaptive_full() -> int:
    limit = AdaptiveLimit(AIMD(initial=1))

    @limit
    async def call() -> int:
        return await refuse(limit(nothing), OverloadedError)

    return await call()


if (hyx := peer("hyx.bulkhead")) is not None:

    @free.peer("hyx.bulkhead", follows="hyx docs, Bulkhead: as a decorator")
    async def with_hyx() -> int:
        return await repeat(hyx.bulkhead(max_concurrency=20, max_capacity=40)(nothing))

    @block.peer("hyx.bulkhead", follows="hyx docs, Bulkhead: as a context manager")
    async def hyx_block() -> int:
        return await repeat(inside(hyx.bulkhead(max_concurrency=20, max_capacity=40), nothing))

    @line.peer("hyx.bulkhead", follows="hyx docs, Bulkhead: as a decorator")
    async def hyx_in_line() -> int:
        return await queue(hyx.bulkhead(max_concurrency=10, max_capacity=WAITERS + 10)(turn))

    @full.peer("hyx.bulkhead", follows="hyx docs, Bulkhead: as a decorator")
    async def hyx_full() -> int:
        from hyx.bulkhead.exceptions import BulkheadFull

        bulkhead = hyx.bulkhead(max_concurrency=1, max_capacity=1)

        @bulkhead
        async def call() -> int:
            return await refuse(bulkhead(nothing), BulkheadFull)

        return await call()


free.at_most(0.5, of=SEMAPHORE)
free.under(0.4)
block.at_most(0.5, of=SEMAPHORE)

if __name__ == "__main__":
    bench.main()
