"""WorkerPool: every verb, a plain model, and the counts at every instant of every disturbance."""

from __future__ import annotations

import asyncio
import functools
import math
import sys
import threading
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns import testing
from aiopatterns.core import bind_correlation, correlation_id, deadline
from aiopatterns.core.clock import monotonic, sleep, yield_now
from aiopatterns.core.errors import (
    ClosedError,
    JobCancelledError,
    QueueFullError,
    RateLimitedError,
    TimeoutExceededError,
)
from aiopatterns.core.outcome import Err, Ok
from aiopatterns.flow import pool as flow_pool
from aiopatterns.flow.autoscale import Autoscale
from aiopatterns.flow.handle import HandleStatus
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.ratelimit import Rate, SlidingWindow, TokenBucket
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.stack import Stack
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.testing import (
    Trial,
    cancel_everywhere,
    explore,
    fail_everywhere,
    simulate,
)

# Typed in tests/typing; tests do on purpose what types forbid.
WorkerPool: Any = flow_pool.WorkerPool
capture_events: Any = testing.capture_events

QUEUED, RUNNING, DONE, FAILED, CANCELLED = HandleStatus
NOW = Constant(0, jitter="none")


def conserved(pool):
    """The invariant, and what must hold of the gauges."""
    s = pool.statistics()
    assert s.accepted == s.done + s.failed + s.cancelled + s.dropped + s.queued + s.running, s
    assert min(s.queued, s.running, s.workers) >= 0, s
    return s


def at_every_turn(check):
    """Call ``check`` after every turn of the running loop, where the loop lets us."""
    loop: Any = asyncio.get_running_loop()
    turn = getattr(loop, "_run_once", None)
    if turn is not None:

        def checked():
            turn()
            check()

        loop._run_once = checked


async def double(item):
    return item * 2


async def never(item):
    await asyncio.get_running_loop().create_future()


# ---------------------------------------------------------------------------------- the verbs


async def test_submit_gives_a_handle_and_run_a_result():
    async with WorkerPool(double) as pool:
        handle = await pool.submit(4)
        assert handle.status is QUEUED
        assert await handle == 8
        assert handle.status is DONE
        assert await handle == 8
        assert not handle.cancel()
        assert await pool.run(5) == 10
        assert "done" in repr(handle)
    assert await handle == 8  # also after the end


async def test_many_may_wait_for_one_handle():
    release = asyncio.Event()

    async def work(item):
        await release.wait()
        return item

    async with WorkerPool(work) as pool:
        handle = await pool.submit(1)
        waiting = [asyncio.ensure_future(_result(handle)) for _ in range(5)]
        await yield_now()
        assert handle.status is RUNNING
        waiting[2].cancel()
        release.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [r for r in results if r == 1] == [1] * 4
        assert handle.status is DONE  # a cancelled waiter cancels nothing


async def _result(handle):
    return await handle


async def test_an_error_reaches_every_waiter_as_it_is():
    error = ValueError("bad item")

    async def work(item):
        raise error

    async with WorkerPool(work) as pool:
        handle = await pool.submit(1)
        for _ in range(3):
            with pytest.raises(ValueError, match="bad item") as caught:
                await handle
            assert caught.value is error
        assert handle.status is FAILED
        with pytest.raises(ValueError, match="bad item"):
            await pool.run(1)
        assert conserved(pool).failed == 2


async def test_workers_start_when_there_is_something_to_do():
    release = asyncio.Event()

    async def work(item):
        await release.wait()

    async with WorkerPool(work, workers=8) as pool:
        assert pool.statistics().workers == 0
        await pool.submit(1)
        await pool.submit(2)
        await yield_now()
        s = pool.statistics()
        assert (s.workers, s.limit, s.running) == (2, 8, 2)
        assert [w.state for w in s.per_worker] == ["running"] * 2
        release.set()
        await pool.drain()
        s = pool.statistics()
        assert [w.state for w in s.per_worker] == ["idle"] * 2
        assert [w.attempts for w in s.per_worker] == [1, 1]


async def test_no_more_than_the_workers_run_at_once():
    running = peak = 0

    async def work(item):
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        conserved(pool)
        assert pool.statistics().running == running
        await yield_now()
        running -= 1

    async with WorkerPool(work, workers=3, queue=1000) as pool:
        for item in range(100):
            await pool.submit(item)
    assert peak == 3
    s = pool.statistics()
    assert (s.accepted, s.done, s.workers) == (100, 100, 0)
    assert 0 <= s.p50 <= s.p95 <= s.p99


async def test_submit_waits_for_room_in_turn():
    release = asyncio.Event()
    order = []

    async def work(item):
        order.append(item)
        await release.wait()

    async def submit(item):
        await pool.submit(item)

    async with WorkerPool(work, workers=1, queue=2) as pool:
        await pool.submit(0)
        while pool.statistics().queued:
            await yield_now()
        pool.submit_nowait(1)
        pool.submit_nowait(2)
        with pytest.raises(QueueFullError, match="full"):
            pool.submit_nowait(3)
        tasks = []
        for item in (3, 4, 5):
            tasks.append(asyncio.ensure_future(submit(item)))
            await yield_now()
        tasks[1].cancel()
        await yield_now()
        assert conserved(pool).accepted == 3
        release.set()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 2, 3, 5]


async def test_a_kept_place_goes_on_when_its_task_is_cancelled():
    release = asyncio.Event()

    async def work(item):
        await release.wait()

    async def submit(item):
        return await pool.submit(item)

    async with WorkerPool(work, workers=1, queue=1) as pool:
        await pool.submit(0)
        while pool.statistics().queued:
            await yield_now()
        queued = pool.submit_nowait(1)
        first, second = (asyncio.ensure_future(submit(n)) for n in (2, 3))
        await yield_now()
        assert queued.cancel()  # the place is kept for the first now
        with pytest.raises(QueueFullError):
            pool.submit_nowait(4)
        first.cancel()
        await second
        assert conserved(pool).accepted == 3
        release.set()


