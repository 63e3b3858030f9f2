"""A decorated function keeps its types, under both checkers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, assert_type

from aiopatterns.resilience import (
    GCRA,
    Chaos,
    Fallback,
    Grant,
    Limiter,
    Policy,
    Rate,
    Retry,
    SingleFlight,
    SlidingWindow,
    Stack,
    Timeout,
    TokenBucket,
)

retry = Retry(OSError)


@retry
async def load(key: int, *, text: str = "") -> bytes:
    return f"{key}{text}".encode()


@Stack(Timeout(1), retry)
async def iterate(n: int) -> AsyncIterator[int]:
    yield n


@Timeout(1)
async def generate(n: int) -> AsyncGenerator[str, None]:
    yield str(n)


class Client:
    @retry
    async def get(self, n: int) -> int:
        return n


async def types_are_kept() -> None:
    assert_type(await load(1, text="a"), bytes)
    assert_type(await retry.call(load, 1, text="b"), bytes)
    assert_type(iterate(1), AsyncIterator[int])
    assert_type([item async for item in iterate(1)], list[int])
    assert_type([item async for item in generate(1)], list[str])
    assert_type(await Client().get(2), int)
    assert_type(Client().get(3), Coroutine[Any, Any, int]).close()


async def limiters_are_limiters_and_policies() -> None:
    limiters: list[Limiter] = [TokenBucket(Rate(1)), GCRA(Rate(1)), SlidingWindow(Rate(1))]
    policies: list[Policy] = [TokenBucket(Rate(1)), Retry(OSError), Timeout(1), Stack(retry)]
    for limiter in limiters:
        assert_type(limiter.try_acquire(), Grant)
    assert_type(await TokenBucket(Rate(1)).acquire(), Grant)
    for policy in policies:
        assert_type(policy.calls(), float)


async def fallbacks_flights_and_chaos_keep_types() -> None:
    assert_type(await Fallback(b"", on=OSError).call(load, 1), bytes)
    assert_type(await Fallback(b"", on=OSError)(load)(1), bytes)
    assert_type([item async for item in Fallback([], on=OSError)(generate)(1)], list[str])
    assert_type(await SingleFlight().run("key", lambda: load(1)), bytes)
    assert_type(await SingleFlight(key=abs)(load)(1), bytes)
    assert_type(await Chaos(errors=(OSError, lambda: KeyError("x"))).call(load, 1), bytes)
    Chaos(latency=lambda dice: dice.expovariate(1), errors=OSError, rate=lambda: 0.5)
