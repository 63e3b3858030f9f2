"""Failures that pipelines of other libraries are known for, one test each."""

from __future__ import annotations

import ast
import asyncio
from contextvars import ContextVar
from pathlib import Path

import anyio
import pytest

import aiopatterns.flow
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import JobCancelledError
from aiopatterns.flow.pipeline import Pipeline
from aiopatterns.testing import explore, leak_guard, simulate


async def collect(pipeline):
    async with pipeline.open() as results:
        return [result async for result in results]


async def same(x):
    await sleep(0)
    return x


# -------------------------------------------------------------------------- 11, batch timers


@pytest.mark.promise("regression-11-batch-timer")
def test_11_a_slow_consumer_is_not_overflowed_by_the_timer():
    async def scenario():
        seen = []

        async def slow(batch):
            seen.append(batch)
            await sleep(10)

        report = await Pipeline(range(50), capacity=2).batch(3, within=0.5).run(slow)
        assert [x for batch in seen for x in batch] == list(range(50))
        assert max(map(len, seen)) == 3
        assert report.delivered == len(seen) == 17

    simulate(scenario)


@pytest.mark.promise("regression-11-batch-timer")
def test_11_the_timer_of_a_batch_does_not_flush_the_next():
    async def source():
        for number in range(4):  # the first batch is full at 0.9 s, its timer was for 1 s
            yield number
            await sleep(0.3)
        await sleep(0.6)
        yield 4

    async def scenario():
        began = monotonic()
        async with Pipeline(source()).batch(4, within=1.0).open() as results:
            got = [(round(monotonic() - began, 1), batch) async for batch in results]
        assert got == [(0.9, [0, 1, 2, 3]), (1.8, [4])]

    simulate(scenario)


@pytest.mark.promise("regression-11-batch-timer")
async def test_11_a_huge_size_overflows_nothing():
    assert await collect(Pipeline(range(10)).batch(2**63, within=1e6)) == [list(range(10))]


# ---------------------------------------------------------------------------- 12, broadcasts


@pytest.mark.promise("regression-12-broadcast-unequal-demand")
def test_12_a_fast_and_a_slow_branch_get_everything_and_end():
    async def slow(x):
        await sleep(1)
        return "slow", x

    async def scenario():
        pipeline = Pipeline(range(40), capacity=4).broadcast(
            lambda p: p.map(lambda x: ("fast", x), workers=10),
            lambda p: p.map(slow, workers=4),
            lambda p: p.filter(lambda x: False),
        )
        got = await collect(pipeline)
        for branch in ("fast", "slow"):
            assert [x for name, x in got if name == branch] == list(range(40))
        assert len(got) == 80

    explore(scenario, range(20))


@pytest.mark.promise("regression-13-late-subscriber")
def test_13_a_branch_that_starts_late_misses_nothing_and_stalls_nobody():
    async def scenario():
        gate = anyio.Event()
        early = []

        async def late(x):
            await gate.wait()
            return "late", x

        async def prompt(x):
            early.append(x)
            if len(early) == 5:  # as far as the other branch's capacity lets it run ahead
                gate.set()
            return "prompt", x

        pipeline = Pipeline(range(30), capacity=4).broadcast(
            lambda p: p.map(late), lambda p: p.map(prompt)
        )
        got = await collect(pipeline)
        assert [x for name, x in got if name == "late"] == list(range(30))
        assert [x for name, x in got if name == "prompt"] == list(range(30))

    explore(scenario, range(20))


# ------------------------------------------------------------- 15 and 16, user code and cancel


@pytest.mark.promise("regression-15-user-code-swallows-cancel")
def test_15_a_function_that_swallows_its_cancellation_ends_the_run_all_the_same():
    started = []

    async def stubborn(x):
        started.append(x)
        try:
            await sleep(3600)
        except asyncio.CancelledError:
            return x

    async def scenario():
        started.clear()
        async with leak_guard():
            async with Pipeline(range(100)).map(stubborn, workers=3).open() as results:
                await sleep(1)
        report = results.statistics()
        assert report.read == report.delivered + report.cancelled + report.failed
        assert len(started) == 3

    simulate(scenario)


@pytest.mark.promise("regression-15-user-code-swallows-cancel")
@pytest.mark.parametrize("workers", [1, 3])
def test_15_a_function_that_replaces_its_cancellation_breaks_nothing(workers):
    async def rude(x):
        try:
            await sleep(3600)
        except asyncio.CancelledError:
            raise LookupError(x) from None

    async def scenario():
        pipeline = Pipeline(range(100)).map(rude, workers=workers)
        async with leak_guard():
            with pytest.raises(KeyError):
                async with pipeline.open():
                    await sleep(1)
                    raise KeyError
            with anyio.move_on_after(1) as scope:
                await pipeline.run()
            assert scope.cancelled_caught

    simulate(scenario)


@pytest.mark.promise("regression-15-user-code-swallows-cancel")
@pytest.mark.parametrize("workers", [1, 3])
async def test_15_a_function_that_raises_a_cancellation_fails_its_item(workers):
    async def odd(x):
        if x % 2:
            raise asyncio.CancelledError
        return x

    pipeline = Pipeline(range(6)).map(odd, workers=workers)
    with pytest.raises(JobCancelledError):
        await pipeline.run()
    pipeline = Pipeline(range(6)).map(odd, workers=workers, on_error="skip")
    assert await collect(pipeline) == [0, 2, 4]


