"""The success path of a retry: ours, its peers, and the bare call.

A contender awaits a function that returns at once, CALLS times, and asserts that it ran as often.
The second case makes every call fail once and succeed when it is repeated without a wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiopatterns.resilience import Budget, Constant, Retry
from benchmarks.harness import Bench
from benchmarks.resilience.peers import peer

CALLS = 50_000
RETRIES = 5_000

bench = Bench("resilience/retry", versions=("hyx", "stamina"))
success = bench.case("success path", clock="cpu", unit="us/call")
again = bench.case("one failure, then success, no wait", clock="cpu", unit="us/call")


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    async def succeed(self) -> int:
        self.calls += 1
        return self.calls

    async def fail_every_other(self) -> int:
        self.calls += 1
        if self.calls % 2:
            raise OSError
        return self.calls


async def repeat(call: Callable[[], Awaitable[int]], counter: Counter) -> int:
    for _ in range(CALLS):
        await call()
    assert counter.calls == CALLS
    return CALLS


async def repeat_failing(call: Callable[[], Awaitable[int]], counter: Counter) -> int:
    for _ in range(RETRIES):
        await call()
    assert counter.calls == 2 * RETRIES
    return RETRIES


@success.ours("aiopatterns.Retry")
async def ours() -> int:
    counter = Counter()
    return await repeat(Retry(OSError)(counter.succeed), counter)


@success.ours("aiopatterns.Retry with a budget")
async def ours_with_budget() -> int:
    counter = Counter()
    return await repeat(Retry(OSError, budget=Budget.ratio())(counter.succeed), counter)


@success.limit("bare call")
async def bare() -> int:
    counter = Counter()
    return await repeat(counter.succeed, counter)


@again.ours("aiopatterns.Retry")
async def ours_again() -> int:
    counter = Counter()
    return await repeat_failing(
        Retry(OSError, backoff=Constant(0))(counter.fail_every_other), counter
    )


@again.limit("try, sleep(0), try")
async def by_hand() -> int:
    import asyncio

    counter = Counter()

    async def call() -> int:
        try:
            return await counter.fail_every_other()
        except OSError:
            await asyncio.sleep(0)
            return await counter.fail_every_other()

    return await repeat_failing(call, counter)


if (hyx := peer("hyx.retry")) is not None:

    @success.peer("hyx.retry", follows="hyx docs, Retry: @retry(on, attempts)")
    async def with_hyx() -> int:
        counter = Counter()
        return await repeat(hyx.retry(on=OSError, attempts=5)(counter.succeed), counter)

    success.at_most(0.5, of="hyx.retry")

    @again.peer("hyx.retry", follows="hyx docs, Retry: backoff=0")
    async def with_hyx_again() -> int:
        counter = Counter()
        call = hyx.retry(on=OSError, attempts=5, backoff=0)(counter.fail_every_other)
        return await repeat_failing(call, counter)


if (stamina := peer("stamina")) is not None:
    stamina.instrumentation.set_on_retry_hooks([])  # no line of log for each retry

    @success.peer("stamina.retry", follows="stamina docs, Tutorial: @stamina.retry(on, attempts)")
    async def with_stamina() -> int:
        counter = Counter()
        return await repeat(stamina.retry(on=OSError, attempts=5)(counter.succeed), counter)

    @again.peer("stamina.retry", follows="stamina docs: wait_initial=0, wait_jitter=0")
    async def with_stamina_again() -> int:
        counter = Counter()
        options = {"wait_initial": 0, "wait_max": 0, "wait_jitter": 0}
        call = stamina.retry(on=OSError, attempts=5, **options)(counter.fail_every_other)
        return await repeat_failing(call, counter)


success.under(0.4)

if __name__ == "__main__":
    bench.main()
