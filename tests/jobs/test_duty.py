"""One opening of a worker: what it opens, publishes, watches and leaves."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.backends.publishing import published
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.jobs import JobQueue, Worker
from aiopatterns.jobs.duty import EXIT_WITHIN, LEAVE_WITHIN, Duty
from aiopatterns.testing import capture_events, simulate


def test_figures_are_published_once_for_each_backend():
    async def main() -> None:
        backend, other = MemoryBackend("one"), MemoryBackend("two")
        queues = [JobQueue("a", backend), JobQueue("b", backend), JobQueue("c", other)]
        async with backend, other:
            async with Worker(*queues):
                await sleep(0.1)
                for each in (backend, other):
                    (found,) = await published(each, kind="worker")
                    assert found.name == "a+b+c"
                    assert found.figures is not None
                    assert {*found.figures["queues"]} == {"a", "b", "c"}
            await sleep(20)
            async with Worker(queues[0], publish=False):
                await sleep(0.1)
                assert await published(backend) == []

    simulate(main)


def test_cron_jobs_run():
    async def main() -> None:
        jobs = JobQueue("q")
        ticks = []

        @jobs.cron("* * * * *")
        async def tick() -> None:
            ticks.append(monotonic())

        async with Worker(jobs):
            await sleep(200)
        assert 3 <= len(ticks) <= 4

    simulate(main)


def test_loops_are_at_home_in_one_partition():
    async def main() -> None:
        jobs = JobQueue("q", partitions=3)
        async with jobs:
            duty = Duty("w", [jobs], concurrency=1, patience=0.1)
            async with anyio.create_task_group() as tasks:
                await tasks.start(duty.run)
                assert sorted(each.home for each in duty._turns) == [False, False, True]
                tasks.cancel_scope.cancel()

    simulate(main)


def test_the_last_step_is_tried_for_two_seconds():
    async def main() -> None:
        jobs = JobQueue("q")
        calls = 0

        class Away:
            async def leave(self):
                nonlocal calls
                calls += 1
                raise BackendUnavailableError("away")

        duty = Duty("w", [jobs], concurrency=1, patience=0.1)
        duty._turns = [cast("Any", Away())]
        await duty._leave()
        assert monotonic() == pytest.approx(LEAVE_WITHIN)
        assert calls > 3

    simulate(main)


@pytest.mark.real
async def test_a_store_that_others_share_has_a_watchdog(redis_url):
    import time

    jobs = JobQueue("q", redis_url, lease=1.0)

    @jobs.job(name="block")
    async def block() -> int:
        time.sleep(1.4)
        return 1

    with capture_events() as events:
        async with Worker(jobs) as worker:
            assert await (await block.enqueue()).result(timeout=5) == 1
            assert worker.statistics().queues["q"].lost == 0
    assert "aiopatterns.worker.loop_blocked" in {each.name for each in events}


def _closing(log: list[str], seconds: float) -> Any:
    """Return a lifespan that takes time to close, and has no ``finally``."""

    @asynccontextmanager
    async def lifespan():
        yield {}
        await sleep(seconds)
        log.append("closed")

    return lifespan


def _closing_in_any_case(log: list[str], seconds: float) -> Any:
    @asynccontextmanager
    async def lifespan():
        try:
            yield {}
        finally:
            await sleep(seconds)
            log.append("closed")

    return lifespan


@pytest.mark.parametrize("closing", [_closing, _closing_in_any_case])
def test_a_lifespan_ends_as_after_any_block(closing):
    async def main() -> None:
        log: list[str] = []
        jobs = JobQueue("q", lifespan=closing(log, 30))

        @jobs.job
        async def endless() -> None:
            await anyio.sleep_forever()

        async with jobs:
            async with Worker(jobs, grace=1):
                await endless.enqueue()
                await sleep(0.1)
            assert log == ["closed"]
            assert monotonic() == pytest.approx(31, abs=0.5)

    simulate(main)


async def test_the_error_of_a_lifespan_that_ends_leaves_bare():
    @asynccontextmanager
    async def lifespan():
        yield {}
        raise OSError("not closed")

    with pytest.raises(OSError, match="not closed"):
        async with Worker(JobQueue("q", lifespan=lifespan)):
            pass


@pytest.mark.parametrize(("seconds", "log"), [(EXIT_WITHIN / 2, ["closed"]), (1000, [])])
def test_a_lifespan_whose_worker_is_abandoned_closes_within_a_bounded_time(seconds, log):
    async def main() -> None:
        found: list[str] = []
        with pytest.raises(LookupError):
            async with Worker(JobQueue("q", lifespan=_closing_in_any_case(found, seconds))):
                raise LookupError
        assert found == log
        assert monotonic() == pytest.approx(min(seconds, EXIT_WITHIN), abs=0.1)

    simulate(main)


def test_a_worker_that_is_forced_waits_for_no_lifespan():
    async def main() -> None:
        log: list[str] = []
        worker = Worker(JobQueue("q", lifespan=_closing_in_any_case(log, 1000)))

        async def close() -> None:
            async with worker:
                pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(close)
            await sleep(1)
            assert worker._duty is not None
            worker._duty.force()
        assert log == []
        assert monotonic() < 5

    simulate(main)
