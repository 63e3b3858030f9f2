"""The run of a pool: moves that no verb of the pool shows by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from aiopatterns import testing
from aiopatterns.core.clock import sleep, yield_now
from aiopatterns.core.errors import ClosedError, JobCancelledError
from aiopatterns.flow import pool as flow_pool
from aiopatterns.flow.handle import HandleStatus
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import explore, simulate

# Typed in tests/typing; tests do on purpose what types forbid.
WorkerPool: Any = flow_pool.WorkerPool
capture_events: Any = testing.capture_events


def conserved(pool):
    s = pool.statistics()
    assert s.accepted == s.done + s.failed + s.cancelled + s.dropped + s.queued + s.running, s
    return s


async def never(item):
    await asyncio.get_running_loop().create_future()


async def test_listeners_see_consistent_counts():
    async def work(item):
        raise ValueError(item)

    seen = []
    from aiopatterns.core.telemetry import listen

    with listen(lambda event: seen.append((event.name, conserved(pool).failed))):
        async with WorkerPool(work, workers=1) as pool:
            for item in range(3):
                await pool.submit(item)
    assert seen == [("aiopatterns.pool.item_failed", n) for n in (1, 2, 3)]


async def test_a_pause_holds_the_next_item_of_a_busy_worker():
    release = asyncio.Event()

    async def work(item):
        await release.wait()
        return item

    async with WorkerPool(work, workers=1) as pool:
        first, second = pool.submit_nowait(1), pool.submit_nowait(2)
        while not pool.statistics().running:
            await yield_now()
        pool.pause()
        release.set()
        assert await first == 1
        for _ in range(5):
            await yield_now()
        assert second.status is HandleStatus.QUEUED
        pool.resume()
        assert await second == 2


def test_a_retry_keeps_its_key_and_its_place():
    async def run():
        order: list[Any] = []

        async def work(item):
            order.append((item, tuple(order).count((item,)) + 1))
            if item == "a1" and len(order) < 3:
                raise OSError
            await sleep(1)

        retry = Retry(on=OSError, backoff=Constant(5, jitter="none"))
        async with WorkerPool(work, workers=1, retry=retry) as pool:
            await pool.submit("a1", key="a")
            await pool.submit("a2", key="a")
            await pool.submit("b")
            await sleep(0.5)
            assert conserved(pool).queued == 2  # a1 waits for its retry, a2 for a1
            for n in range(10):
                await pool.submit(f"late {n}")
        names = [name for name, _ in order]
        assert names[:2] == ["a1", "b"]
        assert names.index("a2") > names.index("a1", 1)
        # When its pause is over, the retry goes before what was submitted after it.
        assert names.index("a1", 1) == 6

    simulate(run)


def test_a_retry_that_waits_is_cancelled_at_once():
    async def run():
        async def work(item):
            raise OSError

        retry = Retry(on=OSError, backoff=Constant(5, jitter="none"))
        async with WorkerPool(work, retry=retry) as pool:
            handle = await pool.submit(1, key="k")
            follower = await pool.submit(2, key="k")
            await sleep(1)
            assert handle.status is HandleStatus.QUEUED
            handle.cancel()
            with pytest.raises(JobCancelledError):
                await handle
            await sleep(0)
            assert conserved(pool).cancelled == 1
            follower.cancel()

    simulate(run)


def test_what_waits_for_its_retry_is_dropped_with_the_pool():
    async def run():
        async def work(item):
            raise OSError

        retry = Retry(on=OSError, backoff=Constant(5, jitter="none"))
        with pytest.raises(KeyError):
            async with WorkerPool(work, retry=retry) as pool:
                handles = [await pool.submit(n, key=n % 2) for n in range(4)]
                await sleep(1)
                raise KeyError
        s = conserved(pool)
        assert (s.dropped, s.queued) == (4, 0)
        assert {handle.status for handle in handles} == {HandleStatus.CANCELLED}

    simulate(run)


async def test_nothing_is_retried_while_the_pool_is_left_by_an_error():
    attempts = []

    async def work(item):
        attempts.append(item)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            raise OSError("in cleanup")

    with pytest.raises(KeyError):
        async with WorkerPool(work, retry=Retry(on=OSError)) as pool:
            handle = await pool.submit(1)
            while not attempts:
                await yield_now()
            raise KeyError
    assert attempts == [1]
    assert handle.status is HandleStatus.FAILED
    with pytest.raises(OSError, match="in cleanup"):
        await handle


async def test_an_item_that_fails_tells_how_often_it_was_tried():
    async def work(item):
        raise OSError

    retry = Retry(on=OSError, attempts=3, backoff=Constant(0, jitter="none"))
    async with WorkerPool(work, retry=retry) as pool:
        with capture_events() as events:
            async with pool.stream([1]) as outcomes:
                outcome = await anext(outcomes)
        assert outcome.attempts == 3
        failed = [e for e in events if e.name == "aiopatterns.pool.item_failed"]
        assert [(e.index, e.attempts) for e in failed] == [(0, 3)]


def test_items_of_one_key_that_are_cancelled_while_blocked():
    async def run():
        async def work(item):
            await sleep(1)

        async with WorkerPool(work) as pool:
            handles = [await pool.submit(n, key="k") for n in range(100)]
            await sleep(0.5)
            for handle in handles[1:-1]:
                handle.cancel()
            assert conserved(pool).queued == 1
            await pool.drain()
            assert pool._shift.backlog.keys == 0

    simulate(run)


def test_a_place_kept_when_the_pool_is_left_does_not_hold_up_who_waits_for_the_end():
    async def run():
        found: list[str] = []

        async def drain():
            await pool.drain()
            found.append("drained")

        async def submit():
            with pytest.raises(ClosedError):
                await pool.submit(3)
            found.append("closed")

        pool = WorkerPool(never, workers=1, queue=1)
        async with anyio.create_task_group() as group:
            with pytest.raises(KeyError):
                async with pool:
                    await pool.submit(1)
                    await sleep(1)
                    waiting = await pool.submit(2)
                    group.start_soon(drain)
                    group.start_soon(submit)
                    await sleep(1)
                    waiting.cancel()  # its place is kept for the submitter
                    raise KeyError
        assert sorted(found) == ["closed", "drained"]

    explore(run, range(50))


def test_a_body_behind_a_shield_learns_that_its_items_are_dropped():
    async def run():
        pool = WorkerPool(never, workers=1, queue=3)
        with anyio.move_on_after(1) as scope:
            async with pool:
                handles = [await pool.submit(n, key=n % 2) for n in range(4)]
                with anyio.CancelScope(shield=True):
                    for handle in handles:
                        with pytest.raises(JobCancelledError):
                            await handle
        assert scope.cancel_called
        s = conserved(pool)
        assert (s.cancelled, s.dropped) == (1, 3)

    explore(run, range(50))


def test_a_body_behind_a_shield_gets_room_when_what_waits_is_dropped():
    async def run():
        pool = WorkerPool(never, workers=1, queue=1)
        with anyio.move_on_after(1) as scope:
            async with pool:
                with anyio.CancelScope(shield=True):
                    for n in range(3):  # the third waits for room until the scope fires
                        await pool.submit(n)
        assert scope.cancel_called
        assert conserved(pool).accepted == 3

    simulate(run)