async def test_the_last_kept_place_given_up_ends_the_drain():
    async def submit():
        await pool.submit(1)

    async with WorkerPool(double, queue=1) as pool:
        pool.pause()
        queued = pool.submit_nowait(0)
        waiting = asyncio.ensure_future(submit())
        drained = asyncio.ensure_future(pool.drain())
        await yield_now()
        queued.cancel()
        waiting.cancel()
        await drained
        assert conserved(pool).accepted == 1


async def test_leaving_normally_finishes_everything_also_what_items_submit():
    seen = []

    async def crawl(depth):
        seen.append(depth)
        if depth:
            await pool.submit(depth - 1)
            await pool.submit(depth - 1)

    async with WorkerPool(crawl, workers=4, queue=1000) as pool:
        await pool.submit(6)
    assert len(seen) == 2**7 - 1
    assert conserved(pool).done == 2**7 - 1


async def test_drain_waits_and_the_pool_goes_on():
    async with WorkerPool(double) as pool:
        await pool.drain()
        for item in range(20):
            await pool.submit(item)
        await pool.drain()
        assert pool.statistics().done == 20
        assert await pool.run(1) == 2


async def test_pause_and_resume():
    async with WorkerPool(double, workers=2, queue=5) as pool:
        pool.pause()
        handles = [pool.submit_nowait(item) for item in range(5)]
        for _ in range(5):
            await yield_now()
        assert {handle.status for handle in handles} == {QUEUED}
        with pytest.raises(QueueFullError):
            pool.submit_nowait(5)
        pool.resume()
        assert [await handle for handle in handles] == [0, 2, 4, 6, 8]
        pool.pause()
        last = await pool.submit(9)
    assert await last == 18  # leaving resumes


async def test_a_pause_does_not_keep_the_pool_from_ending():
    async def work(item):
        await yield_now()
        pool.pause()
        return item

    async with WorkerPool(work, workers=1) as pool:
        handles = [await pool.submit(n) for n in range(3)]
    assert [await handle for handle in handles] == [0, 1, 2]


async def test_resize_takes_effect_as_workers_finish():
    release = asyncio.Event()
    running = 0
    counts = []

    async def work(item):
        nonlocal running
        running += 1
        counts.append(running)
        await (release.wait() if item < 4 else yield_now())
        running -= 1

    async with WorkerPool(work, workers=1) as pool:
        for item in range(8):
            await pool.submit(item)
        with capture_events() as events:
            pool.resize(4)
            pool.resize(4)
            while running < 4:
                await yield_now()
            pool.resize(2)
        assert [(e.before, e.after, e.reason) for e in events] == [
            (1, 4, "resize"),
            (4, 2, "resize"),
        ]
        assert conserved(pool).running == 4  # nobody is interrupted
        release.set()
        await pool.drain()
        assert pool.statistics().workers == 2
        assert all(count <= 2 for count in counts[4:]) or counts[4:] == []
        pool.resize(1)  # idle workers leave at once
        assert pool.statistics().workers == 1
        assert await pool.run(9) is None


async def test_priorities_first_come_first_served_among_equals():
    order = []

    async def work(item):
        order.append(item)

    async with WorkerPool(work, workers=1) as pool:
        pool.pause()
        for number, priority in enumerate([0, 5, 0, -1, 5, 10**9]):
            await pool.submit((priority, number), priority=priority)
        pool.resume()
    assert order == [(10**9, 5), (5, 1), (5, 4), (0, 0), (0, 2), (-1, 3)]


async def test_equal_keys_run_one_at_a_time_in_order_and_block_nobody():
    release = asyncio.Event()
    started = []

    async def work(item):
        started.append(item)
        if item == "a0":
            await release.wait()

    async with WorkerPool(work, workers=4) as pool:
        for item in ["a0", "a1", "a2", "b0", "c0", "b1"]:
            await pool.submit(item, key=item[0])
        while pool.statistics().done < 3:
            await yield_now()
        assert started[0] == "a0"
        assert set(started[1:]) == {"b0", "c0", "b1"}
        assert pool._shift.backlog.keys == 1
        release.set()
    assert started[4:] == ["a1", "a2"]
    assert pool._shift.backlog.keys == 0


async def test_a_cancelled_item_gives_its_key_to_the_next():
    async with WorkerPool(double, workers=2) as pool:
        pool.pause()
        first, second, third = [await pool.submit(n, key="k") for n in range(3)]
        second.cancel()
        first.cancel()
        pool.resume()
        assert await third == 4
        running = WorkerPool(never)
    async with running as pool:
        first = await pool.submit(0, key="k")
        second = await pool.submit(0, key="k")
        while first.status is QUEUED:
            await yield_now()
        first.cancel()
        while second.status is QUEUED:
            await yield_now()
        second.cancel()


async def test_cancel_queued_and_running():
    async with WorkerPool(never, workers=1) as pool:
        running, queued = await pool.submit(1), await pool.submit(2)
        while running.status is QUEUED:
            await yield_now()
        assert queued.cancel()
        assert queued.status is CANCELLED
        assert running.cancel()
        assert running.cancel()
        for number, handle in enumerate((running, queued)):
            with pytest.raises(JobCancelledError, match="was cancelled") as caught:
                await handle
            assert caught.value.job_id == str(number)
        assert running.status is CANCELLED
        assert conserved(pool).cancelled == 2


