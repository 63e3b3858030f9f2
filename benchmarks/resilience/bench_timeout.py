"""The cost of a timeout that does not fire: ours, the cancel scopes it is made of, asyncio's.

A contender awaits a function that returns at once, CALLS times, each under a timeout of 10 s. The
peers are used as in their documentation, a fresh block for each call.
"""

from __future__ import annotations

import asyncio

import anyio

from aiopatterns.resilience import Timeout
from benchmarks.harness import Bench

CALLS = 20_000

bench = Bench("resilience/timeout")
quick = bench.case("a call that ends in time", clock="cpu", unit="us/call")


async def nothing() -> int:
    return 1


@quick.ours("aiopatterns.Timeout")
async def decorated() -> int:
    call = Timeout(10)(nothing)
    return sum([await call() for _ in range(CALLS)])


@quick.ours("aiopatterns.Timeout.scope")
async def scoped() -> int:
    timeout, done = Timeout(10), 0
    for _ in range(CALLS):
        with timeout.scope():
            done += await nothing()
    return done


@quick.peer("asyncio.timeout", follows="docs.python.org, Coroutines and Tasks: Timeouts")
async def of_asyncio() -> int:
    done = 0
    for _ in range(CALLS):
        async with asyncio.timeout(10):
            done += await nothing()
    return done


@quick.peer("anyio.fail_after", follows="anyio docs, Cancellation and timeouts: Timeouts")
async def of_anyio() -> int:
    done = 0
    for _ in range(CALLS):
        with anyio.fail_after(10):
            done += await nothing()
    return done


@quick.peer("anyio.CancelScope, no deadline", follows="anyio docs, Cancellation and timeouts")
async def bare_scope() -> int:
    done = 0
    for _ in range(CALLS):
        with anyio.CancelScope():
            done += await nothing()
    return done


@quick.limit("bare call")
async def bare() -> int:
    return sum([await nothing() for _ in range(CALLS)])


quick.at_most(1.2, of="anyio.CancelScope, no deadline")
quick.at_most(1.2, of="anyio.CancelScope, no deadline", ours="aiopatterns.Timeout.scope")

if __name__ == "__main__":
    bench.main()
