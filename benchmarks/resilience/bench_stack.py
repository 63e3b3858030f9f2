"""Stacks: what several policies cost together, compiled and by hand.

A contender awaits a function that returns at once, CALLS times, under a total timeout, a retry, a
rate limit and a timeout for each attempt. The peers are the same things of other libraries, each
used as in its documentation and nested by hand, as they have no stacks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from aiopatterns.resilience import Rate, Retry, Stack, Timeout, TokenBucket
from benchmarks.harness import Bench
from benchmarks.resilience.peers import peer

CALLS = 10_000
PLENTY = Rate(1e9)

bench = Bench("resilience/stack", versions=("stamina", "aiolimiter"))
three = bench.case("retry, rate limit, timeout", clock="cpu", unit="us/call")
four = bench.case("timeout, retry, rate limit, timeout", clock="cpu", unit="us/call")


async def nothing() -> int:
    return 1


def stack_of_three() -> Stack:
    return Stack(Retry(OSError), TokenBucket(PLENTY), Timeout(2))


def stack_of_four() -> Stack:
    return Stack(Timeout(10), Retry(OSError), TokenBucket(PLENTY), Timeout(2))


@three.ours("aiopatterns.Stack")
async def ours_three() -> int:
    call = stack_of_three()(nothing)
    return sum([await call() for _ in range(CALLS)])


@three.ours("aiopatterns.Stack.call")
async def ours_three_called() -> int:
    stack = stack_of_three()
    return sum([await stack.call(nothing) for _ in range(CALLS)])


@four.ours("aiopatterns.Stack")
async def ours_four() -> int:
    call = stack_of_four()(nothing)
    return sum([await call() for _ in range(CALLS)])


@three.limit("bare call")
@four.limit("bare call")
async def bare() -> int:
    return sum([await nothing() for _ in range(CALLS)])


stamina, aiolimiter = peer("stamina"), peer("aiolimiter")
if stamina is not None and aiolimiter is not None:

    def nested() -> Callable[[], Awaitable[int]]:
        limiter = aiolimiter.AsyncLimiter(1e9, 1)

        async def attempt() -> int:
            async with limiter:
                with anyio.fail_after(2):
                    return await nothing()

        call: Callable[[], Awaitable[int]] = stamina.retry(on=OSError, attempts=5)(attempt)
        return call

    @three.peer("stamina + aiolimiter + anyio.fail_after", follows="their tutorials, nested")
    async def peers_three() -> int:
        call = nested()
        return sum([await call() for _ in range(CALLS)])

    @four.peer("stamina + aiolimiter + anyio.fail_after", follows="their tutorials, nested")
    async def peers_four() -> int:
        call, done = nested(), 0
        for _ in range(CALLS):
            with anyio.fail_after(10):
                done += await call()
        return done

    three.at_most(0.2, of="stamina + aiolimiter + anyio.fail_after")
    four.at_most(0.25, of="stamina + aiolimiter + anyio.fail_after")

if __name__ == "__main__":
    bench.main()
