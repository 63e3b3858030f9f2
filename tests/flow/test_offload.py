"""Stages in executors: chunks where they pay, and one outcome for each item."""

from __future__ import annotations

import asyncio
import os

import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import JobCancelledError, TimeoutExceededError, WorkerCrashedError
from aiopatterns.core.lifecycle import OwnerState
from aiopatterns.core.outcome import Err, Ok
from aiopatterns.flow.executors import Executor, Inline, Processes, Threads
from aiopatterns.flow.offload import Offload, run_each
from aiopatterns.flow.pipeline import Pipeline


async def collect(pipeline):
    async with pipeline.open() as results:
        return [result async for result in results]


def square(x):
    if x == 7:
        raise LookupError(x)
    return x * x


def crash(x):
    if x == 3:
        os._exit(1)
    return x


class Recorder(Executor):
    """Runs calls here and keeps what it was asked; a chunk with `poison` cannot be answered."""

    def __init__(self, capacity=2, poison=None):
        super().__init__(capacity, "recorder")
        self.sizes = []
        self.poison = poison

    async def _call(self, fn, args):
        items = args[1] if fn is run_each else [args[0]]
        self.sizes.append(len(items))
        await sleep(0)
        if self.poison in items:
            raise OSError("no answer")
        return fn(*args)


def test_each_item_of_a_chunk_has_its_own_outcome():
    answers = run_each(square, [1, 7, 2])
    assert [done for done, _ in answers] == [True, False, True]
    assert [value for done, value in answers if done] == [1, 4]
    assert answers[1][1].__notes__[0].startswith("in an executor:\nTraceback")


async def test_chunks_grow_with_what_waits_and_how_quick_it_is():
    async with Recorder() as executor:
        offload = Offload(executor, square, chunks=True)
        assert offload.share(100, 2) == 1  # the pace is not known yet
        assert await offload.run([3]) == [Ok(9)]
        offload._pace = 0.000_01
        assert offload.share(100, 2) == 50
        assert offload.share(1000, 2) == 64
        assert offload.share(1, 2) == 1
        offload._pace = 0.001
        assert offload.share(100, 2) == 5
        offload._pace = 1.0
        assert offload.share(100, 2) == 1
        outcomes = await offload.run([1, 7, 2])
        assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert Offload(executor, square, chunks=False).share(100, 1) == 1
    inline = Offload(Inline(), square, chunks=True)
    inline._pace = 0.000_01
    assert inline.share(100, 1) == 1


async def test_a_chunk_without_an_answer_is_run_again_one_by_one():
    async with Recorder(poison=3) as executor:
        outcomes = await Offload(executor, square, chunks=True).run([1, 3, 7, 2])
    assert [outcome.ok for outcome in outcomes] == [True, False, False, True]
    assert isinstance(outcomes[1], Err)
    assert isinstance(outcomes[1].error, OSError)
    assert executor.sizes == [4, 1, 1, 1, 1]


async def test_every_verb_runs_in_an_executor():
    for executor in (Inline(2), Recorder()):
        pipeline = (
            Pipeline(range(300))
            .map(square, executor=executor, on_error="skip")
            .filter(lambda x: x % 2, executor=executor)
            .flat_map(lambda x: [x, -x], executor=executor)
        )
        expected = [y for x in range(300) if x % 2 and x != 7 for y in (x * x, -x * x)]
        assert await collect(pipeline) == expected
        assert executor.state is OwnerState.STOPPED


async def test_an_executor_that_is_open_already_stays_open():
    async with Recorder() as executor:
        assert await collect(Pipeline([3]).map(square, executor=executor)) == [9]
        assert executor.state is OwnerState.RUNNING


async def test_an_executor_that_cannot_be_opened_stops_the_run():
    class Broken(Recorder):
        async def _start(self, tasks):
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        await Pipeline([3]).map(square, executor=Broken()).run()


async def test_failures_name_their_item():
    with pytest.raises(LookupError) as caught:
        await Pipeline(range(100)).map(square, executor=Recorder()).run()
    assert caught.value.__notes__[-1] == "in stage 'square', item 7"
    flat = Pipeline([1, 2])
    with pytest.raises(TypeError, match="must be an iterable"):
        await flat.flat_map(square, executor=Recorder()).run()
    report = await flat.flat_map(square, executor=Recorder(), on_error="skip").run()
    assert report.failed == 2


async def test_a_timeout_in_an_executor():
    async def slow(x):
        await sleep(3600)

    pipeline = Pipeline([1]).map(slow, executor=Inline(), timeout=0.001)
    with pytest.raises(TimeoutExceededError):
        await pipeline.run()


async def test_a_cancellation_of_the_functions_own_in_an_executor():
    async def odd(x):
        raise asyncio.CancelledError

    with pytest.raises(JobCancelledError):
        await Pipeline([1]).map(odd, executor=Inline()).run()


@pytest.mark.real
async def test_threads():
    pipeline = Pipeline(range(200)).map(square, executor=Threads(2), on_error="skip")
    assert await collect(pipeline) == [x * x for x in range(200) if x != 7]


@pytest.mark.real
async def test_processes():
    pipeline = Pipeline(range(200)).map(square, executor=Processes(2), on_error="skip")
    assert await collect(pipeline) == [x * x for x in range(200) if x != 7]


@pytest.mark.real
async def test_a_crash_in_a_chunk_is_blamed_on_its_item():
    lost = []
    pipeline = Pipeline(range(30)).map(crash, executor=Processes(1, attempts=1), on_error="skip")
    async with pipeline.open() as results:
        kept = [result async for result in results]
        lost.append(results.statistics().stages[0].failed)
    assert kept == [x for x in range(30) if x != 3]
    assert lost == [1]
    with pytest.raises(WorkerCrashedError):
        await Pipeline([3]).map(crash, executor=Processes(1, attempts=1)).run()
