"""Partitions over the nodes of a cluster: keys and dependencies hold, and nobody notices."""

from __future__ import annotations

import pytest
from anyio import create_task_group, fail_after

from aiopatterns.core.clock import sleep
from aiopatterns.core.context import new_id
from aiopatterns.jobs import JobFilter, JobQueue, JobStatus, Limits, Unique, Worker
from aiopatterns.testing.clusters import RedisCluster

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def cluster():
    with RedisCluster() as opened:
        yield opened


@pytest.mark.promise("jobs-contract")
async def test_a_queue_is_spread_over_a_cluster(cluster):
    jobs = JobQueue(f"spread-{new_id()}", cluster.url, partitions=6)
    running = set[int]()

    @jobs.job
    async def double(x: int) -> int:
        return 2 * x

    @jobs.job(unique=Unique("{x}"), limits=Limits(concurrency=1, key="{x}"))
    async def alone(x: int) -> None:
        assert x not in running
        running.add(x)
        await sleep(0.001)
        running.discard(x)

    @jobs.job
    async def broken() -> None:
        raise ValueError

    async with jobs, Worker(jobs), create_task_group() as tasks:
        handles = await jobs.enqueue_many([double.job(n) for n in range(120)])
        assert {each.partition for each in handles} == {*range(6)}
        once = await jobs.enqueue_many([alone.job(n % 3) for n in range(30)])
        after = await double.using(after=handles[:1]).enqueue(7)
        assert after.partition == handles[0].partition
        mine = await double.using(id="mine").enqueue(21)
        for each in (*once, *(await jobs.enqueue_many([broken.job() for _ in range(6)]))):
            tasks.start_soon(settled, each)
        assert [await each.result(timeout=20) for each in handles] == [2 * n for n in range(120)]
        assert await after.result(timeout=20) == 14
        assert mine.created
        assert await jobs.handle("mine").result(timeout=20) == 42
    async with jobs:
        figures = await jobs.statistics()
        assert (figures.queued, figures.running, figures.dead) == (0, 0, 6)
        assert len({each.job_id for each in await jobs.dead_letters()}) == 6
        assert await jobs.requeue(JobFilter(name="broken")) == 6
        assert await jobs.cancel(JobFilter()) == 6
        assert await jobs.purge() == 0


async def settled(handle):
    while await handle.status() not in {JobStatus.DONE, JobStatus.DEAD}:
        await sleep(0.01)


async def test_one_worker_hears_of_work_in_every_partition(backend):
    """Also right after its start, when the loop of one partition has all the places."""
    jobs = JobQueue("heard", backend, partitions=6)

    @jobs.job
    async def fn(x: int) -> int:
        return x

    async with jobs, Worker(jobs):
        for pause in (0, 0.1, 0.1):
            await sleep(pause)
            handles = await jobs.enqueue_many([fn.job(n) for n in range(120)])
            with fail_after(3):  # a third of the lease would be five seconds
                assert [await each.result() for each in handles] == [*range(120)]
