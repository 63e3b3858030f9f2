"""Stacks: what several policies cost together, compiled and by hand.

A contender awaits a function that returns at once, CALLS times, under a stack of policies. The
peers are the same things of other libraries, each used as in its documentation and nested by hand
in the same order, as they have no stacks. A limit on calls at once is compared with one, and a
limit on their rate with one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from aiopatterns.resilience import (
    Bulkhead,
    CircuitBreaker,
    Fallback,
    Rate,
    Retry,
    Stack,
    Timeout,
    TokenBucket,
)
from benchmarks.harness import Bench
from benchmarks.resilience.peers import peer

CALLS = 10_000
PLENTY = Rate(1e9)

bench = Bench(
    "resilience/stack", versions=("stamina", "purgatory-circuitbreaker", "aiolimiter", "anyio")
)
four = bench.case("retry, breaker, limiter, timeout", clock="cpu", unit="us/call")
three = bench.case("retry, rate limit, timeout", clock="cpu", unit="us/call")
standard = bench.case("Stack.standard, all seven", clock="cpu", unit="us/call")


async def nothing() -> int:
    return 1


def stack_of_four() -> Stack:
    return Stack(Retry(OSError), CircuitBreaker("bench"), Bulkhead(20), Timeout(2))


def stack_of_three() -> Stack:
    return Stack(Retry(OSError), TokenBucket(PLENTY), Timeout(2))


def stack_of_seven() -> Stack:
    return Stack.standard(
        fallback=Fallback(0, on=OSError),
        total=10,
        retry=Retry(OSError),
        breaker=CircuitBreaker("bench"),
        rate=TokenBucket(PLENTY),
        bulkhead=Bulkhead(20),
        attempt=2,
    )


async def repeated(call: Callable[[], Awaitable[int]]) -> int:
    return sum([await call() for _ in range(CALLS)])


@four.ours("aiopatterns.Stack")
async def ours_four() -> int:
    return await repeated(stack_of_four()(nothing))


@four.ours("aiopatterns.Stack.call")
async def ours_four_called() -> int:
    stack = stack_of_four()
    return sum([await stack.call(nothing) for _ in range(CALLS)])


@three.ours("aiopatterns.Stack")
async def ours_three() -> int:
    return await repeated(stack_of_three()(nothing))


@standard.ours("aiopatterns.Stack.standard")
async def ours_seven() -> int:
    return await repeated(stack_of_seven()(nothing))


@four.limit("bare call")
@three.limit("bare call")
@standard.limit("bare call")
async def bare() -> int:
    return await repeated(nothing)


stamina, purgatory, aiolimiter = peer("stamina"), peer("purgatory"), peer("aiolimiter")

if stamina is not None and purgatory is not None:
    FOUR = "stamina + purgatory + anyio.CapacityLimiter + anyio.fail_after"

    @four.peer(FOUR, follows="their tutorials, nested")
    async def peers_four() -> int:
        limiter = anyio.CapacityLimiter(20)

        @stamina.retry(on=OSError, attempts=5)
        @purgatory.AsyncCircuitBreakerFactory()("bench")
        async def attempt() -> int:
            async with limiter:
                with anyio.fail_after(2):
                    return await nothing()

        return await repeated(attempt)

    four.at_most(0.2, of=FOUR)


if stamina is not None and aiolimiter is not None:
    THREE = "stamina + aiolimiter + anyio.fail_after"

    @three.peer(THREE, follows="their tutorials, nested")
    async def peers_three() -> int:
        limiter = aiolimiter.AsyncLimiter(1e9, 1)

        @stamina.retry(on=OSError, attempts=5)
        async def attempt() -> int:
            async with limiter:
                with anyio.fail_after(2):
                    return await nothing()

        return await repeated(attempt)

    three.at_most(0.2, of=THREE)


if __name__ == "__main__":
    bench.main()
