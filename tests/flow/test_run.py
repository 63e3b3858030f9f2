"""One run: its life, its errors, and what it says about itself."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from aiopatterns.core.clock import sleep, yield_now
from aiopatterns.core.errors import ClosedError, JobCancelledError
from aiopatterns.core.lifecycle import OwnerState
from aiopatterns.flow.channel import Channel
from aiopatterns.flow.executors import Executor, Inline
from aiopatterns.flow.pipeline import Pipeline
from aiopatterns.testing import leak_guard, simulate


async def double(x):
    await yield_now()
    return 2 * x


def fail(x):
    if x == 3:
        raise LookupError(x) from KeyError("cause")
    return x


async def test_use_outside_its_block_is_one_clear_error():
    run = Pipeline([1]).open()
    with pytest.raises(ClosedError, match=r"async with pipeline.open\(\) as results"):
        await anext(run)
    with pytest.raises(ClosedError):
        run.statistics()
    with pytest.raises(ClosedError):
        await run.finished()
    async with run:
        assert [x async for x in run] == [1]
        with pytest.raises(RuntimeError, match="open already"):
            await run.__aenter__()
    with pytest.raises(ClosedError):
        await anext(run)
    assert run.statistics().delivered == 1


async def test_a_run_can_be_entered_again():
    run = Pipeline([1, 2, 3]).map(double, workers=2).open()
    for _ in range(2):
        async with run as results:
            assert [x async for x in results] == [2, 4, 6]
            assert results.statistics().read == 3
        assert run.state is OwnerState.STOPPED


async def test_leaving_early_cancels_and_counts():
    async with leak_guard():
        async with Pipeline(range(1000), capacity=4).map(double, workers=3).open() as results:
            async for x in results:
                if x == 10:
                    break
    report = results.statistics()
    assert report.delivered == 6
    assert report.queued == report.in_flight == 0
    assert report.cancelled > 0
    assert report.read == report.delivered + report.cancelled


async def test_the_bodys_own_exception_leaves_bare():
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with Pipeline(range(1000)).map(double, workers=3).open():
            raise error
    assert caught.value is error
    assert error.__context__ is None


@pytest.mark.parametrize("workers", [1, 2])
async def test_ready_results_come_before_the_error_and_the_error_comes_once(workers):
    async with Pipeline(range(9)).map(fail, workers=workers).open() as results:
        got = []
        with pytest.raises(LookupError) as caught:
            async for x in results:
                got.append(x)
        assert got == [0, 1, 2]
        assert [x async for x in results] == []
    assert caught.value.__notes__ == ["in stage 'fail', item 3"]
    assert isinstance(caught.value.__cause__, KeyError)


async def test_an_error_of_run_is_bare_and_untouched():
    with pytest.raises(LookupError) as caught:
        await Pipeline(range(9)).map(fail).run()
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__suppress_context__


async def test_an_error_that_nobody_read_does_not_replace_leaving():
    async with Pipeline(range(9)).map(fail).open() as results:
        while not results.statistics().failed:
            await sleep(0)
    assert results.statistics().failed == 1


async def test_a_failing_sink_stops_the_run():
    async def save(x):
        fail(x)

    with pytest.raises(LookupError) as caught:
        await Pipeline(range(9)).map(abs, workers=2).run(into=save)
    assert caught.value.__notes__ == ["in stage 'output', item 3"]


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"executor": Inline()}])
@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
async def test_a_function_that_would_end_a_loop_fails_its_item(options, kind):
    def stop(x):
        if x == 2:
            raise kind
        return [x]

    async def stop_later(x):
        return stop(x)

    for fn in (stop, stop_later):
        for verb in ("map", "flat_map"):
            pipeline = getattr(Pipeline(range(4)), verb)(fn, **options)
            async with pipeline.open() as results:
                with pytest.raises(RuntimeError, match=kind.__name__):
                    assert len([x async for x in results]) < 3
            skipping = getattr(Pipeline(range(4)), verb)(fn, on_error="skip", **options)
            assert (await skipping.run()).delivered == 3


async def test_a_closed_sink_stops_the_run():
    import anyio

    channel = Channel[int](1)
    channel.close()
    with pytest.raises(anyio.ClosedResourceError):
        await Pipeline([1]).run(into=channel)


async def test_what_is_no_exception_passes_all_the_way():
    class Odd(BaseException):
        pass

    async def odd(x):
        await yield_now()
        raise Odd

    with pytest.raises(Odd):
        await Pipeline([1]).map(odd).run()


def test_a_slow_reader_stops_the_reading_of_the_source():
    async def scenario():
        pulled = []

        def source():
            for x in range(10_000):
                pulled.append(x)
                yield x

        pipeline = Pipeline(source(), capacity=5).map(double, workers=2).batch(2)
        async with pipeline.flat_map(lambda batch: batch).open() as results:
            await sleep(100)
            # output 5, a batch going out, a batch filling, the stage 2 + 5, one in the hand
            assert len(pulled) <= 5 + 2 + 2 + 7 + 2
            assert [await anext(results) for _ in range(100)] == list(range(0, 200, 2))

    simulate(scenario)


def test_elapsed_is_the_time_until_now_or_the_end():
    async def scenario():
        async with Pipeline([1]).map(lambda x: sleep(2)).open() as results:
            await sleep(1)
            assert results.statistics().elapsed == pytest.approx(1)
            await anext(results)
            await sleep(5)
            assert results.statistics().elapsed == pytest.approx(2)

    simulate(scenario)


async def test_several_may_read():
    import anyio

    got = []

    async with Pipeline(range(50)).map(double, workers=2).open() as results:

        async def read():
            async for x in results:
                got.append(x)
                await yield_now()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(read)
    assert sorted(got) == list(range(0, 100, 2))


@pytest.mark.parametrize("options", [{}, {"workers": 2}])
async def test_a_task_that_a_function_cancels_does_not_end_as_if_it_were_done(options):
    async def later(x):
        await sleep(0)
        return x

    def sabotage(x):
        if x == 2:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        return x

    pipeline = Pipeline(range(200), capacity=1).map(sabotage, **options).map(later, workers=2)
    with pytest.raises(JobCancelledError, match="a task of the pipeline cancelled itself"):
        await pipeline.run()


async def test_nothing_begins_in_a_scope_that_is_cancelled():
    seen = []

    def see(x):
        seen.append(x)

    pipeline = Pipeline(range(1000)).map(see)
    with anyio.move_on_after(0):
        await pipeline.run()
    async with pipeline.open():
        pass
    assert seen == []


class Source:
    """Makes a generator whose end can be seen."""

    def __init__(self):
        self.closed = 0

    def __iter__(self):
        try:
            yield from range(100)
        finally:
            self.closed += 1


class AsyncSource:
    """The same, whose generator is asynchronous."""

    def __init__(self):
        self.closed = 0

    async def __aiter__(self):
        try:
            for x in range(100):
                yield x
        finally:
            await sleep(0.001)
            self.closed += 1


@pytest.mark.parametrize("make", [Source, AsyncSource])
async def test_a_generator_that_the_source_makes_is_closed(make):
    source = make()
    async with Pipeline(source).open() as results:
        await anext(results)
    assert source.closed == 1
    with pytest.raises(LookupError) as caught:  # whose traceback holds the generator
        await Pipeline(source).map(fail).run()
    assert source.closed == 2
    assert caught.value.__notes__


async def test_a_generator_is_closed_also_if_the_run_does_not_begin():
    class Broken(Executor):
        __slots__ = ()

        async def _start(self, tasks):
            raise OSError("no room")

        async def _call(self, fn, args):
            return fn(*args)

    source = Source()
    generator = iter(source)
    next(generator)
    with pytest.raises(OSError, match="no room"):
        await Pipeline(generator).map(abs, executor=Broken(1, "broken")).run()
    assert source.closed == 1
