"""Workers: interrupted in every way, with functions and resources that misbehave."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from aiopatterns import testing
from aiopatterns.core.clock import sleep, yield_now
from aiopatterns.core.errors import ClosedError, JobCancelledError, TimeoutExceededError
from aiopatterns.flow import pool as flow_pool
from aiopatterns.flow.handle import HandleStatus
from aiopatterns.flow.worker import Cut
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import simulate

# Typed in tests/typing; tests do on purpose what types forbid.
WorkerPool: Any = flow_pool.WorkerPool
capture_events: Any = testing.capture_events


def conserved(pool):
    s = pool.statistics()
    assert s.accepted == s.done + s.failed + s.cancelled + s.dropped + s.queued + s.running, s
    return s


async def forever():
    await asyncio.get_running_loop().create_future()


def _current() -> Any:
    return asyncio.current_task()


async def until_running(pool, number=1):
    while pool.statistics().running < number:
        await yield_now()


async def test_no_ops_give_the_loop_a_turn_every_64_items():
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await yield_now()
            turns += 1

    async def work(item):
        """Never suspends."""

    async with WorkerPool(work, workers=1, queue=10_000) as pool:
        counting = asyncio.ensure_future(count())
        await yield_now()
        for item in range(6400):
            await pool.submit(item)
        before = turns
        await pool.drain()
        assert turns - before >= 99
        counting.cancel()


async def test_what_a_function_does_last_is_what_counts():
    async def work(item):
        try:
            await forever()
        except asyncio.CancelledError:
            if item == "value":
                return "a value after all"
            if item == "error":
                raise ValueError("in cleanup") from None
            if item == "another cancellation":
                raise asyncio.CancelledError("another one") from None
            raise

    async with WorkerPool(work, workers=4, retry=Retry(on=ValueError)) as pool:
        names = ["value", "error", "another cancellation", "through"]
        handles = [await pool.submit(name) for name in names]
        await until_running(pool, 4)
        for handle in handles:
            assert handle.cancel()
        assert await handles[0] == "a value after all"
        with pytest.raises(ValueError, match="in cleanup"):
            await handles[1]
        for handle in handles[2:]:
            with pytest.raises(JobCancelledError):
                await handle
        s = conserved(pool)
        assert (s.done, s.failed, s.cancelled, s.workers) == (1, 1, 2, 4)


def test_a_cancel_outranks_a_timeout_of_the_same_turn():
    async def run():
        async def work(item):
            await forever()

        async with WorkerPool(work, timeout=1, retry=Retry(on=TimeoutError)) as pool:
            handle = await pool.submit(1)
            await sleep(0.5)
            worker = handle.worker
            handle.cancel()
            worker.expire()
            assert worker.cut is Cut.CANCEL
            with pytest.raises(JobCancelledError):
                await handle

    simulate(run)


def test_a_timeout_that_the_function_survives_is_none():
    async def run():
        async def work(item):
            try:
                await sleep(10)
            except asyncio.CancelledError:
                return "saved"

        async with WorkerPool(work, timeout=1) as pool:
            assert await pool.run(1) == "saved"
            assert await pool.run(2) == "saved"  # the next timeout works as well

    simulate(run)


async def test_a_cut_that_comes_too_late_does_not_hit_the_next_item():
    async def work(item):
        if item == "first":
            await release.wait()
        await yield_now()
        return item

    release = asyncio.Event()
    async with WorkerPool(work, workers=1) as pool:
        first, second = await pool.submit("first"), await pool.submit("second")
        await until_running(pool)
        worker = first.worker

        async def work_fast(item):
            return item

        release.set()
        await yield_now()
        worker.interrupt(Cut.CANCEL)
        assert await second == "second"
        assert first.status in (HandleStatus.DONE, HandleStatus.CANCELLED)
        conserved(pool)


async def test_a_function_that_cancels_itself_ends_its_item_and_not_its_worker():
    async def work(item):
        if item == "raises":
            raise asyncio.CancelledError
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with WorkerPool(work, workers=1) as pool:
        for item in ("raises", "awaits a cancelled future"):
            with pytest.raises(JobCancelledError):
                await pool.run(item)
        s = conserved(pool)
        assert (s.cancelled, s.workers) == (2, 1)
        assert s.per_worker[0].number == 0


async def test_a_worker_that_is_killed_is_replaced_and_loses_nothing():
    async def work(item):
        if item == 0:
            _current().cancel()
        await yield_now()
        return item

    async with WorkerPool(work, workers=1) as pool:
        handles = [await pool.submit(n) for n in range(3)]
        with pytest.raises(JobCancelledError):
            await handles[0]
        assert [await handle for handle in handles[1:]] == [1, 2]
        s = conserved(pool)
        assert (s.done, s.cancelled, s.workers) == (2, 1, 1)
        assert s.per_worker[0].number == 1


async def test_leaving_normally_closes_resources_in_peace():
    @asynccontextmanager
    async def connect():
        yield
        for _ in range(3):
            await yield_now()
        with pytest.raises(ClosedError, match="is closing"):
            pool.submit_nowait(1)
        closed.append(True)

    async def work(item, resource):
        await yield_now()

    closed: list[Any] = []
    async with WorkerPool(work, workers=3, resource=connect) as pool:
        for item in range(9):
            await pool.submit(item)
    assert closed == [True] * 3


async def test_an_error_that_is_no_exception_leaves_the_pool_bare():
    class Stop(BaseException):
        pass

    async def work(item):
        raise Stop

    with pytest.raises(Stop):
        async with WorkerPool(work) as pool:
            handle = await pool.submit(1)
            await forever()
    assert handle.status is HandleStatus.CANCELLED
    assert conserved(pool).cancelled == 1


# ---------------------------------------------------------------------------------- resources


def failing(*, opens=(), closes=(), error=OSError):
    """A resource that fails to open, or to close, at the given numbers."""

    calls: Any = SimpleNamespace(calls=0)

    @asynccontextmanager
    async def connect():
        number = calls.calls
        calls.calls += 1
        await yield_now()
        if number in opens:
            raise error(f"open {number}")
        yield number
        if number in closes:
            raise error(f"close {number}")

    return connect, calls


async def test_a_worker_that_cannot_open_leaves_the_items_to_the_others():
    async def work(item, number):
        for _ in range(3):
            await yield_now()
        return number

    factory, connect = failing(opens={2})
    with capture_events() as events:
        async with WorkerPool(work, workers=8, resource=factory) as pool:
            handles = [await pool.submit(n) for n in range(40)]
            used = {await handle for handle in handles}
    assert 2 not in used
    assert connect.calls == 8  # it is not tried again at once
    assert [(e.name, e.worker, e.stage) for e in events] == [
        ("aiopatterns.pool.worker_failed", 2, "open")
    ]
    assert conserved(pool).done == 40


def test_opening_is_tried_again_after_a_while():
    async def run():
        async def work(item, number):
            await sleep(0.4)
            return number

        factory, _connect = failing(opens={1})
        async with WorkerPool(work, workers=2, resource=factory, queue=1000) as pool:
            handles = [await pool.submit(n) for n in range(20)]
            used = {await handle for handle in handles}
            assert used == {0}
            handles = [await pool.submit(n) for n in range(20)]
            used = {await handle for handle in handles}
            assert used == {0, 2}

    simulate(run)


async def test_if_nobody_can_open_each_item_fails_with_that_error():
    async def work(item, number):
        raise AssertionError

    factory, _connect = failing(opens=range(1000))
    with capture_events() as events:
        async with WorkerPool(work, workers=2, resource=factory) as pool:
            handles = [await pool.submit(n) for n in range(5)]
            for handle in handles:
                with pytest.raises(OSError, match="open"):
                    await handle
    assert conserved(pool).failed == 5
    assert {event.name for event in events} == {
        "aiopatterns.pool.worker_failed",
        "aiopatterns.pool.item_failed",
    }


async def test_a_worker_that_cannot_open_and_has_nothing_to_do_any_more():
    @asynccontextmanager
    async def connect():
        opening.set()
        await release.wait()
        raise OSError
        yield

    async def work(item, resource):
        """Never runs."""

    opening, release = asyncio.Event(), asyncio.Event()
    with capture_events() as events:
        async with WorkerPool(work, resource=connect) as pool:
            handle = await pool.submit(1)
            await opening.wait()
            handle.cancel()
            release.set()
            while not events:
                await yield_now()
    assert [event.stage for event in events] == ["open"]
    assert conserved(pool).cancelled == 1


def test_a_resource_that_comes_back_serves_the_retries():
    async def run():
        async def work(item, number):
            return number

        factory, _connect = failing(opens=range(3))
        retry = Retry(on=OSError, attempts=10, backoff=Constant(1, jitter="none"))
        with capture_events():
            async with WorkerPool(work, workers=1, resource=factory, retry=retry) as pool:
                assert await pool.run(1) == 3

    simulate(run)


async def test_a_close_that_fails_is_logged_if_nobody_listens(caplog):
    async def work(item, number):
        return number

    factory, _ = failing(closes={0})
    with caplog.at_level(logging.ERROR, "aiopatterns"):
        async with WorkerPool(work, workers=1, resource=factory) as pool:
            assert await pool.run(1) == 0
    assert "worker 0 of pool 'work' could not close its resource" in caplog.text
    assert "close 0" in caplog.text


async def test_a_close_that_fails_while_shrinking_harms_nobody():
    async def work(item, number):
        await yield_now()
        return number

    factory, _ = failing(closes=range(8))
    with capture_events() as events:
        async with WorkerPool(work, workers=4, resource=factory) as pool:
            for item in range(20):
                await pool.submit(item)
            await pool.drain()
            pool.resize(1)
            assert isinstance(await pool.run(1), int)
    assert [e.stage for e in events if e.name.endswith("worker_failed")] == ["close"] * 4


async def test_a_resource_that_dies_under_an_item_fails_the_item():
    @asynccontextmanager
    async def connect():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(die)
            yield
            tasks.cancel_scope.cancel()

    async def die():
        await kill.wait()
        raise OSError("connection lost")

    async def work(item, resource):
        if item == 0:
            kill.set()
            await forever()
        return item

    kill = asyncio.Event()
    with capture_events() as events:
        async with WorkerPool(work, workers=1, resource=connect) as pool:
            first = await pool.submit(0)
            with pytest.raises(ExceptionGroup):
                await first
            kill.clear()
            assert await pool.run(1) == 1
    assert "aiopatterns.pool.worker_failed" in {event.name for event in events}
    s = conserved(pool)
    assert (s.done, s.failed) == (1, 1)


@pytest.mark.parametrize("stage", ["open", "close"])
async def test_a_resource_that_cancels_itself_has_failed(stage):
    @asynccontextmanager
    async def connect():
        if stage == "open":
            raise asyncio.CancelledError
        yield
        raise asyncio.CancelledError

    async def work(item, resource):
        return item

    with capture_events() as events:
        async with WorkerPool(work, workers=1, resource=connect) as pool:
            if stage == "open":
                with pytest.raises(RuntimeError, match="cancelled itself"):
                    await pool.run(1)
            else:
                assert await pool.run(1) == 1
    assert [e.stage for e in events if e.name.endswith("worker_failed")] == [stage]


async def test_a_pool_left_while_a_resource_opens():
    @asynccontextmanager
    async def connect():
        opening.set()
        await forever()
        yield

    async def work(item, resource):
        """Never runs."""

    opening = asyncio.Event()
    with pytest.raises(KeyError):
        async with WorkerPool(work, resource=connect) as pool:
            await pool.submit(1)
            await opening.wait()
            assert pool.statistics().per_worker[0].state == "opening"
            raise KeyError
    assert conserved(pool).dropped == 1


variable: ContextVar[str] = ContextVar("variable", default="nobody's")


async def test_a_resource_sees_the_variables_of_whoever_opened_the_pool():
    @asynccontextmanager
    async def connect():
        yield variable.get()

    async def work(item, seen):
        return seen

    variable.set("the opener's")
    async with WorkerPool(work, resource=connect) as pool:
        variable.set("a submitter's")
        assert await pool.run(1) == "the opener's"


def test_timeouts_of_many_workers_at_once():
    async def run():
        async def work(item):
            await sleep(item)
            return item

        async with WorkerPool(work, workers=100, timeout=5, queue=1000) as pool:
            handles = [await pool.submit(n % 10) for n in range(300)]
            for number, handle in enumerate(handles):
                if number % 10 > 5:
                    with pytest.raises(TimeoutExceededError):
                        await handle
                elif number % 10 < 5:
                    assert await handle == number % 10
        conserved(pool)

    simulate(run)


async def test_a_cancellation_left_behind_does_not_hit_the_next_item():
    async def work(item):
        if item == 0:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # of the worker, and returns before it arrives
        else:
            await sleep(0)
        return item

    async with WorkerPool(work, workers=1) as pool:
        handles = [await pool.submit(n) for n in range(3)]
        assert [await handle for handle in handles] == [0, 1, 2]
        assert conserved(pool).done == 3
