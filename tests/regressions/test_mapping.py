"""Known failures of other libraries that a map must not have; each row is a named case."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from contextvars import ContextVar

import anyio
import pytest

from aiopatterns.core.clock import monotonic, sleep, yield_now
from aiopatterns.core.errors import ClosedError, JobCancelledError
from aiopatterns.flow import amap, produce_consume, stream_map
from aiopatterns.resilience import Constant, Retry
from aiopatterns.testing import explore, leak_guard, simulate

trace: ContextVar[str] = ContextVar("trace", default="none")


async def nap(number: int) -> int:
    await sleep(1)
    return number


async def numbers(count: int):
    for number in range(count):
        yield number


@pytest.mark.promise("regression-03-consumer-breaks-early")
@pytest.mark.parametrize("source", [range, numbers])
def test_the_consumer_breaks_while_a_worker_is_about_to_finish(source):
    # p-map #94: the others went on after the break.
    async def run() -> None:
        calls = 0

        async def call(number: int) -> int:
            nonlocal calls
            calls += 1
            await sleep(1 if number else 0.5)
            return number

        async with leak_guard():
            async with stream_map(call, source(100), 8) as results:
                async for _ in results:
                    await sleep(0.5)  # the other seven finish in this very turn
                    break
            before = calls
            await sleep(10)
        assert calls == before <= 16

    explore(run, range(100))


@pytest.mark.promise("regression-04-slow-head-ordered")
def test_a_slow_head_holds_back_only_what_the_window_allows():
    # aiostream #89: with a slow head nothing new was started at all.
    async def run() -> None:
        started: list[int] = []

        async def call(number: int) -> int:
            started.append(number)
            await sleep(100 if number == 0 else 1)
            return number

        async with stream_map(call, range(1000), 4, ordered=True, window=40) as results:
            reader = asyncio.create_task(anext(results))
            await sleep(50)
            assert started == list(range(40))
            assert results.statistics().running == 1
            assert await reader == 0
            assert monotonic() < 101
            assert [await anext(results) for _ in range(39)] == list(range(1, 40))

    simulate(run)


@pytest.mark.promise("regression-05-limit-observed")
def test_no_more_than_limit_run_with_an_async_source_and_a_wide_window():
    # p-map #76: with back-pressure on, the concurrency was exceeded.
    async def run() -> None:
        running = most = 0

        async def call(number: int) -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await sleep(1)
            running -= 1
            return number

        async with stream_map(call, numbers(100), 3, window=50) as results:
            async for _ in results:
                assert results.statistics().running <= 3
                await sleep(0.1)
        assert most == 3

    explore(run, range(50))


@pytest.mark.promise("regression-10-senseless-numbers")
@pytest.mark.parametrize(
    ("given", "name"),
    [
        *[({"limit": value}, "limit") for value in (0, -1, 1.5, float("nan"), True, None)],
        *[({"window": value}, "window") for value in (0, 7, -1, float("nan"), 8.0)],
        *[({"timeout": value}, "timeout") for value in (0, -1, float("nan"), float("inf"))],
    ],
)
async def test_senseless_numbers_are_refused(given, name):
    # futures-rs #2876: buffered(0) hung.
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        stream_map(nap, range(3), **given)
    if "limit" in given:
        with pytest.raises((TypeError, ValueError), match="limit must be"):
            await amap(nap, range(3), **given)
        with pytest.raises((TypeError, ValueError), match="consumers must be"):
            await produce_consume(range(3), nap, consumers=given["limit"])


@pytest.mark.promise("regression-15-user-code-swallows-cancel")
@pytest.mark.parametrize("how", ["swallows", "replaces"])
def test_a_call_that_swallows_or_replaces_its_cancellation(how):
    async def run() -> None:
        calls = 0

        async def stubborn(number: int) -> int:
            nonlocal calls
            calls += 1
            try:
                await sleep(1 if number == 0 else 100)
            except asyncio.CancelledError:
                if how == "replaces":
                    raise OSError(number) from None
            if number == 0:
                raise ValueError(number)
            return number

        with pytest.raises(ValueError, match="0"):
            await amap(stubborn, range(50), limit=4)
        assert calls == 4
        async with stream_map(stubborn, range(50), 4) as results:
            with pytest.raises(ValueError, match="0"):
                async for _ in results:
                    pass
        figures = results.statistics()
        assert calls == 8
        assert figures.accepted == figures.done + figures.failed == 4
        async with stream_map(stubborn, range(1, 50), 4) as results:
            await sleep(1)
        assert calls == 12
        for work in (amap(stubborn, range(1, 50), 4), produce_consume(range(1, 50), stubborn)):
            calls = 0
            task = asyncio.create_task(work)
            await sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert calls in {3, 4}
            calls = 0
            with anyio.move_on_after(1):
                await amap(stubborn, range(1, 50), 4)
            assert calls <= 8  # a worker may be told before the map itself is

    simulate(run)


@pytest.mark.promise("regression-15-user-code-swallows-cancel")
async def test_a_call_that_raises_a_cancellation_by_itself():
    async def call(number: int) -> int:
        if number == 1:
            dead: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            dead.cancel()
            return await dead
        return number

    async with stream_map(call, range(3), 1, errors="collect") as results:
        found = [each async for each in results]
    assert [each.ok for each in found] == [True, False, True]
    with pytest.raises(JobCancelledError):
        found[1].unwrap()
    with pytest.raises(JobCancelledError):
        await amap(call, range(3))


@pytest.mark.promise("regression-16-user-code-own-group")
@pytest.mark.parametrize("kind", ["anyio", "asyncio"])
@pytest.mark.parametrize("end", ["break", "scope", "native", "failure"])
def test_a_call_with_its_own_task_group_is_cancelled_cleanly(kind, end):
    async def run() -> None:
        alive = 0

        async def child() -> None:
            nonlocal alive
            alive += 1
            try:
                await sleep(100)
            finally:
                alive -= 1

        async def call(number: int) -> None:
            if number == 3:
                await sleep(1)
                if end == "failure":
                    raise ValueError(number)
                return
            if kind == "anyio":
                async with anyio.create_task_group() as group:
                    group.start_soon(child)
                    group.start_soon(child)
            else:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(child())
                    tasks.create_task(child())

        async def read() -> None:
            async with stream_map(call, range(100), 4) as results:
                async for _ in results:
                    if end == "break":
                        break

        if end == "break":
            await read()
        elif end == "failure":
            with pytest.raises(ValueError, match="3"):
                await read()
        elif end == "scope":
            with anyio.move_on_after(5):
                await read()
        else:
            task = asyncio.create_task(read())
            await sleep(5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert alive == 0
        assert monotonic() < 6

    explore(run, range(20))


@pytest.mark.promise("regression-17-counters-across-await")
def test_the_counts_are_exact_with_many_workers():
    async def run() -> None:
        async with stream_map(nap, range(500), 50) as results:
            read = 0
            async for _ in results:
                read += 1
                figures = results.statistics()
                assert figures.accepted == figures.done + figures.running
                assert figures.unread == figures.done - read
        assert (read, results.statistics().done) == (500, 500)

    simulate(run)


@pytest.mark.promise("regression-18-source-fails")
@pytest.mark.parametrize("ordered", [True, False])
def test_a_source_that_raises_midway(ordered):
    async def run() -> None:
        async def source():
            for number in range(10):
                yield number
            raise OSError("lost")

        found = []
        async with stream_map(nap, source(), 3, ordered=ordered) as results:
            with pytest.raises(OSError, match="lost"):
                async for each in results:
                    found.append(each)
        assert sorted(found) == list(range(10))

    simulate(run)


@pytest.mark.promise("regression-18-source-fails")
@pytest.mark.parametrize("how", ["raises", "yields"])
async def test_a_source_that_raises_or_yields_when_it_is_closed(how):
    async def source():
        try:
            while True:
                yield 1
        finally:
            if how == "raises":
                raise OSError("in close")
            yield 2

    async def call(number: int) -> int:
        return number

    with pytest.raises((OSError, RuntimeError), match=r"in close|ignored GeneratorExit") as caught:
        async with stream_map(call, source(), 2) as results:
            await anext(results)
    assert caught.value.__notes__ == ["raised by the source of the items, when it was closed"]


@pytest.mark.promise("regression-19-retry-pending-at-end")
def test_a_retry_that_waits_when_the_map_is_left_is_given_up():
    async def run() -> None:
        calls = 0

        async def call(number: int) -> int:
            nonlocal calls
            calls += 1
            raise OSError(number)

        retry = Retry(on=OSError, attempts=9, backoff=Constant(60))
        async with leak_guard():
            async with stream_map(call, range(2), 2, retry=retry) as results:
                await sleep(1)
                assert results.statistics().queued == 2
            await sleep(600)
        assert calls == 2
        assert results.statistics().cancelled == 2

    simulate(run)


@pytest.mark.promise("regression-20-retry-within-limit")
def test_retries_never_exceed_the_limit():
    # Argo #10137: retries ran beside the parallelism.
    async def run() -> None:
        running = 0

        async def call(number: int) -> int:
            nonlocal running
            running += 1
            assert running <= 3
            await sleep(1)
            running -= 1
            if number % 2:
                raise OSError(number)
            return number

        retry = Retry(on=OSError, attempts=4, backoff=Constant(0.5))
        async with stream_map(call, range(30), 3, retry=retry, errors="skip") as results:
            assert len([each async for each in results]) == 15
        assert results.statistics().retries == 45

    explore(run, range(20))


@pytest.mark.promise("regression-23-dropped-unused")
def test_a_map_that_was_never_entered_is_collected_silently():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = stream_map(nap, range(3), retry=Retry(on=OSError), timeout=3)
        iterator = aiter(results)
        del results, iterator
        gc.collect()


@pytest.mark.promise("regression-24-wrong-loop-or-closed")
def test_use_outside_and_after_is_one_clear_error_and_loops_may_follow_one_another():
    results = stream_map(nap, [1], timeout=30)

    async def use() -> None:
        with pytest.raises(ClosedError, match="async with stream_map"):
            await anext(results)
        async with results:
            assert [each async for each in results] == [1]
        with pytest.raises(ClosedError, match="async with stream_map"):
            await anext(results)

    simulate(use)
    simulate(use)


@pytest.mark.untraced
@pytest.mark.promise("regression-25-cancel-ten-thousand")
def test_cancelling_ten_thousand_calls_half_of_them_in_shielded_cleanup():
    # anyio #1111, #1257: the loop spun until the last of them had left.
    running = 0

    async def call(number: int) -> None:
        nonlocal running
        running += 1
        try:
            await anyio.sleep(60)
        finally:
            if number % 2:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.2)
            running -= 1

    async def run() -> float:
        async with stream_map(call, range(10_000), 10_000):
            while running < 10_000:
                await anyio.sleep(0.01)
            busy = time.process_time()
        return time.process_time() - busy

    busy = asyncio.run(run())
    assert running == 0
    assert busy < 5


@pytest.mark.promise("regression-26-context-travels")
@pytest.mark.parametrize("source", [range, numbers])
async def test_context_variables_of_the_caller_reach_each_call_and_leak_to_no_other(source):
    async def call(number: int) -> str:
        seen = trace.get()
        trace.set(f"item {number}")
        await yield_now()
        return seen

    trace.set("request 7")
    assert await amap(call, source(20), limit=3) == ["request 7"] * 20
    async with stream_map(call, source(20), 3) as results:
        trace.set("changed later")
        assert [each async for each in results] == ["request 7"] * 20
    retry = Retry(on=OSError, attempts=2, backoff=Constant(0))
    trace.set("request 8")
    async with stream_map(call, source(20), 3, retry=retry, timeout=60) as results:
        assert [each async for each in results] == ["request 8"] * 20
    assert trace.get() == "request 8"