async def test_an_item_may_cancel_itself():
    async def work(item):
        assert handles[0].cancel()
        await sleep(0)

    handles = []
    async with WorkerPool(work) as pool:
        handles.append(await pool.submit(1))
        with pytest.raises(JobCancelledError):
            await handles[0]


async def test_run_is_bound_to_its_caller():
    cleaned = []

    async def work(item):
        try:
            await never(item)
        finally:
            await yield_now() if sys.exc_info()[0] is None else None
            cleaned.append(item)

    async with WorkerPool(work) as pool:
        task = asyncio.ensure_future(pool.run(1))
        while not pool.statistics().running:
            await yield_now()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cleaned == [1]
        with anyio.move_on_after(0.001):
            await pool.run(2)
        assert cleaned == [1, 2]
        assert conserved(pool).cancelled == 2


async def test_run_outlasts_a_stubborn_item_also_when_cancelled_twice():
    release = asyncio.Event()

    async def work(item):
        try:
            await never(item)
        finally:
            with anyio.CancelScope(shield=True):
                await release.wait()
            if item:
                raise ValueError("in cleanup")

    async with WorkerPool(work) as pool:
        for item in (0, 1):
            release.clear()
            task = asyncio.ensure_future(pool.run(item))
            while not pool.statistics().running:
                await yield_now()
            for _ in range(2):
                task.cancel()
                for _ in range(3):
                    await yield_now()
                assert not task.done()
            release.set()
            with pytest.raises(asyncio.CancelledError):
                await task
        s = conserved(pool)
        assert (s.cancelled, s.failed) == (1, 1)


async def test_leaving_by_an_error_settles_everything():
    error = RuntimeError("the body's own")
    release = asyncio.Event()
    late: Any = None

    async def submit_late():
        with pytest.raises(ClosedError, match="closed before it had room"):
            await pool.submit(9)

    with pytest.raises(RuntimeError) as caught:
        async with WorkerPool(never, workers=1, queue=2) as pool:
            handles = [await pool.submit(n) for n in range(2)]
            while pool.statistics().running < 1:
                await yield_now()
            handles.append(await pool.submit(2))
            late = asyncio.ensure_future(submit_late())
            drained = asyncio.ensure_future(pool.drain())
            await yield_now()
            raise error
    assert caught.value is error
    await late
    await drained
    release.set()
    assert [handle.status for handle in handles] == [CANCELLED] * 3
    s = conserved(pool)
    assert (s.cancelled, s.dropped, s.queued, s.running) == (1, 2, 0, 0)
    with pytest.raises(JobCancelledError):
        await handles[2]


async def test_cleanup_may_not_submit_to_a_pool_that_is_being_left():
    refused: list[Any] = []

    async def work(item):
        try:
            await never(item)
        finally:
            with pytest.raises(ClosedError, match="is closing"):
                pool.submit_nowait(2)
            refused.append(item)

    with pytest.raises(KeyError):
        async with WorkerPool(work) as pool:
            await pool.submit(1)
            while not pool.statistics().running:
                await yield_now()
            raise KeyError
    assert refused == [1]


async def test_an_opening_that_fails_leaves_nothing(monkeypatch):
    def broken(*args):
        raise OSError

    pool = WorkerPool(double)
    with monkeypatch.context() as patch:
        patch.setattr("aiopatterns.flow.pool.Shift", broken)
        with pytest.raises(OSError):
            await pool.__aenter__()
    assert pool.statistics().accepted == 0
    async with pool:
        assert await pool.run(1) == 2


@pytest.mark.promise("flow-no-leaks")
async def test_a_pool_can_be_entered_again():
    pool = WorkerPool(double)
    assert pool.statistics().accepted == 0
    for _ in range(2):
        async with pool:
            assert await pool.run(2) == 4
            with pytest.raises(RuntimeError, match="open already"):
                await pool.__aenter__()
        assert pool.statistics().accepted == 1


# -------------------------------------------------------------------- functions and resources


@pytest.mark.real
async def test_a_synchronous_function_runs_in_a_thread():
    def work(item):
        barrier.wait()  # all of them at once
        return threading.get_ident()

    barrier = threading.Barrier(50, timeout=10)
    async with WorkerPool(work, workers=50) as pool:
        handles = [await pool.submit(n) for n in range(50)]
        found = {await handle for handle in handles}
    assert threading.get_ident() not in found


async def test_a_lambda_around_a_coroutine_function_is_awaited():
    async with WorkerPool(lambda item: double(item + 1)) as pool:
        assert pool.name == "pool"
        assert await pool.run(3) == 8


async def test_partials_methods_and_objects_are_functions():
    class Doubler:
        async def __call__(self, item):
            return item * 2

        async def method(self, item):
            return item * 2

    async def power(exponent, item):
        return item**exponent

    for fn, expected in [
        (Doubler(), 6),
        (Doubler().method, 6),
        (functools.partial(power, 2), 9),
    ]:
        async with WorkerPool(fn) as pool:
            assert await pool.run(3) == expected


async def test_a_wrong_signature_fails_the_item_and_nothing_else():
    async def work():
        """Takes nothing."""

    async with WorkerPool(work) as pool:
        with pytest.raises(TypeError, match="positional argument"):
            await pool.run(1)
        assert conserved(pool).failed == 1


async def test_a_resource_for_each_worker():
    opened: list[Any] = []
    closed: list[Any] = []

    @asynccontextmanager
    async def connect():
        number = len(opened)
        opened.append(number)
        try:
            yield number
        finally:
            closed.append(number)

    async def work(item, connection):
        for _ in range(3):
            await yield_now()
        return connection

    async with WorkerPool(work, workers=3, resource=connect) as pool:
        assert opened == []
        handles = [await pool.submit(n) for n in range(12)]
        used = [await handle for handle in handles]
    assert set(used) == {0, 1, 2} == set(opened) == set(closed)


