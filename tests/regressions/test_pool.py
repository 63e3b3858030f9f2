"""Known failures of other libraries that a worker pool must not have; each row is a named case."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import warnings
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from aiopatterns import testing
from aiopatterns.core.clock import monotonic, sleep, yield_now
from aiopatterns.core.errors import ClosedError, JobCancelledError
from aiopatterns.flow import pool as flow_pool
from aiopatterns.flow.handle import HandleStatus
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.ratelimit import Rate, SlidingWindow, TokenBucket
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import simulate

# Typed in tests/typing; tests do on purpose what types forbid.
WorkerPool: Any = flow_pool.WorkerPool
capture_events: Any = testing.capture_events

IN_A_SECOND = Constant(1, jitter="none")


def conserved(pool):
    s = pool.statistics()
    assert s.accepted == s.done + s.failed + s.cancelled + s.dropped + s.queued + s.running, s
    return s


async def double(item):
    return item * 2


async def forever(item):
    await asyncio.get_running_loop().create_future()


async def until_running(pool, number=1):
    while pool.statistics().running < number:
        await yield_now()


@pytest.mark.promise("regression-06-cancel-queued-and-running")
async def test_a_queued_and_a_running_item_cancelled_in_one_turn():
    # p-queue #168: the queue hung.
    async with WorkerPool(forever, workers=1) as pool:
        running, queued, next_one = [await pool.submit(n) for n in range(3)]
        await until_running(pool)
        for handle in (running, queued):
            handle.cancel()
        for handle in (running, queued):
            with pytest.raises(JobCancelledError):
                await handle
        await until_running(pool)
        assert next_one.status is HandleStatus.RUNNING
        next_one.cancel()
    assert conserved(pool).cancelled == 3


@pytest.mark.promise("regression-07-cancelled-takes-no-rate")
def test_cancelled_queued_items_take_no_token():
    # p-queue #219: what was aborted in the queue ate the rate.
    async def run():
        starts = []

        async def work(item):
            starts.append((item, monotonic()))

        async with WorkerPool(work, workers=4, rate=TokenBucket(Rate(1), burst=1)) as pool:
            handles = [await pool.submit(n) for n in range(10)]
            await sleep(0.5)
            for handle in handles[1:9]:
                handle.cancel()
        assert starts == [(0, 0), (9, 1)]

    simulate(run)


@pytest.mark.promise("regression-08-cancelled-submit-settles")
async def test_a_submit_whose_caller_is_cancelled_already():
    # p-queue #241: neither accepted nor refused, and never settled.
    async with WorkerPool(double, workers=1, queue=1) as pool:
        pool.pause()
        with anyio.CancelScope() as scope:
            scope.cancel()
            handle = await pool.submit(1)  # there is room: accepted without a wait
        with anyio.CancelScope() as scope:
            scope.cancel()
            await pool.submit(2)  # there is none: the wait is where the cancellation arrives
        assert scope.cancelled_caught
        assert conserved(pool).accepted == 1
        pool.resume()
        assert await handle == 2
        with anyio.CancelScope() as scope:
            scope.cancel()
            await pool.run(3)
        assert scope.cancelled_caught
        s = conserved(pool)
        assert (s.queued, s.running, s.accepted) == (0, 0, 2)


@pytest.mark.promise("regression-09-window-edge-burst")
def test_starts_stay_within_the_rate_at_a_windows_edge_and_after_idling():
    # p-queue #126, #236, #251: twice the rate around the edge of a fixed window.
    async def run():
        starts = []

        async def work(item):
            starts.append(monotonic())

        async with WorkerPool(work, workers=8, queue=100, rate=SlidingWindow(Rate(5))) as pool:
            await sleep(0.9)
            for item in range(5):
                await pool.submit(item)
            await sleep(0.2)
            for item in range(10):
                await pool.submit(item)
            await sleep(7.35)  # idle, into the middle of some window
            for item in range(10):
                await pool.submit(item)
        assert len(starts) == 25
        for start in starts:
            assert sum(start <= each < start + 1 - 1e-9 for each in starts) <= 5

    simulate(run)


@pytest.mark.promise("regression-15-user-code-swallows-cancel")
@pytest.mark.parametrize("behaviour", ["swallows", "replaces", "raises", "swallows twice"])
@pytest.mark.parametrize("ending", ["cancel", "leave"])
async def test_a_function_that_does_as_it_likes_with_its_cancellation(behaviour, ending):
    async def work(item):
        if behaviour == "raises":
            raise asyncio.CancelledError
        for _ in range(2 if behaviour == "swallows twice" else 1):
            try:
                await forever(item)
            except asyncio.CancelledError:
                if behaviour == "replaces":
                    raise ValueError("in place of the cancellation") from None
        return "still here"

    with pytest.raises(KeyError):
        async with WorkerPool(work, workers=2) as pool:
            handles = [await pool.submit(n) for n in range(4)]
            if behaviour != "raises":
                await until_running(pool, 2)
            if ending == "cancel":
                for handle in handles:
                    handle.cancel()
                await pool.drain()
                conserved(pool)
            raise KeyError
    s = conserved(pool)
    assert (s.queued, s.running) == (0, 0)
    for handle in handles:
        assert handle.status not in {HandleStatus.QUEUED, HandleStatus.RUNNING}
        with anyio.fail_after(5), suppress(JobCancelledError, ValueError):
            assert await handle == "still here"


@pytest.mark.promise("regression-16-user-code-own-group")
@pytest.mark.parametrize("group", ["anyio", "asyncio"])
async def test_a_function_with_a_task_group_of_its_own_is_cancelled_cleanly(group):
    ended = []

    async def child():
        try:
            await forever(0)
        finally:
            ended.append(True)

    async def work(item):
        if group == "anyio":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child)
                tasks.start_soon(child)
        else:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(child())
                tasks.create_task(child())

    async with WorkerPool(work, workers=1, timeout=60) as pool:
        for _ in range(3):
            handle = await pool.submit(1)
            await until_running(pool)
            for _ in range(3):
                await yield_now()
            handle.cancel()
            with pytest.raises(JobCancelledError):
                await handle
        s = conserved(pool)
        assert (s.cancelled, s.workers) == (3, 1)
    assert len(ended) == 6


@pytest.mark.promise("regression-19-retry-pending-at-end")
def test_a_retry_that_waits_at_drain_runs():
    async def run():
        attempts = []

        async def work(item):
            attempts.append(monotonic())
            if len(attempts) == 1:
                raise OSError
            return item

        async with WorkerPool(work, retry=Retry(on=OSError, backoff=IN_A_SECOND)) as pool:
            handle = await pool.submit(7)
            await sleep(0.5)
            await pool.drain()
            assert attempts == [0, 1]
            attempts.clear()
            again = await pool.submit(8)
        assert await handle == 7
        assert await again == 8

    simulate(run)


@pytest.mark.promise("regression-19-retry-pending-at-end")
def test_a_retry_that_waits_at_cancel_settles():
    # dagu #1797: it was launched after the cancel.
    async def run():
        attempts = []

        async def work(item):
            attempts.append(item)
            raise OSError

        with pytest.raises(KeyError):
            async with WorkerPool(work, retry=Retry(on=OSError, backoff=IN_A_SECOND)) as pool:
                cancelled, dropped = await pool.submit(1), await pool.submit(2)
                await sleep(0.5)
                cancelled.cancel()
                raise KeyError
        await sleep(5)
        assert sorted(attempts) == [1, 2]
        for handle in (cancelled, dropped):
            with pytest.raises(JobCancelledError):
                await handle

    simulate(run)


@pytest.mark.promise("regression-20-retry-within-limit")
def test_retries_do_not_exceed_the_workers():
    # Argo #10137: they came on top.
    async def run():
        running = peak = 0

        async def work(item):
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            await sleep(1)
            running -= 1
            raise OSError

        retry = Retry(on=OSError, attempts=3, backoff=IN_A_SECOND)
        async with WorkerPool(work, workers=3, retry=retry) as pool:
            for item in range(20):
                await pool.submit(item)
        assert peak == 3
        assert conserved(pool).failed == 20

    simulate(run)


@pytest.mark.promise("regression-22-worker-state-fails")
@pytest.mark.parametrize("stage", ["open", "close"])
async def test_a_resource_of_worker_three_of_eight_fails(stage):
    numbers = iter(range(100))

    @asynccontextmanager
    async def connect():
        number = next(numbers)
        await yield_now()
        if stage == "open" and number == 3:
            raise OSError("cannot connect")
        yield number
        if stage == "close" and number == 3:
            raise OSError("cannot disconnect")

    async def work(item, number):
        await yield_now()
        return item

    with capture_events() as events:
        async with WorkerPool(work, workers=8, resource=connect) as pool:
            handles = [await pool.submit(n) for n in range(100)]
            assert [await handle for handle in handles] == list(range(100))
    assert [(e.worker, e.stage) for e in events] == [(3, stage)]
    assert conserved(pool).done == 100


@pytest.mark.promise("regression-23-dropped-unused")
def test_a_pool_that_was_never_entered_is_collected_silently():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool = WorkerPool(double)
        stream = pool.stream([1, 2, 3])
        del pool, stream
        gc.collect()


@pytest.mark.promise("regression-24-wrong-loop-or-closed")
async def test_use_before_and_after_the_end_is_one_clear_error():
    pool = WorkerPool(double)

    async def refuse_all():
        for verb in (pool.submit(1), pool.run(1), pool.drain()):
            with pytest.raises(ClosedError, match="is not open; use it inside 'async with"):
                await verb
        for verb in (
            lambda: pool.submit_nowait(1),
            pool.pause,
            pool.resume,
            lambda: pool.resize(1),
        ):
            with pytest.raises(ClosedError, match="is not open"):
                verb()

    await refuse_all()
    async with pool:
        handle = await pool.submit(2)
    await refuse_all()
    assert await handle == 4


@pytest.mark.promise("regression-24-wrong-loop-or-closed")
@pytest.mark.real
async def test_use_on_another_loop_is_one_clear_error():
    async def misuse():
        for verb in (pool.submit(1), pool.run(1), pool.drain()):
            with pytest.raises(RuntimeError, match="open on another event loop"):
                await verb
        with pytest.raises(RuntimeError, match="attached to a different loop"):
            await _wait(handle)
        with pytest.raises(RuntimeError, match="open on another event loop"):
            handle.cancel()
        told.append(True)

    def without_a_loop():
        with pytest.raises(RuntimeError, match="open on another event loop"):
            pool.submit_nowait(1)
        told.append(True)

    told: list[Any] = []
    async with WorkerPool(forever) as pool:
        handle = await pool.submit(1)
        for target in (lambda: asyncio.run(misuse()), without_a_loop):
            thread = threading.Thread(target=target)
            thread.start()
            while thread.is_alive():
                await asyncio.sleep(0.001)
        assert conserved(pool).accepted == 1
        handle.cancel()
    assert told == [True, True]


async def _wait(handle):
    return await handle


@pytest.mark.untraced
@pytest.mark.promise("regression-25-cancel-ten-thousand")
@pytest.mark.real
@pytest.mark.timeout(60)
async def test_ten_thousand_items_cancelled_half_of_them_in_shielded_cleanup():
    # anyio #1111, #1257: the delivery of a cancellation to many tasks burned the processor.
    started = 0

    async def work(item):
        nonlocal started
        started += 1
        try:
            await forever(item)
        finally:
            if item % 2:
                with anyio.CancelScope(shield=True):
                    await asyncio.sleep(0.02)

    start = time.process_time()
    with pytest.raises(KeyError):
        async with WorkerPool(work, workers=10_000, queue=10_000) as pool:
            for item in range(10_000):
                await pool.submit(item)
            while started < 10_000:
                await yield_now()
            start = time.process_time()
            raise KeyError
    assert time.process_time() - start < 10  # measured: 1, on a busy machine 2
    assert conserved(pool).cancelled == 10_000


variable: ContextVar[str] = ContextVar("variable", default="nobody's")


@pytest.mark.promise("regression-26-context-travels")
async def test_the_variables_of_the_submitter_reach_its_item_and_no_other():
    async def work(item):
        seen.append((item, variable.get()))
        variable.set("set by an item")
        await yield_now()
        if item == 0 and not tried:
            tried.append(item)
            raise OSError

    seen: list[Any] = []
    tried: list[Any] = []
    retry = Retry(on=OSError, backoff=Constant(0, jitter="none"))
    async with WorkerPool(work, workers=1, retry=retry) as pool:
        for item in range(3):
            variable.set(f"submitter {item}")
            await pool.submit(item)
        variable.set("later")
        async with pool.stream([3]) as outcomes:
            await anext(outcomes)
    assert [pair for pair in seen if pair[0]] == [
        (1, "submitter 1"),
        (2, "submitter 2"),
        (3, "later"),
    ]
    assert seen[0] == (0, "submitter 0")
    assert variable.get() == "later"


PROGRAM = """
import asyncio
from aiopatterns.flow import pool as flow_pool
{function}
async def main():
    pool = WorkerPool(work)
    await pool.__aenter__()
    await pool.submit(1)
    await asyncio.sleep(0.05)
    {ending}
try:
    asyncio.run(main())
except BaseException as error:
    print(type(error).__name__)
print("ended")
"""
ASYNC_WORK = "async def work(item):\n    await asyncio.sleep(3600)"
THREAD_WORK = "import time\ndef work(item):\n    time.sleep(0.3)"


@pytest.mark.promise("regression-27-interpreter-exit")
@pytest.mark.real
@pytest.mark.parametrize("function", [ASYNC_WORK, THREAD_WORK], ids=["async", "thread"])
@pytest.mark.parametrize("ending", ["return", "raise SystemExit", "raise KeyError"])
def test_an_interpreter_that_exits_with_a_live_pool_does_not_hang(function, ending):
    program = PROGRAM.format(function=function, ending=ending)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ended"
