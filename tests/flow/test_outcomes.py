"""Streams through a pool: order, window, sources that fail, readers that leave."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import sleep, yield_now
from aiopatterns.core.errors import ClosedError, JobCancelledError
from aiopatterns.core.outcome import Err, Ok
from aiopatterns.flow import pool as flow_pool
from aiopatterns.flow.channel import Channel
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere, simulate

# Typed in tests/typing; tests do on purpose what types forbid.
WorkerPool: Any = flow_pool.WorkerPool


def conserved(pool):
    s = pool.statistics()
    assert s.accepted == s.done + s.failed + s.cancelled + s.dropped + s.queued + s.running, s
    return s


async def double(item):
    return item * 2


@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=30),
    st.integers(1, 5),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 1000),
)
def test_every_item_has_its_outcome(specs, workers, queue, ordered, seed):
    async def run():
        async def work(spec):
            seconds, fails = spec
            await sleep(seconds)
            if fails:
                raise OSError(seconds)
            return seconds

        async with WorkerPool(work, workers=workers, queue=queue) as pool:
            async with pool.stream(specs, ordered=ordered) as outcomes:
                found = [outcome async for outcome in outcomes]
            assert conserved(pool).accepted == len(specs)
        if ordered:
            assert [outcome.index for outcome in found] == list(range(len(specs)))
        found.sort(key=lambda outcome: outcome.index)
        assert len(found) == len(specs)
        for outcome, (seconds, fails) in zip(found, specs, strict=True):
            assert isinstance(outcome, Err if fails else Ok)
            assert outcome.elapsed == pytest.approx(seconds)

    simulate(run, seed)


def test_a_slow_reader_holds_the_source_back():
    async def run():
        taken = 0

        def source():
            nonlocal taken
            while True:
                taken += 1
                yield taken

        async with (
            WorkerPool(double, workers=2, queue=3) as pool,
            pool.stream(source()) as outcomes,
        ):
            await sleep(1)
            assert taken == 2 + 3
            for read in range(1, 20):
                await anext(outcomes)
                await sleep(1)
                assert taken == read + 2 + 3
            assert conserved(pool).cancelled == 0

    simulate(run)


def test_a_slow_head_of_an_ordered_stream_holds_back_only_the_window():
    async def run():
        done = []

        async def work(item):
            await sleep(100 if item == 0 else 1)
            done.append(item)
            return item

        async with (
            WorkerPool(work, workers=2, queue=4) as pool,
            pool.stream(range(50), ordered=True) as outcomes,
        ):
            await sleep(99)
            assert done == [1, 2, 3, 4, 5]
            assert [outcome.unwrap() async for outcome in outcomes] == list(range(50))

    simulate(run)


@pytest.mark.parametrize("early", [True, False])
def test_the_window_grows_with_the_pool(early):
    async def run():
        running, most = 0, 0

        async def work(item):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await sleep(1)
            running -= 1

        async with WorkerPool(work, workers=1, queue=1) as pool:
            if early:
                pool.resize(8)
            async with pool.stream(range(40), errors="skip") as results:
                async for _ in results:
                    pool.resize(8)
        assert most == 8

    simulate(run)


def test_a_place_kept_for_a_stream_that_is_left_goes_to_the_next():
    async def run():
        go = anyio.Event()

        async def work(item):
            await go.wait()
            return item

        async def submit():
            assert await pool.run("next") == "next"

        async with WorkerPool(work, workers=1, queue=1) as pool, anyio.create_task_group() as group:
            await pool.submit("running")
            await sleep(1)
            waiting = await pool.submit("waiting")
            async with pool.stream(["of the stream"]):
                await sleep(1)
                group.start_soon(submit)
                await sleep(1)
                waiting.cancel()  # its place is kept for the stream
            await sleep(1)
            assert conserved(pool).queued == 1
            go.set()

    explore(run, range(50))


async def test_async_sources_and_streams():
    async def source():
        for item in range(5):
            await yield_now()
            yield item

    channel = Channel[int](10)
    for item in range(5):
        await channel.send(item)
    await channel.aclose()
    async with WorkerPool(double) as pool:
        for items in (source(), channel, [0, 1, 2, 3, 4]):
            async with pool.stream(items, ordered=True, errors="raise") as results:
                assert [result async for result in results] == [0, 2, 4, 6, 8]


async def test_leaving_early_cancels_the_items_of_the_stream_alone():
    closed = []

    async def source():
        try:
            item = 0
            while True:
                yield item
                item += 1
        finally:
            closed.append(True)

    async def work(item):
        if item:
            await asyncio.get_running_loop().create_future()
        return item

    async with WorkerPool(work, workers=3, queue=5) as pool:
        other = await pool.submit(1)
        while pool.statistics().running < 1:
            await yield_now()
        async with pool.stream(source()) as outcomes:
            async for outcome in outcomes:
                assert outcome.unwrap() == 0
                break
        s = conserved(pool)
        assert closed == [True]
        assert (s.running, s.queued) == (1, 0)
        other.cancel()


async def test_an_error_of_the_source_comes_after_what_was_taken():
    def source():
        yield from range(3)
        raise KeyError("source")

    async with WorkerPool(double) as pool:
        async with pool.stream(source()) as outcomes:
            found: list[Any] = []
            with pytest.raises(KeyError, match="source"):
                async for outcome in outcomes:
                    found.append(outcome)
            with pytest.raises(StopAsyncIteration):
                await anext(outcomes)
        assert len(found) == 3


@pytest.mark.parametrize("body", ["leaves", "raises"])
async def test_an_error_of_the_close_of_the_source_is_not_lost(body):
    async def source():
        try:
            while True:
                yield 1
        finally:
            raise KeyError("close")

    async def leave():
        async with pool.stream(source()) as outcomes:
            await anext(outcomes)
            if body == "raises":
                raise ValueError("the body's own")

    async with WorkerPool(double, queue=1, workers=1) as pool:
        expected = KeyError if body == "leaves" else ValueError
        with pytest.raises(expected):
            await leave()


async def test_raise_leaves_bare_and_skip_leaves_out():
    async def work(item):
        if item % 2:
            raise OSError(item)
        return item

    async with WorkerPool(work) as pool:
        async with pool.stream(range(6), ordered=True, errors="skip") as results:
            assert [result async for result in results] == [0, 2, 4]
        with pytest.raises(OSError, match="1") as caught:
            async with pool.stream(range(6), ordered=True, errors="raise") as results:
                async for _ in results:
                    pass
        assert caught.value.__notes__ == ["raised by the call for item 1"]
        assert conserved(pool).running == 0


async def test_an_item_that_cancels_itself_is_an_error_of_the_stream():
    async def work(item):
        raise asyncio.CancelledError

    async with WorkerPool(work) as pool:
        async with pool.stream([1]) as outcomes:
            outcome = await anext(outcomes)
            assert isinstance(outcome.error, JobCancelledError)
        with pytest.raises(JobCancelledError):
            async with pool.stream([1], errors="raise") as results:
                await anext(results)


@pytest.mark.promise("flow-bad-input")
async def test_misuse_is_told():
    pool = WorkerPool(double)
    outcomes = pool.stream([1])
    with pytest.raises(ClosedError, match="async with WorkerPool"):
        await outcomes.__aenter__()
    async with pool:
        with pytest.raises(RuntimeError, match=r"async with pool\.stream"):
            await anext(pool.stream([1]))
        async with pool.stream([1]) as outcomes:
            assert (await anext(outcomes)).unwrap() == 2
        with pytest.raises(RuntimeError, match="used once"):
            await outcomes.__aenter__()


async def test_a_reader_outside_learns_that_the_pool_was_closed():
    async def endless():
        yield 1
        await asyncio.get_running_loop().create_future()

    async def read():
        async with pool.stream(endless()) as outcomes:
            async for outcome in outcomes:
                found.append(outcome.unwrap())

    found: list[Any] = []
    async with WorkerPool(double) as pool:
        reader = asyncio.ensure_future(read())
        while not found:
            await yield_now()
    with pytest.raises(ClosedError, match="before the stream had ended"):
        await reader
    assert found == [2]


async def test_a_reader_outside_gets_an_outcome_for_what_was_dropped():
    async def work(item):
        await asyncio.get_running_loop().create_future()

    async def read():
        async with pool.stream(range(3)) as outcomes:
            entered.set()
            async for outcome in outcomes:
                found.append(outcome)

    found: list[Any] = []
    entered = asyncio.Event()
    with pytest.raises(KeyError):
        async with WorkerPool(work, workers=1) as pool:
            reader = asyncio.ensure_future(read())
            while conserved(pool).accepted < 3:
                await yield_now()
            raise KeyError
    await reader
    assert [type(outcome.error) for outcome in found] == [JobCancelledError] * 3


async def test_leaving_waits_for_a_stubborn_item_and_raises_what_came_meanwhile():
    release = asyncio.Event()

    async def work(item):
        with anyio.CancelScope(shield=True):
            await release.wait()

    async def read():
        async with pool.stream([1, 2]):
            while pool.statistics().running < 2:
                await yield_now()

    async with WorkerPool(work) as pool:
        reader = asyncio.ensure_future(read())
        while pool.statistics().running < 2:
            await yield_now()
        for _ in range(3):
            await yield_now()
        reader.cancel()
        await yield_now()
        assert not reader.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert conserved(pool).running == 0


async def test_leaving_before_the_feeder_has_begun():
    async with WorkerPool(double) as pool:
        async with pool.stream([1, 2, 3]):
            pass
        assert conserved(pool).accepted == 0


async def test_a_reader_of_many_gives_the_loop_its_turns():
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await yield_now()
            turns += 1

    async with WorkerPool(double, queue=10_000) as pool:
        counting = asyncio.ensure_future(count())
        async with pool.stream(range(2000)) as outcomes:
            await anext(outcomes)
            while pool.statistics().done < 2000:
                await yield_now()
            before = turns
            async for _ in outcomes:
                pass
        assert turns - before >= 1999 // 64 - 1
        counting.cancel()


def scenario(fault=lambda: None):
    async def source():
        for item in range(8):
            fault()
            await yield_now()
            yield item

    async def work(item):
        fault()
        await sleep(0.01 * (item % 3))
        conserved(pools[-1])
        return item

    async def run():
        async with WorkerPool(work, workers=2, queue=2) as pool:
            pools.append(pool)
            async with pool.stream(source(), ordered=True) as outcomes:
                async for _ in outcomes:
                    conserved(pool)
            async with pool.stream(source(), errors="skip") as results:
                await anext(results)
                await anext(results)

    pools: list[Any] = []

    def check():
        for pool in pools:
            s = conserved(pool)
            assert (s.queued, s.running, s.workers) == (0, 0, 0)

    return Trial(run(), check)


@pytest.mark.promise("flow-cancel-native", "flow-cancel-scope", "flow-cancel-timeout")
def test_cancelled_at_every_await():
    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=10)


@pytest.mark.promise("flow-fail-everywhere")
def test_source_and_function_may_fail_at_every_call():
    fail_everywhere(scenario, minimum=20)


@pytest.mark.promise("flow-seeds")
def test_two_hundred_schedules():
    explore(lambda: scenario().work, range(200))