async def test_policy_wraps_one_attempt_and_retry_goes_round_it():
    calls = []

    def log(fn):
        async def logged(item):
            calls.append(item)
            return await fn(item)

        return logged

    def later(fn):
        return fn  # returns an awaitable, is no coroutine function

    async def work(item):
        if len(calls) < 3:
            raise OSError
        return item

    async with WorkerPool(work, retry=Retry(on=OSError, backoff=NOW), policy=log) as pool:
        assert await pool.run(1) == 1
    assert calls == [1, 1, 1]
    async with WorkerPool(double, policy=later) as pool:
        assert await pool.run(1) == 2
    async with WorkerPool(double, policy=Stack(Timeout(5))) as pool:
        assert await pool.run(1) == 2


# --------------------------------------------------------------------- retry, rate, time


def test_retry_waits_without_a_worker_and_counts_as_queued():
    async def run():
        attempts = []

        async def work(item):
            attempts.append((item, monotonic()))
            if item == 0 and monotonic() < 20:
                raise OSError(f"attempt {len(attempts)}")
            return item

        retry = Retry(on=OSError, attempts=5, backoff=Constant(10, jitter="none"))
        async with WorkerPool(work, workers=1, retry=retry) as pool:
            first = await pool.submit(0)
            with capture_events() as events:
                await sleep(1)
            assert events[0].name == "aiopatterns.retry.scheduled"
            assert first.status is QUEUED
            assert conserved(pool).queued == 1
            assert await pool.run(1) == 1  # the worker is free
        assert await first == 0  # leaving waits for the retries
        assert [time for item, time in attempts if item == 0] == [0, 10, 20]
        assert conserved(pool).done == 2

    simulate(run)


async def test_when_retry_gives_up_the_error_is_the_last_one():
    async def work(item):
        raise OSError(item)

    async with WorkerPool(work, retry=Retry(on=OSError, attempts=2, backoff=NOW)) as pool:
        with capture_events() as events, pytest.raises(OSError, match="7") as caught:
            await pool.run(7)
        assert any("2 attempts" in note for note in caught.value.__notes__)
        assert [e.name for e in events] == [
            "aiopatterns.retry.scheduled",
            "aiopatterns.pool.item_failed",
        ]
        assert (events[1].attempts, events[1].index, events[1].pool) == (2, 0, "work")


async def test_a_retry_may_look_at_results_and_its_predicates_may_fail():
    results = iter([1, 2, 3])

    async def work(item):
        return next(results) if item else 1 / item

    retry = Retry(on=OSError, backoff=NOW, on_result=lambda result: result < 3)
    async with WorkerPool(work, retry=retry) as pool:
        assert await pool.run(1) == 3

    def broken(error):
        raise KeyError("predicate")

    async with WorkerPool(work, retry=Retry(on=broken)) as pool:
        with pytest.raises(KeyError, match="predicate"):
            await pool.run(0)
        assert conserved(pool).failed == 1


class CountingRetry:
    """A retry whose budget must be told of each beginning and each end."""

    def __init__(self, **options):
        from aiopatterns.resilience.budget import Budget

        self.budget = Budget.ratio(1.0, min_concurrency=100)
        self.retry = Retry(on=OSError, budget=self.budget, **options)

    def balanced(self):
        return vars_of(self.budget)


def vars_of(budget):
    return {name: getattr(budget, name) for cls in type(budget).__mro__ for name in slots_of(cls)}


def slots_of(cls):
    return getattr(cls, "__slots__", ())


def test_the_budget_of_a_retry_is_told_of_every_end():
    async def run():
        counting = CountingRetry(attempts=3, backoff=Constant(1, jitter="none"))
        before = counting.balanced()

        async def work(item):
            if item == "fail":
                raise OSError
            if item == "never":
                await never(item)
            if item == "once" and conserved(pool):
                raise ValueError

        with pytest.raises(KeyError):
            async with WorkerPool(work, retry=counting.retry) as pool:
                await pool.run("fine")
                with pytest.raises(OSError):
                    await pool.run("fail")
                with pytest.raises(ValueError):
                    await pool.run("once")
                cut = [await pool.submit(name) for name in ("never", "fail")]
                await sleep(0.5)
                for handle in cut:
                    assert handle.cancel()
                await sleep(0.5)
                late = await pool.submit("never", deadline=monotonic() + 1)
                with pytest.raises(TimeoutExceededError):
                    await late
                for name in ("never", "fail"):
                    await pool.submit(name)
                await sleep(0.5)
                raise KeyError
        conserved(pool)
        assert counting.balanced() == before

    simulate(run)


def test_until_total_cuts_all_attempts_together():
    async def run():
        from aiopatterns.resilience.retry import Until

        async def work(item):
            await sleep(2)
            raise OSError

        retry = Retry(on=OSError, attempts=None, backoff=NOW, until=Until(total=5))
        async with WorkerPool(work, retry=retry) as pool:
            start = monotonic()
            with pytest.raises(TimeoutExceededError):
                await pool.run(1)
            assert monotonic() - start == 5

    simulate(run)


