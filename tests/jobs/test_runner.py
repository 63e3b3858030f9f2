"""Runners, seen through a worker: turns of the loop, own cancellation, and being abandoned."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import anyio
import pytest

from aiopatterns.core.clock import Home, Parked, monotonic, sleep
from aiopatterns.jobs import JobQueue, JobStatus, Worker
from aiopatterns.jobs.runner import Runner
from aiopatterns.testing import simulate


async def test_functions_that_never_wait_do_not_keep_the_loop():
    jobs = JobQueue("q")
    turns = 0

    @jobs.job
    async def quick() -> None: ...

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await sleep(0)

    async with jobs:
        handles = await jobs.enqueue_many([quick.job() for _ in range(500)])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            async with Worker(jobs, concurrency=500):
                for each in handles:
                    await each.result(timeout=10)
            tasks.cancel_scope.cancel()
    assert turns > 500 / 64


async def test_each_attempt_has_context_variables_of_its_own():
    from contextvars import ContextVar

    jobs = JobQueue("q")
    variable: ContextVar[int] = ContextVar("variable", default=0)
    seen = []

    @jobs.job
    async def look(number: int) -> None:
        seen.append(variable.get())
        variable.set(number)
        await sleep(0)
        assert variable.get() == number

    async with jobs, Worker(jobs, concurrency=2):
        for each in [await look.enqueue(number) for number in range(1, 6)]:
            await each.result(timeout=5)
    assert seen == [0] * 5


@pytest.mark.parametrize("catch", [asyncio.CancelledError, BaseException], ids=["cancel", "all"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
def test_abandoned_functions_do_not_keep_the_worker(catch):
    async def main() -> None:
        jobs = JobQueue("q")

        @jobs.job
        async def swallows() -> None:
            while True:
                try:
                    await sleep(1_000)
                except catch:
                    continue

        async with jobs:
            for error in (None, KeyError):
                began = monotonic()
                try:
                    async with Worker(jobs, grace=2):
                        await swallows.enqueue()
                        await sleep(1)
                        if error is not None:
                            raise error
                except KeyError:
                    pass
                assert monotonic() - began <= 3
            assert (await jobs.stores[0].counts()).queued == 2

    simulate(main)


def test_a_function_that_makes_an_error_of_the_end_is_handed_back():
    async def main() -> None:
        jobs = JobQueue("q")

        @jobs.job
        async def wraps() -> None:
            try:
                await sleep(1_000)
            except BaseException:
                raise ValueError("made of the end of the worker") from None

        async with jobs:
            async with Worker(jobs, grace=1):
                handle = await wraps.enqueue()
                await sleep(1)
            assert await handle.status() is JobStatus.QUEUED

    simulate(main)


def test_a_function_that_returns_in_spite_of_its_end_is_done():
    async def main() -> None:
        jobs = JobQueue("q")

        @jobs.job
        async def stubborn() -> int:
            try:
                await sleep(1_000)
            except BaseException:
                return 5
            return 0

        async with jobs:
            async with Worker(jobs, grace=1):
                handle = await stubborn.enqueue()
                await sleep(1)
            assert await handle.result(timeout=1) == 5

    simulate(main)


async def test_a_function_that_ends_as_it_is_cancelled_has_ended():
    jobs = JobQueue("q")
    event = anyio.Event()
    running = anyio.Event()

    @jobs.job
    async def wait() -> int:
        running.set()
        await event.wait()
        return 1

    async with jobs, Worker(jobs, concurrency=1) as worker:
        handle = await wait.enqueue()
        await running.wait()
        assert worker._duty is not None
        assert worker._duty.crew is not None
        (runner,) = worker._duty.crew.runners
        event.set()
        runner.halt()  # what it waits for has happened, and it has not run yet
        assert await handle.result(timeout=5) == 1
        assert await (await wait.enqueue()).result(timeout=5) == 1


async def test_a_runner_that_has_not_begun_can_be_abandoned():
    Runner(cast("Any", None)).abandon()


class Crew:
    """What a runner sees of a crew."""

    def __init__(self) -> None:
        self.home = Home()
        self.idle: list[Parked] = []
        self.arrivals = 0

    def arrived(self) -> None:
        self.arrivals += 1

    def take(self) -> None: ...

    def farewell(self, runner: Runner) -> None: ...


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("woken", [False, True])
async def test_a_runner_that_is_cancelled_while_idle_leaves_its_seat(woken, taken):
    crew = Crew()
    runner = Runner(cast("Any", crew))
    task = asyncio.create_task(runner.work())
    await sleep(0.001)
    (seat,) = crew.idle
    if taken or woken:
        crew.idle.clear()
    if woken:
        seat.set_result(None)
    task.cancel()  # natively, in the turn in which it may have been woken
    await asyncio.wait([task])
    assert crew.arrivals == 1 + woken
    assert crew.idle == []
