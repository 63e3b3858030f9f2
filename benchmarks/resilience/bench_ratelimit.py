"""Rate limits with a token to spare, and with a thousand tasks in line.

In the first case a contender passes a limiter that never has to wait CALLS times, then calls a
function that returns at once. In the second WAITERS tasks wait for a rate that lets them all
through in a tenth of a second; CPU time shows what the waiting costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiopatterns.resilience import GCRA, Rate, SlidingWindow, TokenBucket
from benchmarks.harness import Bench
from benchmarks.resilience.peers import peer

CALLS = 50_000
WAITERS = 1_000
PLENTY = Rate(1e9)

bench = Bench("resilience/ratelimit", versions=("aiolimiter", "hyx"))
free = bench.case("a token is there, then a call", clock="cpu", unit="us/call")
line = bench.case("1000 tasks in line at 10,000 a second", clock="cpu", unit="us/task")


async def nothing() -> int:
    return 1


async def repeat(call: Callable[[], Awaitable[int]]) -> int:
    done = 0
    for _ in range(CALLS):
        done += await call()
    assert done == CALLS
    return done


async def queue(acquire: Callable[[], Awaitable[object]]) -> int:
    async with asyncio.TaskGroup() as group:
        for _ in range(WAITERS):
            group.create_task(acquire())  # type: ignore[arg-type]
    return WAITERS


@free.ours("aiopatterns.TokenBucket, as a policy")
async def policy() -> int:
    return await repeat(TokenBucket(PLENTY)(nothing))


@free.ours("aiopatterns.TokenBucket.acquire")
async def acquired() -> int:
    bucket = TokenBucket(PLENTY)

    async def call() -> int:
        await bucket.acquire()
        return await nothing()

    return await repeat(call)


@free.ours("aiopatterns.TokenBucket, as a policy with keys")
async def keyed() -> int:
    return await repeat(TokenBucket(PLENTY, key=lambda: "key")(nothing))


@free.ours("aiopatterns.SlidingWindow, as a policy")
async def window() -> int:
    return await repeat(SlidingWindow(PLENTY)(nothing))


@free.limit("bare call")
async def bare() -> int:
    return await repeat(nothing)


@line.ours("aiopatterns.TokenBucket")
async def ours_in_line() -> int:
    return await queue(TokenBucket(Rate(10_000), burst=1).acquire)


@line.ours("aiopatterns.GCRA")
async def gcra_in_line() -> int:
    return await queue(GCRA(Rate(10_000)).acquire)


@line.limit("1000 tasks that sleep 0.1 s")
async def sleepers() -> int:
    return await queue(lambda: asyncio.sleep(0.1))


if (aiolimiter := peer("aiolimiter")) is not None:

    @free.peer("aiolimiter", follows="aiolimiter docs, Usage: async with limiter")
    async def with_aiolimiter() -> int:
        limiter = aiolimiter.AsyncLimiter(1e9, 1)

        async def call() -> int:
            async with limiter:
                return await nothing()

        return await repeat(call)

    free.at_most(0.5, of="aiolimiter")

    @line.peer("aiolimiter", follows="aiolimiter docs, Bursting: max_rate 1, a short period")
    async def aiolimiter_in_line() -> int:
        return await queue(aiolimiter.AsyncLimiter(1, 1 / 10_000).acquire)


if (hyx := peer("hyx.ratelimit")) is not None:

    @free.peer("hyx.tokenbucket (refuses, cannot wait)", follows="hyx docs, Rate limiter")
    async def with_hyx() -> int:
        bucket = hyx.tokenbucket(max_executions=1e9, per_time_secs=1, bucket_size=1e9)
        return await repeat(bucket(nothing))


free.under(0.4)

if __name__ == "__main__":
    bench.main()