def test_timeout_bounds_each_attempt():
    async def run():
        attempts = []

        async def work(item):
            attempts.append(monotonic())
            await sleep(10 if len(attempts) < 3 else 0.5)
            return item

        retry = Retry(on=TimeoutExceededError, backoff=Constant(1, jitter="none"))
        async with WorkerPool(work, timeout=1, retry=retry) as pool:
            assert await pool.run(1) == 1
            assert attempts == [0, 2, 4]
            attempts.clear()
        async with WorkerPool(work, timeout=1) as pool:
            with pytest.raises(TimeoutExceededError, match="longer than 1 s") as caught:
                await pool.run(1)
            assert caught.value.timeout == 1
            assert conserved(pool).failed == 1

    simulate(run)


def test_a_deadline_ends_an_item_wherever_it_is():
    async def run():
        seen = []

        async def work(item):
            seen.append((item, deadline()))
            await sleep(10)

        retry = Retry(on=TimeoutError, backoff=NOW)
        async with WorkerPool(work, workers=1, retry=retry) as pool:
            running = await pool.submit("running", deadline=5)
            queued = await pool.submit("queued", deadline=3)
            await sleep(4)
            assert (running.status, queued.status) == (RUNNING, FAILED)
            for handle in (running, queued):
                with pytest.raises(TimeoutExceededError, match="deadline"):
                    await handle
            assert monotonic() == 5
            with capture_events() as events:
                past = await pool.submit("past", deadline=1)
                with pytest.raises(TimeoutExceededError):
                    await past
            assert events[0].attempts == 0
            fine = await pool.submit("fine", deadline=math.inf)
            await fine
            assert seen == [("running", 5), ("fine", None)]
            s = conserved(pool)
            assert (s.done, s.failed) == (1, 3)

    simulate(run)


def test_a_deadline_stops_retries_that_would_come_too_late():
    async def run():
        async def work(item):
            raise OSError("its own")

        retry = Retry(on=OSError, backoff=Constant(3, jitter="none"))
        async with WorkerPool(work, retry=retry) as pool:
            handle = await pool.submit(1, deadline=5)
            with pytest.raises(OSError, match="its own"):
                await handle
            assert monotonic() == 3
            handle = await pool.submit(1, deadline=7)
            assert handle.cancel()

    simulate(run)


def test_a_deadline_that_passed_while_the_loop_was_blocked(monkeypatch):
    async def run():
        async def work(item):
            raise AssertionError

        async with WorkerPool(work) as pool:
            pool.pause()
            handle = await pool.submit(1, deadline=1)
            follower = await pool.submit(2, deadline=1, key="k")
            other = await pool.submit(2, key="k")
            # No timer has rung yet, but it is late already: as if something had blocked the loop.
            for module in ("shift", "worker"):
                monkeypatch.setattr(f"aiopatterns.flow.{module}.monotonic", lambda: 5.0)
            pool.resume()
            await sleep(0)
            monkeypatch.undo()
            for each in (handle, follower):
                with pytest.raises(TimeoutExceededError):
                    await each
            with pytest.raises(AssertionError):
                await other
            assert monotonic() < 1
            conserved(pool)

    simulate(run)


def test_rate_spaces_the_starts():
    async def run():
        starts = []

        async def work(item):
            starts.append(monotonic())

        async with WorkerPool(work, workers=4, rate=TokenBucket(Rate(1), burst=1)) as pool:
            for item in range(5):
                await pool.submit(item)
            conserved(pool)
        assert starts == [0, 1, 2, 3, 4]

    simulate(run)


def test_a_token_goes_to_the_highest_priority_there_is_by_then():
    async def run():
        order = []

        async def work(item):
            order.append(item)

        async with WorkerPool(work, workers=2, rate=TokenBucket(Rate(1), burst=1)) as pool:
            for item in "abc":
                await pool.submit(item)
            await sleep(0.5)
            await pool.submit("high", priority=1)
        assert order == ["a", "high", "b", "c"]

    simulate(run)


def test_a_refused_token_fails_the_item():
    async def run():
        class Refusing:
            calls = 0

            async def acquire(self):
                self.calls += 1
                if self.calls < 3:
                    await sleep(1)
                    raise RateLimitedError("no token")

        rate = Refusing()
        async with WorkerPool(double, rate=rate) as pool:
            with pytest.raises(RateLimitedError):
                await pool.run(1)
            handle = await pool.submit(1)
            await sleep(0.5)
            handle.cancel()
            await sleep(2)
            assert await pool.run(1) == 2
            s = conserved(pool)
            assert (s.done, s.failed, s.cancelled) == (1, 1, 1)

    simulate(run)


@pytest.mark.parametrize("wait", [0, 1])
def test_each_refused_token_fails_one_item_and_no_item_is_forgotten(wait):
    async def run():
        class Refusing:
            calls = 0

            async def acquire(self):
                self.calls += 1
                if wait:
                    await sleep(wait)
                if self.calls <= 3:
                    raise RateLimitedError("no token")

        async with WorkerPool(double, workers=1, rate=Refusing()) as pool:
            handles = [await pool.submit(n) for n in range(5)]
            for handle in handles[:3]:
                with pytest.raises(RateLimitedError):
                    await handle
            assert [await handle for handle in handles[3:]] == [6, 8]
            s = conserved(pool)
            assert (s.done, s.failed) == (2, 3)

    explore(run, range(20))


def test_a_limiter_may_refuse_in_the_turn_of_a_cancel():
    async def run():
        class Gate:
            def __init__(self):
                self.future = asyncio.get_running_loop().create_future()

            async def acquire(self):
                await self.future

        rate = Gate()
        async with WorkerPool(double, rate=rate) as pool:
            handle = await pool.submit(1)
            await sleep(1)
            rate.future.set_exception(RateLimitedError("no"))
            handle.cancel()
            await sleep(1)
            assert handle.status is CANCELLED
            assert conserved(pool).cancelled == 1

    simulate(run)


