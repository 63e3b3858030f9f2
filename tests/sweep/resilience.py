"""Policies that many callers share, of whom some fail and some give up at any moment."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from anyio import create_task_group, move_on_after

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import RejectedError, TimeoutExceededError
from aiopatterns.core.rate import Rate
from aiopatterns.resilience import (
    AIMD,
    GCRA,
    AdaptiveLimit,
    Bulkhead,
    CircuitBreaker,
    CircuitState,
    Consecutive,
    HalfOpen,
    Hedge,
    Retry,
    SharedRateLimit,
    SingleFlight,
    Stack,
    Timeout,
    TokenBucket,
    Trip,
)
from aiopatterns.resilience.backoff import Constant
from tests.sweep.run import FOREVER, Inside

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.sweep.run import Run

__all__ = ["resilience"]

LIMIT = 3
PROBES = 2
RATE = Rate(5, per=1.0)
BURST = 2
OURS = (OSError, RejectedError, TimeoutExceededError)
SLACK = 1e-6  # of sums of times


class Upstream:
    """Something that is slow, and at times ill; it knows who is in it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.ill = False
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        await sleep(self.run.dice.choice([0.0, 0.02, 0.3]))
        if self.ill or self.run.chance(0.1):
            raise OSError
        return self.calls

    async def weather(self) -> None:
        """Be ill for a while, now and then; the wall clock jumps."""
        for _ in range(3):
            await sleep(self.run.dice.random() * 3)
            self.ill = not self.ill
            self.run.step_clock(self.run.dice.choice([-3_600.0, 3_600.0]))


async def resilience(run: Run) -> None:
    """Whatever happens to callers: every permit comes back, and no limit is passed."""
    upstream = Upstream(run)
    parts = [through_bulkhead, through_breaker, at_a_rate, one_at_a_time, in_a_stack]
    async with create_task_group() as tasks:
        tasks.start_soon(upstream.weather)
        for part in run.dice.sample(parts, 3):
            tasks.start_soon(part, run, upstream)


async def crowd(run: Run, call: Callable[[], Awaitable[object]]) -> None:
    """Eight callers, who call, fail, are refused, and often give up."""

    async def caller() -> None:
        for _ in range(6):
            await sleep(run.dice.choice([0.0, 0.05, 0.5]))
            with move_on_after(run.dice.choice([0.0, 0.02, 0.1, FOREVER])), suppress(*OURS):
                await call()

    async with create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(caller)


async def through_bulkhead(run: Run, upstream: Upstream) -> None:
    """Never more at once than there are permits; none is lost."""
    queue = run.dice.randrange(6)
    bulkhead = Bulkhead(
        LIMIT,
        max_queue=queue,
        max_wait=run.dice.choice([None, 0.1]) if queue else None,
        order=run.dice.choice(["fifo", "lifo", "priority"]),
    )
    inside = 0

    def check() -> None:
        found = bulkhead.statistics()
        assert found.available + found.in_flight == LIMIT
        assert inside <= found.in_flight

    run.always(check)

    async def call() -> None:
        nonlocal inside
        if run.chance(0.2):
            if bulkhead.try_acquire():
                bulkhead.release()
            return
        async with bulkhead.slot(priority=run.dice.randrange(3)):
            inside += 1
            try:
                await upstream()
            finally:
                inside -= 1

    await crowd(run, call)
    found = bulkhead.statistics()
    assert (found.available, found.queued, found.in_flight) == (LIMIT, 0, 0)


async def through_breaker(run: Run, upstream: Upstream) -> None:
    """A circuit that is half open lets through as many as it says, and forgets no call."""
    breaker = CircuitBreaker(
        "sweep",
        trip=Trip(window=Consecutive(2)),
        open_for=0.5,  # longer than a call takes
        half_open=HalfOpen(probes=PROBES),
    )
    probing = 0

    async def guarded() -> None:
        nonlocal probing
        if breaker.state is not CircuitState.HALF_OPEN:
            await upstream()
            return
        probing += 1
        assert probing <= PROBES
        try:
            await upstream()
        finally:
            probing -= 1

    async def call() -> None:
        if run.chance(0.2):
            async with breaker.guard():
                await guarded()
        else:
            await breaker.call(guarded)

    await crowd(run, call)
    assert breaker.statistics().in_flight == 0
    assert probing == 0


async def at_a_rate(run: Run, upstream: Upstream) -> None:
    """In no span of time more than the rate and the burst allow, also over processes."""
    del upstream
    async with MemoryBackend("rates") as server:
        local: Any = run.dice.choice([GCRA(RATE, burst=BURST), TokenBucket(RATE, burst=BURST)])
        limit: Any = run.dice.choice(
            [local, SharedRateLimit(RATE, server, name="sweep", burst=BURST)]
        )
        times: list[float] = []

        async def call() -> None:
            if limit is local and run.chance(0.2):
                grant = local.try_acquire()
            else:
                grant = await limit.acquire(max_wait=run.dice.choice([0.0, 0.5, 5.0]))
            if grant.allowed:
                times.append(monotonic())

        await crowd(run, call)
    for first, began in enumerate(times):
        for last in range(first, len(times)):
            allowed = BURST + (times[last] - began) * RATE.amount / RATE.per
            assert last - first + 1 <= allowed + SLACK


async def one_at_a_time(run: Run, upstream: Upstream) -> None:
    """A key is in one flight at a time; whoever gives up does not take it from the others."""
    flights = SingleFlight()
    inside = Inside()
    run.always(inside.check)

    async def load(key: int) -> int:
        with inside(key):
            await upstream()
        return key

    async def call() -> None:
        key = run.dice.randrange(2)
        assert await flights.run(key, lambda: load(key)) == key

    await crowd(run, call)
    assert not inside


async def in_a_stack(run: Run, upstream: Upstream) -> None:
    """All of them around one call: at most so many attempts, and all are free in the end."""
    bulkhead = Bulkhead(LIMIT, max_queue=5)
    adaptive = AdaptiveLimit(AIMD(initial=4, max_limit=6), on=OSError)
    breaker = CircuitBreaker("stack", open_for=0.2)
    stack = Stack(
        Timeout(2.0),
        Retry(on=OSError, attempts=3, backoff=Constant(0.05)),
        breaker,
        bulkhead,
        adaptive,
        Hedge(0.1, idempotent=True),
    )

    def check() -> None:
        assert bulkhead.statistics().in_flight <= LIMIT
        assert adaptive.statistics().in_flight <= LIMIT

    run.always(check)
    await crowd(run, lambda: stack.call(upstream))
    assert bulkhead.statistics().in_flight == 0
    assert breaker.statistics().in_flight == 0
    assert adaptive.statistics().in_flight == 0
