"""The staff: lazily hired, least recently idle let go first, never more than allowed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns import testing
from aiopatterns.core.clock import sleep, yield_now
from aiopatterns.flow import pool as flow_pool
from aiopatterns.flow.autoscale import Autoscale
from aiopatterns.resilience.ratelimit import Rate, TokenBucket
from aiopatterns.testing import explore, simulate

# Typed in tests/typing; tests do on purpose what types forbid.
WorkerPool: Any = flow_pool.WorkerPool
capture_events: Any = testing.capture_events


async def test_the_one_idle_last_is_woken_first():
    async def work(item):
        await yield_now()

    async with WorkerPool(work, workers=4) as pool:
        for item in range(4):
            await pool.submit(item)
        await pool.drain()
        await yield_now()
        last = pool._shift.staff.idle[-1].number
        for item in range(5):
            await pool.run(item)
        counts = {each.number: each.attempts for each in pool.statistics().per_worker}
        assert counts.pop(last) == 6
        assert set(counts.values()) == {1}


async def test_no_worker_beyond_those_that_have_something_to_do():
    async def work(item):
        await yield_now()

    async with WorkerPool(work, workers=50) as pool:
        for item in range(3):
            await pool.submit(item)
        await pool.drain()
        assert pool.statistics().workers == 3
        for item in range(20):
            await pool.run(item)
        assert pool.statistics().workers == 3


def test_those_idle_for_longest_leave_first():
    async def run():
        async def work(item):
            await sleep(item)

        async with WorkerPool(work, workers=4) as pool:
            for item in (1, 2, 3, 4):
                await pool.submit(item)
            await pool.drain()
            await sleep(1)
            pool.resize(2)
            assert [each.number for each in pool.statistics().per_worker] == [2, 3]

    simulate(run)


def test_a_smaller_limit_and_then_a_greater_one():
    async def run():
        async def work(item):
            await sleep(1)

        async with WorkerPool(work, workers=4) as pool:
            for item in range(20):
                await pool.submit(item)
            await sleep(0.5)
            pool.resize(1)
            assert pool.statistics().running == 4
            pool.resize(3)
            await sleep(1)
            assert pool.statistics().running == 3
            pool.resize(1)
            await sleep(1)
            assert pool.statistics().running == 1
            assert pool.statistics().workers == 1

    simulate(run)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(0, 1000))
def test_never_more_than_the_limit_start(limits, seed):
    async def run():
        allowed = [3]

        async def work(item):
            s = pool.statistics()
            # What runs beyond the limit had begun before the limit fell.
            assert s.running <= max(allowed)
            await sleep(0.7)
            allowed[:] = allowed[-2:]

        async with WorkerPool(work, workers=3, queue=1000) as pool:
            for item in range(30):
                await pool.submit(item)
            for limit in limits:
                await sleep(0.3)
                allowed.append(limit)
                pool.resize(limit)
            await pool.drain()
            assert pool.statistics().workers <= limits[-1]

    simulate(run, seed)


def test_no_more_wait_for_a_token_than_there_are_items():
    async def run():
        async def work(item):
            return item

        async with WorkerPool(work, workers=4, rate=TokenBucket(Rate(1), burst=1)) as pool:
            await pool.run(0)
            handles = [await pool.submit(n) for n in range(6)]
            await sleep(0.1)
            staff = pool._shift.staff
            assert len(staff.thirsty) == 4
            for handle in handles[:5]:
                handle.cancel()
            assert len(staff.thirsty) == 1
            assert await handles[5] == 5
            assert not staff.thirsty

    simulate(run)


def test_a_smaller_limit_holds_for_those_that_wait_for_a_token():
    async def run():
        running, most = 0, 0

        async def work(item):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await sleep(10)
            running -= 1
            return item

        rate = TokenBucket(Rate(1), burst=1)
        await rate.acquire()
        async with WorkerPool(work, workers=4, rate=rate) as pool:
            handles = [await pool.submit(n) for n in range(6)]
            await sleep(0.5)  # all four wait for a token
            pool.resize(1)
            assert len(pool._shift.staff.thirsty) == 1
            assert [await handle for handle in handles] == list(range(6))
        assert most == 1

    explore(run, range(50))


async def test_scaled_tells_before_after_and_why():
    async def work(item):
        """Nothing."""

    async with WorkerPool(work, workers=2) as pool:
        with capture_events() as events:
            pool.resize(5)
            pool.resize(5)
        assert [(e.pool, e.before, e.after, e.reason) for e in events] == [("work", 2, 5, "resize")]
        assert events[0].name == "aiopatterns.pool.scaled"


@pytest.mark.promise("flow-seeds")
def test_two_hundred_schedules_of_an_autoscaled_pool():
    async def run():
        async def work(item):
            s = pool.statistics()
            assert s.running <= s.workers <= 5
            await sleep(0.1 * (item % 4))

        scale = Autoscale(1, 5, target_wait=0.05, idle=0.2)
        async with WorkerPool(work, workers=scale, queue=50) as pool:
            for item in range(20):
                await pool.submit(item, priority=item % 2)
                if item % 10 == 0:
                    await sleep(0.5)
            await pool.drain()
            await sleep(2)
            s = pool.statistics()
            assert (s.limit, s.workers, s.done) == (1, 1, 20)

    explore(run, range(200))


async def test_a_worker_that_never_began_is_no_worker():
    async def work(item):
        await asyncio.get_running_loop().create_future()

    with pytest.raises(KeyError):
        async with WorkerPool(work) as pool:
            await pool.submit(1)  # a worker is hired, and cancelled before its first step
            raise KeyError
    s = pool.statistics()
    assert (s.dropped, s.workers) == (1, 0)