def test_a_limiter_that_cancels_itself_ends_its_item():
    async def run():
        class Broken:
            async def acquire(self):
                raise asyncio.CancelledError

        async with WorkerPool(double, rate=Broken()) as pool:
            with pytest.raises(
                JobCancelledError, match="rate limit of pool 'double' cancelled itself"
            ):
                await pool.run(1)
            assert conserved(pool).failed == 1

    simulate(run)


def test_a_token_that_comes_in_the_turn_of_a_cancel_serves_the_next():
    async def run():
        class Gate:
            def __init__(self):
                self.taken = 0
                self.future: Any = None

            async def acquire(self):
                self.future = asyncio.get_running_loop().create_future()
                await self.future
                self.taken += 1

        rate = Gate()

        async def slow(item):
            await sleep(1)  # is not hit by the cancellation of another item
            return item * 2

        async with WorkerPool(slow, workers=1, rate=rate) as pool:
            first, second = await pool.submit(1), await pool.submit(2)
            await sleep(1)
            rate.future.set_result(None)
            first.cancel()
            assert await second == 4
            assert rate.taken == 1
            third = await pool.submit(3)
            await sleep(1)
            rate.future.set_result(None)
            third.cancel()  # nobody is left for that token
            await sleep(1)
            fourth = await pool.submit(4)
            await sleep(1)
            rate.future.set_result(None)
            assert await fourth == 8
            assert rate.taken == 3

    simulate(run)


def test_a_pause_holds_an_item_that_has_its_token():
    async def run():
        async with WorkerPool(double, workers=1, rate=TokenBucket(Rate(1), burst=1)) as pool:
            await pool.run(1)
            handles = [await pool.submit(n) for n in (2, 3)]
            await sleep(0.5)
            pool.pause()
            await sleep(2)
            assert handles[0].status is QUEUED
            handles[0].cancel()
            await sleep(1)
            assert handles[1].status is QUEUED
            pool.resume()
            assert await handles[1] == 6
            conserved(pool)

    simulate(run)


def test_a_pool_left_by_an_error_drops_what_waits_for_a_token():
    async def run():
        with pytest.raises(KeyError):
            async with WorkerPool(double, workers=2, rate=TokenBucket(Rate(1), burst=1)) as pool:
                handles = [await pool.submit(n) for n in range(5)]
                await sleep(1.5)
                raise KeyError
        s = conserved(pool)
        assert (s.done, s.dropped, s.queued) == (2, 3, 0)
        assert [handle.status for handle in handles] == [
            DONE,
            DONE,
            CANCELLED,
            CANCELLED,
            CANCELLED,
        ]

    simulate(run)


def test_a_token_granted_in_the_turn_in_which_the_pool_is_left_starts_nothing():
    async def run():
        class Gate:
            future: Any = None

            async def acquire(self):
                self.future = asyncio.get_running_loop().create_future()
                await self.future

        rate = Gate()
        with pytest.raises(KeyError):
            async with WorkerPool(double, rate=rate) as pool:
                await pool.submit(1)
                await sleep(1)
                rate.future.set_result(None)
                raise KeyError
        s = conserved(pool)
        assert (s.done, s.dropped) == (0, 1)

    simulate(run)


# ------------------------------------------------------------------------------------- stream


async def test_stream_gives_an_outcome_for_each_item():
    async def work(item):
        if item == 3:
            raise ValueError("three")
        return item

    async with WorkerPool(work, workers=2) as pool:
        async with pool.stream(range(6), ordered=True) as outcomes:
            found = [outcome async for outcome in outcomes]
        assert [outcome.index for outcome in found] == list(range(6))
        assert [type(outcome) for outcome in found] == [Ok, Ok, Ok, Err, Ok, Ok]
        assert all(outcome.attempts == 1 and outcome.elapsed >= 0 for outcome in found)
        async with pool.stream(range(6), errors="skip") as results:
            assert sorted([result async for result in results]) == [0, 1, 2, 4, 5]
        with pytest.raises(ValueError, match="three") as caught:
            async with pool.stream(range(6), ordered=True, errors="raise") as results:
                async for _ in results:
                    pass
        assert "raised by the call for item 3" in caught.value.__notes__


# ------------------------------------------------------------------------------------ context

variable: ContextVar[str] = ContextVar("variable", default="nobody's")


async def test_an_item_sees_the_variables_of_its_submitter():
    seen = []

    async def work(item):
        seen.append((item, variable.get(), correlation_id()))
        variable.set(f"set by {item}")
        await yield_now()
        assert variable.get() == f"set by {item}"

    async with WorkerPool(work, workers=1) as pool:
        for item in range(3):
            with bind_correlation(f"id {item}"):
                token = variable.set(f"submitter {item}")
                await pool.submit(item)
                variable.reset(token)
    assert seen == [(n, f"submitter {n}", f"id {n}") for n in range(3)]


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.promise("flow-bad-input", "regression-10-senseless-numbers")
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"fn": 1}, TypeError, "fn must be a function, not 1"),
        ({"workers": 0}, ValueError, "workers must be a whole number >= 1, not 0"),
        ({"workers": -1}, ValueError, "workers must be"),
        ({"workers": 2.5}, TypeError, "workers must be"),
        ({"workers": True}, TypeError, "workers must be"),
        ({"queue": 0}, ValueError, "queue must be a whole number >= 1, not 0"),
        ({"queue": math.inf}, TypeError, "queue must be"),
        ({"retry": 3}, TypeError, "retry must be a Retry or None, not 3"),
        ({"rate": 3}, TypeError, "rate must be a limiter"),
        ({"timeout": 0}, ValueError, "timeout must be"),
        ({"timeout": math.nan}, ValueError, "timeout must be"),
        ({"timeout": -1}, ValueError, "timeout must be"),
        ({"timeout": "1"}, TypeError, "timeout must be"),
        ({"rate": TokenBucket}, TypeError, "rate must be a limiter"),
        ({"policy": 3}, TypeError, "policy must be a function"),
        ({"policy": never}, TypeError, "policy must be a plain function"),
        ({"policy": lambda _: None}, TypeError, "what policy returns must be a function"),
        ({"resource": 3}, TypeError, "resource must be a function"),
        ({"resource": never}, TypeError, "resource must be a plain function"),
    ],
)
def test_senseless_arguments_are_refused(arguments, error, text):
    with pytest.raises(error, match=text):
        WorkerPool(**{"fn": double, **arguments})