@pytest.mark.promise("regression-16-user-code-own-group")
def test_16_a_function_with_a_group_of_its_own_is_cancelled_from_outside():
    cleaned = []

    async def child(x):
        try:
            await sleep(3600)
        finally:
            cleaned.append(x)

    async def with_anyio(x):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child, x)
            tasks.start_soon(child, x)

    async def with_asyncio(x):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child(x))
            tasks.create_task(child(x))

    async def scenario():
        for fn in (with_anyio, with_asyncio):
            for workers in (1, 2):
                cleaned.clear()
                async with leak_guard():
                    task = asyncio.ensure_future(Pipeline(range(9)).map(fn, workers=workers).run())
                    await sleep(1)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                assert len(cleaned) == 2 * workers

    simulate(scenario)


# -------------------------------------------------------------------------------- 17, counters


@pytest.mark.promise("regression-17-counters-across-await")
def test_17_no_counter_is_updated_across_an_await():
    """`x += await f()` reads before the wait and writes after it: updates in between are lost."""
    found = []
    for path in Path(aiopatterns.flow.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.AugAssign) and any(
                isinstance(inner, ast.Await) for inner in ast.walk(node.value)
            ):
                found.append(f"{path.name}:{node.lineno}")
    assert not found


@pytest.mark.promise("regression-17-counters-across-await")
def test_17_concurrent_counts_are_exact():
    async def scenario():
        pipeline = Pipeline(range(200)).map(same, workers=7, ordered=False).map(same, workers=5)
        report = await pipeline.run()
        assert [stage.processed for stage in report.stages] == [200, 200]
        assert report.delivered == report.read == 200

    explore(scenario, range(20))


# --------------------------------------------------------------------------------- 18, sources


@pytest.mark.promise("regression-18-source-fails")
@pytest.mark.parametrize("workers", [1, 3])
async def test_18_a_source_that_raises_midway_gives_what_it_gave_and_then_its_error(workers):
    error = LookupError("midway")

    def broken():
        yield from range(5)
        raise error

    async def broken_async():
        for x in range(5):
            yield x
        raise error

    for source in (broken, broken_async):
        got = []
        with pytest.raises(LookupError) as caught:
            async with Pipeline(source()).map(same, workers=workers).batch(3).open() as results:
                async for batch in results:
                    got += batch
        assert caught.value is error
        assert got == [0, 1, 2, 3, 4]
        assert error.__notes__[-1] == "in the source of pipeline 'pipeline', after 5 item(s)"


@pytest.mark.promise("regression-18-source-fails")
async def test_18_a_source_that_cannot_be_iterated_is_one_clear_error():
    class Broken:
        def __iter__(self):
            raise LookupError("no iterator")

    with pytest.raises(LookupError, match="no iterator"):
        await Pipeline(Broken()).run()


@pytest.mark.promise("regression-18-source-fails")
async def test_18_a_source_that_raises_a_cancellation_fails_the_run():
    async def odd():
        yield 1
        raise asyncio.CancelledError

    with pytest.raises(JobCancelledError) as caught:
        await Pipeline(odd()).run()
    assert caught.value.__notes__ == ["in the source of pipeline 'pipeline', after 1 item(s)"]


def fail_at_two(x):
    if x == 2:
        raise ValueError(x)
    return x


@pytest.mark.promise("regression-18-source-fails")
async def test_18_a_source_that_raises_in_its_close_is_a_note_on_the_first_error():
    async def broken_close():
        try:
            for x in range(100):
                yield x
        finally:
            raise LookupError("in close")

    with pytest.raises(ValueError, match="2") as caught:
        await Pipeline(broken_close()).map(fail_at_two).run()
    assert caught.value.__notes__ == [
        "in stage 'fail_at_two', item 2",
        "after that: LookupError('in close')",
    ]


@pytest.mark.promise("regression-18-source-fails")
async def test_18_a_source_that_yields_after_its_close_is_reported():
    async def stubborn():
        try:
            for x in range(100):
                yield x
        except GeneratorExit:
            yield "more"

    def stubborn_sync():
        try:
            yield from range(100)
        except GeneratorExit:
            yield "more"

    for source in (stubborn, stubborn_sync):
        with pytest.raises(ValueError, match="2") as caught:
            await Pipeline(source()).map(fail_at_two).run()
        assert "ignored GeneratorExit" in caught.value.__notes__[1]


@pytest.mark.promise("regression-18-source-fails")
async def test_18_a_source_is_closed_when_the_run_is_left_early():
    closed = []

    async def source():
        try:
            for x in range(1000):
                yield x
        finally:
            await sleep(0)  # cleanup may wait
            closed.append("async")

    def plain():
        try:
            yield from range(1000)
        finally:
            closed.append("sync")

    for make in (source, plain):
        async with Pipeline(make(), capacity=2).open() as results:
            assert await anext(results) == 0
    assert closed == ["async", "sync"]


# ------------------------------------------------------------------------ 26, context variables

who: ContextVar[str] = ContextVar("who", default="nobody")


@pytest.mark.promise("regression-26-context-travels")
@pytest.mark.parametrize("workers", [1, 2])
def test_26_functions_see_the_context_of_the_caller_and_not_of_each_other(workers):
    def leaky(x):
        before = who.get()
        who.set(f"item {x}")
        return before

    async def leaky_async(x):
        before = who.get()
        who.set(f"item {x}")
        await sleep(0)
        return before

    def source():
        for x in range(20):
            who.set("source")
            yield x

    async def scenario():
        for fn in (leaky, leaky_async):
            who.set("caller")
            seen = []

            async def take(x):
                seen.append((x, who.get()))
                who.set("sink")

            for items in (range(20), source()):
                pipeline = (
                    Pipeline(items)
                    .map(fn, workers=workers)
                    .batch(1)
                    .map(lambda batch: batch[0], workers=workers)
                )
                await pipeline.run(take)
            assert seen == [("caller", "caller")] * 40
            async with Pipeline(range(5)).map(fn, workers=workers).open() as results:
                who.set("body")
                assert [x async for x in results] == ["caller"] * 5

    simulate(scenario)
