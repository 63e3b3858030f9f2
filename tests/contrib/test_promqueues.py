"""Gauges of queues: looked at in between, never during a scrape."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from prometheus_client import CollectorRegistry

from aiopatterns.contrib.promqueues import QueueGauges, QueueGaugesStatistics
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.jobs import JobQueue, Worker
from aiopatterns.testing import Trial, cancel_everywhere, simulate
from tests.contrib.test_prometheus import sample, scraped


async def test_the_figures_of_a_queue():
    jobs, registry = JobQueue("mails"), CollectorRegistry()

    @jobs.job
    async def mail() -> None: ...

    gauges = QueueGauges(jobs, registry=registry)
    async with jobs:
        await mail.enqueue()
        await mail.using(delay=60).enqueue()
        await jobs.pause()
        async with gauges:
            found = scraped(registry)
        assert not scraped(registry)
    states = {
        state: found[sample("aiopatterns_queue_jobs", queue="mails", state=state)]
        for state in ("queued", "scheduled", "waiting", "running", "dead")
    }
    assert states == {"queued": 1, "scheduled": 1, "waiting": 0, "running": 0, "dead": 0}
    assert found[sample("aiopatterns_queue_workers", queue="mails")] == 0
    assert found[sample("aiopatterns_queue_paused", queue="mails")] == 1
    assert gauges.statistics() == QueueGaugesStatistics(1, 0)


def test_it_looks_again_and_again():
    async def scenario() -> None:
        jobs, registry = JobQueue("mails"), CollectorRegistry()
        gauges = QueueGauges(jobs, every=2.0, registry=registry)
        async with jobs, gauges, Worker(jobs):
            await sleep(2.5)
            found = scraped(registry)
        assert found[sample("aiopatterns_queue_workers", queue="mails")] == 1
        assert gauges.statistics().looks == 2

    simulate(scenario)


def test_while_nobody_answers_there_are_no_figures(monkeypatch):
    async def scenario() -> None:
        jobs, registry = JobQueue("mails"), CollectorRegistry()
        gauges = QueueGauges(jobs, every=1.0, registry=registry)
        away = False
        known = JobQueue.statistics

        async def statistics(queue: JobQueue) -> Any:
            if away:
                raise BackendUnavailableError("away")
            return await known(queue)

        monkeypatch.setattr(JobQueue, "statistics", statistics)
        async with jobs, gauges:
            assert scraped(registry)
            away = True
            await sleep(1.5)
            assert not scraped(registry)
            away = False
            await sleep(1.0)
            assert scraped(registry)
        assert gauges.statistics() == QueueGaugesStatistics(3, 1)

    simulate(scenario)


async def test_two_of_one_registry_do_not_end_each_other():
    jobs, registry = JobQueue("mails"), CollectorRegistry()
    async with jobs, QueueGauges(jobs, registry=registry):
        with pytest.raises(ValueError, match="Duplicated"):
            async with QueueGauges(jobs, registry=registry):
                pytest.fail("entered")
        assert scraped(registry)
    assert not scraped(registry)


def test_cancelled_anywhere_it_leaves_nothing_in_the_registry():
    def scenario() -> Trial:
        jobs, registry = JobQueue("mails"), CollectorRegistry()

        async def work() -> None:
            async with jobs, QueueGauges(jobs, every=0.01, registry=registry):
                await anyio.sleep(0.05)

        def check() -> None:
            assert not scraped(registry)

        return Trial(work(), check)

    cancel_everywhere(scenario)


@pytest.mark.parametrize(
    ("queues", "options", "error", "text"),
    [
        ([5], {}, TypeError, "queues must be JobQueues"),
        ([JobQueue("a"), JobQueue("a")], {}, ValueError, "queues must have names of their own"),
        ([JobQueue("a")], {"every": 0}, ValueError, "every must be"),
    ],
)
def test_what_is_refused(queues, options, error, text):
    with pytest.raises(error, match=text):
        QueueGauges(*queues, **options)