@pytest.mark.promise("flow-bad-input")
@pytest.mark.parametrize(
    ("terms", "error", "text"),
    [
        ({"priority": 1.5}, TypeError, "priority must be a whole number, not 1.5"),
        ({"priority": False}, TypeError, "priority must be"),
        ({"priority": None}, TypeError, "priority must be"),
        ({"key": []}, TypeError, r"key must be hashable, not \[\]"),
        ({"deadline": math.nan}, ValueError, "deadline must be"),
        ({"deadline": "soon"}, TypeError, "deadline must be"),
    ],
)
async def test_senseless_terms_are_refused_and_nothing_is_accepted(terms, error, text):
    async with WorkerPool(double) as pool:
        with pytest.raises(error, match=text):
            await pool.submit(1, **terms)
        with pytest.raises(error, match=text):
            await pool.run(1, **terms)
        with pytest.raises(error, match=text):
            pool.submit_nowait(1, **terms)
        assert conserved(pool).accepted == 0


async def test_a_deadline_may_be_any_number_however_great():
    async with WorkerPool(double) as pool:
        for endless in (math.inf, 10**400, sys.float_info.max):
            assert await pool.run(1, deadline=endless) == 2
        for over in (-math.inf, -(10**400), -1):
            with pytest.raises(TimeoutExceededError):
                await pool.run(1, deadline=over)
        assert conserved(pool).failed == 3


@pytest.mark.promise("flow-bad-input")
async def test_senseless_calls_are_refused():
    async with WorkerPool(double) as pool:
        for wrong, error in [(0, ValueError), (-1, ValueError), (1.5, TypeError)]:
            with pytest.raises(error, match="n must be a whole number >= 1"):
                pool.resize(wrong)
        with pytest.raises(TypeError, match="items must be an iterable"):
            pool.stream(3)
        with pytest.raises(ValueError, match="errors must be one of"):
            pool.stream([], errors="ignore")
        assert await pool.run(1) == 2
    async with WorkerPool(double, workers=Autoscale(1, 2)) as pool:
        with pytest.raises(RuntimeError, match="sizes itself"):
            pool.resize(2)


# ------------------------------------------------------------------------------- the model


class Model:
    """What a pool should do, as a list of items and a clock; nothing takes time but the items."""

    def __init__(self, limit):
        self.limit, self.paused, self.time, self.items = limit, False, 0.0, []

    def submit(self, priority, key, seconds, fails):
        self.items.append([QUEUED, priority, key, seconds, fails, None])

    def ready(self):
        held, ready = set(), []
        for each in self.items:
            if each[0] is RUNNING and each[2]:
                held.add(each[2])
        for each in self.items:
            if each[0] is QUEUED and each[2] not in held:
                ready.append(each)
                held |= {each[2]} - {None}
        return sorted(ready, key=lambda each: -each[1])

    def start(self):
        while not self.paused and self.count(RUNNING) < self.limit and (ready := self.ready()):
            ready[0][0], ready[0][5] = RUNNING, self.time + ready[0][3]

    def advance(self, until):
        self.start()
        while running := [e for e in self.items if e[0] is RUNNING and e[5] <= until]:
            first = min(running, key=lambda each: each[5])
            self.time, first[0] = first[5], FAILED if first[4] else DONE
            self.start()
        self.time = until

    def cancel(self, number):
        if self.items[number][0] in (QUEUED, RUNNING):
            self.items[number][0] = CANCELLED

    def count(self, status):
        return sum(each[0] is status for each in self.items)


step = st.one_of(
    st.tuples(
        st.just("submit"),
        st.integers(-1, 1),
        st.sampled_from([None, None, "a", "b"]),
        st.integers(0, 5),
        st.booleans(),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 40)),
    st.tuples(st.just("resize"), st.integers(1, 4)),
    st.tuples(st.just("pause")),
    st.tuples(st.just("resume")),
    st.tuples(st.just("advance"), st.integers(1, 6)),
)
histories = st.tuples(
    st.lists(step, max_size=30), st.sampled_from(["leave", "fail"]), st.integers(0, 1000)
)


@given(histories)
@pytest.mark.promise("flow-conservation")
def test_a_pool_does_what_the_model_says(history):
    steps, end, seed = history
    simulate(lambda: follow(steps, end), seed)


