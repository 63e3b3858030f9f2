"""One opening of a worker: what it opens, publishes, watches and leaves."""

from __future__ import annotations

from typing import Any, cast

import anyio
import pytest

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.backends.publishing import published
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.jobs import JobQueue, Worker
from aiopatterns.jobs.duty import LEAVE_WITHIN, Duty
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
