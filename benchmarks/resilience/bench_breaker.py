"""Circuit breakers: a call that succeeds, and one that is refused.

A contender awaits a function that returns at once under a closed breaker, CALLS times, and asserts
that it ran as often; in the second case the breaker is open, and each call has to be refused
without running. Ours keeps a window of the last seconds and measures one call in 64, with a rule for
slow calls each of them; the peers count failures in a row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

from aiopatterns.core.errors import CircuitOpenError
from aiopatterns.resilience import CircuitBreaker, Consecutive, Count, Slow, Trip
from benchmarks.harness import Bench
from benchmarks.resilience.peers import peer

CALLS = 50_000
REFUSALS = 10_000
LONG = 3600

bench = Bench(
    "resilience/breaker",
    versions=("circuitbreaker", "purgatory-circuitbreaker", "aiobreaker", "hyx"),
)
closed = bench.case("closed, the call succeeds", clock="cpu", unit="us/call")
opened = bench.case("open, the call is refused", clock="cpu", unit="us/call")


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    async def succeed(self) -> int:
        self.calls += 1
        return self.calls

    async def fail(self) -> int:
        self.calls += 1
        raise OSError


async def repeat(call: Callable[[], Awaitable[int]], counter: Counter) -> int:
    for _ in range(CALLS):
        await call()
    assert counter.calls == CALLS
    return CALLS


async def refuse(
    call: Callable[[], Awaitable[int]], counter: Counter, error: type[Exception]
) -> int:
    """Open the breaker of ``call`` by one failure, then be refused."""
    with suppress(Exception):
        await call()
    refused = 0
    for _ in range(REFUSALS):
        try:
            await call()
        except error:
            refused += 1
    assert (refused, counter.calls) == (REFUSALS, 1)
    return REFUSALS


@closed.ours("aiopatterns.CircuitBreaker, 10 s")
async def seconds() -> int:
    counter = Counter()
    return await repeat(CircuitBreaker("it")(counter.succeed), counter)


@closed.ours("aiopatterns.CircuitBreaker, 100 calls")
async def count() -> int:
    counter = Counter()
    return await repeat(CircuitBreaker("it", trip=Trip(Count(100)))(counter.succeed), counter)


@closed.ours("aiopatterns.CircuitBreaker, 5 in a row")
async def consecutive() -> int:
    counter = Counter()
    return await repeat(CircuitBreaker("it", trip=Trip(Consecutive(5)))(counter.succeed), counter)


@closed.ours("aiopatterns.CircuitBreaker, 10 s, slow calls")
async def slow() -> int:
    counter = Counter()
    return await repeat(CircuitBreaker("it", trip=Trip(slow=Slow(2)))(counter.succeed), counter)


@closed.ours("aiopatterns.CircuitBreaker, async with guard()")
async def guarded() -> int:
    counter = Counter()
    breaker = CircuitBreaker("it")

    async def call() -> int:
        async with breaker.guard():
            return await counter.succeed()

    return await repeat(call, counter)


@opened.ours("aiopatterns.CircuitBreaker")
async def ours_refused() -> int:
    counter = Counter()
    call = CircuitBreaker("it", trip=Trip(Consecutive(1)), open_for=LONG)(counter.fail)
    return await refuse(call, counter, CircuitOpenError)


@closed.limit("bare call")
async def bare() -> int:
    counter = Counter()
    return await repeat(counter.succeed, counter)


@opened.limit("raise an error")
async def bare_refused() -> int:
    async def call() -> int:
        raise CircuitOpenError("it is open", name="it", retry_after=1.0)

    counter = Counter()
    counter.calls = 1
    return await refuse(call, counter, CircuitOpenError)


if (circuitbreaker := peer("circuitbreaker")) is not None:

    @closed.peer("circuitbreaker", follows="its README, Usage: @circuit(failure_threshold=)")
    async def with_circuitbreaker() -> int:
        counter = Counter()
        call = circuitbreaker.circuit(failure_threshold=5, name="closed")(counter.succeed)
        return await repeat(call, counter)

    closed.at_most(0.5, of="circuitbreaker")

    @opened.peer("circuitbreaker", follows="its README, Usage")
    async def circuitbreaker_refused() -> int:
        counter = Counter()
        breaker = circuitbreaker.CircuitBreaker(failure_threshold=1, recovery_timeout=LONG)
        return await refuse(breaker(counter.fail), counter, circuitbreaker.CircuitBreakerError)


if (purgatory := peer("purgatory")) is not None:

    @closed.peer("purgatory", follows="its docs, Usage: factory as a decorator, in memory")
    async def with_purgatory() -> int:
        counter = Counter()
        factory = purgatory.AsyncCircuitBreakerFactory(default_threshold=5)
        return await repeat(factory("it")(counter.succeed), counter)

    @opened.peer("purgatory", follows="its docs, Usage")
    async def purgatory_refused() -> int:
        counter = Counter()
        factory = purgatory.AsyncCircuitBreakerFactory(default_threshold=1, default_ttl=LONG)
        error = purgatory.domain.model.OpenedState
        return await refuse(factory("it")(counter.fail), counter, error)


if (aiobreaker := peer("aiobreaker")) is not None:

    @closed.peer("aiobreaker", follows="its docs, Usage: @breaker()")
    async def with_aiobreaker() -> int:
        counter = Counter()
        return await repeat(aiobreaker.CircuitBreaker(fail_max=5)()(counter.succeed), counter)

    @opened.peer("aiobreaker", follows="its docs, Usage")
    async def aiobreaker_refused() -> int:
        counter = Counter()
        breaker = aiobreaker.CircuitBreaker(fail_max=1, timeout_duration=timedelta(seconds=LONG))
        return await refuse(breaker()(counter.fail), counter, aiobreaker.CircuitBreakerError)


if (hyx := peer("hyx.circuitbreaker")) is not None:
    options = {"exceptions": (OSError,), "recovery_time_secs": LONG}

    @closed.peer("hyx.consecutive_breaker", follows="hyx docs, Circuit Breakers")
    async def with_hyx() -> int:
        counter = Counter()
        call = hyx.consecutive_breaker(failure_threshold=5, **options)(counter.succeed)
        return await repeat(call, counter)


closed.under(0.4)

if __name__ == "__main__":
    bench.main()