async def follow(steps, end):
    model = Model(2)
    handles: list[Any] = []

    async def work(spec):
        seconds, fails = spec
        conserved(pool)
        await sleep(seconds)
        conserved(pool)
        if fails:
            raise OSError

    async def compare():
        await sleep(1e-6)  # virtual time moves when nothing else does
        model.advance(monotonic())
        assert [handle.status for handle in handles] == [each[0] for each in model.items]
        s = conserved(pool)
        assert (s.queued, s.running) == (model.count(QUEUED), model.count(RUNNING))
        assert (s.done, s.failed, s.cancelled) == (
            model.count(DONE),
            model.count(FAILED),
            model.count(CANCELLED),
        )

    pool = WorkerPool(work, workers=2, queue=1000)
    try:
        async with pool:
            at_every_turn(lambda: conserved(pool))
            for number, (verb, *values) in enumerate(steps):
                if verb == "submit":
                    priority, key, seconds, fails = values
                    seconds += 0.0137 * (number + 1)  # no two ends at one time
                    model.submit(priority, key, seconds, fails)
                    handles.append(await pool.submit((seconds, fails), priority=priority, key=key))
                elif verb == "cancel" and handles:
                    model.cancel(values[0] % len(handles))
                    handles[values[0] % len(handles)].cancel()
                elif verb == "resize":
                    model.limit = values[0]
                    pool.resize(values[0])
                elif verb == "pause":
                    model.paused = True
                    pool.pause()
                elif verb == "resume":
                    model.paused = False
                    pool.resume()
                elif verb == "advance":
                    await sleep(values[0])
                await compare()
            if end == "fail":
                raise KeyError
    except KeyError:
        assert conserved(pool).cancelled == model.count(CANCELLED) + model.count(RUNNING)
        assert pool.statistics().dropped == model.count(QUEUED)
    else:
        model.paused = False
        model.advance(math.inf)
        assert [handle.status for handle in handles] == [each[0] for each in model.items]
    s = conserved(pool)
    assert (s.queued, s.running, s.workers) == (0, 0, 0)


# --------------------------------------------------------------------------- disturbances


async def busy(fault=lambda: None):
    """Everything at once, checked at every turn; the shape of a real program."""

    @asynccontextmanager
    async def connect():
        await yield_now()
        fault()
        yield "connection"
        fault()

    tries: dict[Any, int] = {}

    async def work(item, connection):
        conserved(pool)
        fault()
        tries[item] = tries.get(item, 0) + 1
        await sleep(0.001 * (item % 3))
        conserved(pool)
        if item % 4 == 1 and tries[item] == 1:
            raise OSError
        return item

    def watch(event):
        conserved(pool)

    pool = WorkerPool(
        work,
        workers=3,
        queue=4,
        retry=Retry(on=OSError, attempts=3, backoff=Constant(0.002, jitter="none")),
        rate=SlidingWindow(Rate(5, per=0.01)),
        timeout=1,
        resource=connect,
    )
    at_every_turn(lambda: conserved(pool))
    from aiopatterns.core.telemetry import listen

    with listen(watch):
        async with pool:
            handles = [await pool.submit(n, key=n % 2, priority=n % 3) for n in range(6)]
            handles[5].cancel()
            assert await pool.run(8) == 8
            async with pool.stream(range(10, 14), ordered=True) as outcomes:
                async for outcome in outcomes:
                    conserved(pool)
                    if outcome.index == 2:
                        break
            pool.resize(2)
            late = [await pool.submit(n) for n in range(20, 27)]
            await late[3]
            await pool.run(28)
            await pool.drain()
        s = conserved(pool)
        assert (s.queued, s.running, s.workers) == (0, 0, 0)
        assert all(handle.status in (DONE, FAILED, CANCELLED) for handle in handles)
    return pool


@pytest.mark.promise(
    "flow-conservation", "flow-cancel-native", "flow-cancel-scope", "flow-cancel-timeout"
)
@pytest.mark.parametrize("kind", ["native", "scope", "timeout", "native-twice"])
def test_cancelled_at_every_await(kind):
    pools: list[Any] = []

    def trial():
        pools.clear()
        return Trial(remember(), check)

    async def remember():
        original = WorkerPool.__init__

        def made(self, *args, **kwargs):
            original(self, *args, **kwargs)
            pools.append(self)

        WorkerPool.__init__ = made
        try:
            await busy()
        finally:
            WorkerPool.__init__ = original

    def check():
        for pool in pools:
            s = conserved(pool)
            assert (s.queued, s.running, s.workers) == (0, 0, 0)

    cancel_everywhere(trial, kinds=(kind,), minimum=8)


@pytest.mark.promise("flow-fail-everywhere", "flow-conservation")
def test_every_call_of_user_code_may_fail():
    def trial(fault):
        async def work():
            try:
                await busy(fault)
            except AssertionError:
                raise

        return work()

    fail_everywhere(trial, minimum=10)


@pytest.mark.promise("flow-seeds", "flow-conservation")
def test_two_hundred_schedules():
    explore(busy, range(200))


@pytest.mark.promise("flow-seeds")
def test_two_hundred_schedules_of_cancels_and_resizes():
    async def run():
        loop = asyncio.get_running_loop()
        chance = __import__("random").Random(loop.time())
        running = 0

        async def work(item):
            nonlocal running
            running += 1
            assert running <= 4
            try:
                await sleep(chance.random())
                if item % 5 == 0:
                    raise OSError
            finally:
                running -= 1
                conserved(pool)

        retry = Retry(on=OSError, attempts=2, backoff=Constant(0.1, jitter="none"))
        async with WorkerPool(work, workers=4, retry=retry, timeout=0.9) as pool:
            at_every_turn(lambda: conserved(pool))
            handles = []
            for item in range(16):
                handles.append(await pool.submit(item, key=item % 7, priority=item % 3))
                if item % 3 == 0:
                    handles[chance.randrange(len(handles))].cancel()
                if item % 10 == 5:
                    pool.resize(chance.randint(1, 4))
        s = conserved(pool)
        assert (s.accepted, s.queued, s.running) == (16, 0, 0)
        for handle in handles:
            assert handle.status in (DONE, FAILED, CANCELLED)

    explore(run, range(200))
