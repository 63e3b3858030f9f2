"""Defects of other bulkheads and concurrency limits, each a test that would find it here."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import anyio
import pytest

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BulkheadFullError, TimeoutExceededError
from aiopatterns.resilience.adaptive import AIMD, AdaptiveLimit
from aiopatterns.resilience.bulkhead import Bulkhead, BulkheadStatistics
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.testing import explore, simulate


def test_hyx_a_cancelled_waiter_does_not_lose_a_permit():
    async def scenario():
        bulkhead = Bulkhead(1, max_queue=2)
        held = bulkhead(sleep)
        for _ in range(10):
            async with anyio.create_task_group() as group:
                group.start_soon(held, 1)
                await sleep(0.1)
                with anyio.move_on_after(0.5):
                    async with bulkhead.slot():
                        await sleep(1)
        assert bulkhead.statistics() == BulkheadStatistics(1, 0, 0)
        await held(1)

    explore(scenario, range(20))


def test_failsafe_393_a_waiter_that_gives_up_as_its_permit_comes_does_not_keep_it():
    async def scenario():
        bulkhead = Bulkhead(1, max_queue=5, max_wait=1)
        held = bulkhead(sleep)

        async def call():
            with suppress(BulkheadFullError):  # its time is over just as the permit comes
                await held(1)

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            group.start_soon(call)
        assert bulkhead.statistics() == BulkheadStatistics(1, 0, 0)

    explore(scenario, range(60))


def test_resilience4j_2296_a_timeout_does_not_free_the_permit_before_the_work_has_ended():
    async def scenario():
        bulkhead = Bulkhead(1)

        @Timeout(1)
        @bulkhead
        async def work():
            try:
                await sleep(9)
            finally:
                with anyio.CancelScope(shield=True):
                    await sleep(2)
                assert bulkhead.statistics().in_flight == 1

        async with anyio.create_task_group() as group:

            async def look():
                await sleep(2)  # the time was over a second ago
                assert not bulkhead.try_acquire()

            group.start_soon(look)
            with pytest.raises(TimeoutExceededError):
                await work()
        assert monotonic() == pytest.approx(3)
        assert bulkhead.statistics().in_flight == 0

    simulate(scenario)


async def test_anyio_capacity_limiter_one_task_may_hold_two_permits():
    bulkhead = Bulkhead(2)
    async with bulkhead.slot(), bulkhead.slot():
        assert bulkhead.statistics().in_flight == 2


def test_cpython_90155_nobody_passes_who_waits_and_no_wake_up_is_lost():
    async def scenario():
        bulkhead = Bulkhead(1, max_queue=5)
        order: list[str] = []

        async def call(name):
            async with bulkhead.slot():
                order.append(name)
                await sleep(0)

        assert bulkhead.try_acquire()
        tasks = [asyncio.create_task(call(name)) for name in "ab"]
        await sleep(0.001)
        bulkhead.release()
        assert not bulkhead.try_acquire()  # it is a's, though a has not run yet
        tasks[0].cancel()
        late = asyncio.create_task(call("c"))
        await asyncio.wait([*tasks, late])
        assert [each for each in order if each != "a"] == ["b", "c"]
        assert bulkhead.statistics() == BulkheadStatistics(1, 0, 0)

    explore(scenario, range(40))


async def test_a_bulkhead_is_made_without_a_running_loop_and_serves_any():
    policies = await anyio.to_thread.run_sync(lambda: (Bulkhead(1), AdaptiveLimit(AIMD())))
    for policy in policies:
        await policy.call(sleep, 0)


def test_netflix_limits_a_jam_of_twenty_timeouts_does_not_collapse_the_limit():
    """0.9 for each of twenty timeouts would leave a tenth of the limit."""

    async def scenario():
        limit = AdaptiveLimit(AIMD(initial=20))
        limited = limit(Timeout(1)(sleep))

        async def call():
            with pytest.raises(TimeoutExceededError):
                await limited(9)

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(call)
        assert limit.statistics().limit == 18

    explore(scenario, range(20))
