"""The fault book, short form: several servers as one, while a slot moves or the primary dies."""

from __future__ import annotations

import anyio
import pytest

from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.testing.clusters import RedisCluster, RedisSentinel
from tests.backends.redis.test_cluster import half_moved
from tests.jobs.fleet import Fleet, on_one_loop

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

SLOT = "{ap:q:faults}:jobs"


class Producer:
    """Enqueues one job after the other until told to stop, and notes what it is told."""

    def __init__(self, jobs: JobQueue) -> None:
        self.jobs = jobs
        self.acknowledged = 0
        self.errors: list[BackendUnavailableError] = []
        self.stopping = False

    async def produce(self) -> None:
        """An enqueue that was not acknowledged is sent again under its id."""
        work = self.jobs.jobs["work"]
        while not self.stopping:
            try:
                await work.using(id=f"job-{self.acknowledged}").enqueue(self.acknowledged, 0.02)
            except BackendUnavailableError as error:
                self.errors.append(error)
            else:
                self.acknowledged += 1
            await anyio.sleep(0.001)


@pytest.fixture(scope="module")
def nodes():
    with RedisCluster() as opened:
        yield opened


@pytest.fixture
def cluster(nodes):
    """An empty cluster of three."""
    yield nodes
    for each in nodes.nodes:
        each.command("FLUSHALL")


@pytest.mark.promise("jobs-fault-topology")
@on_one_loop
async def test_a_slot_that_moves_twice_is_no_error_and_repeats_nothing(cluster, tmp_path):
    with Fleet(cluster.url, tmp_path, concurrency=10, lease=5.0) as fleet:
        jobs = fleet.queue()
        async with jobs, anyio.create_task_group() as tasks:
            fleet.start(2)
            producer = Producer(jobs)
            tasks.start_soon(producer.produce)
            await fleet.until_there(jobs, 2)
            for _ in range(2):
                await cluster.move_slot(SLOT, to=(cluster.owner(SLOT) + 1) % 3)
                done = len(fleet.runs("end"))
                assert await fleet.until(lambda: len(fleet.runs("end")) > done + 50) < 2
            producer.stopping = True
            await fleet.until_empty(jobs)
            assert (await jobs.stores[0].counts()).dead == 0
            await fleet.stop()
        assert producer.errors == []
        assert fleet.runs() == fleet.runs("end") == dict.fromkeys(range(producer.acknowledged), 1)


@pytest.mark.promise("jobs-fault-topology")
@on_one_loop
async def test_a_slot_that_stays_half_moved_is_the_documented_error(cluster, tmp_path, monkeypatch):
    """For longer than callers wait: producers are told, workers keep what they hold."""
    monkeypatch.setattr("aiopatterns.backends.redis.client.RETRY_FOR", 0.3)
    with Fleet(cluster.url, tmp_path, concurrency=10, lease=5.0) as fleet:
        jobs = fleet.queue()
        async with jobs, anyio.create_task_group() as tasks:
            fleet.start()
            producer = Producer(jobs)
            tasks.start_soon(producer.produce)
            await fleet.until(lambda: len(fleet.runs("end")) > 50)
            with half_moved(cluster, SLOT):
                await fleet.until(lambda: len(producer.errors) > 1)
            done = len(fleet.runs("end"))
            assert await fleet.until(lambda: len(fleet.runs("end")) > done + 50) < 2.5
            producer.stopping = True
            await fleet.until_empty(jobs)
            await fleet.stop()
        assert fleet.runs() == fleet.runs("end") == dict.fromkeys(range(producer.acknowledged), 1)


@pytest.fixture
def pair():
    """A primary that is watched closely, and its replica."""
    with RedisSentinel(down_after=0.3) as opened:
        yield opened


@pytest.mark.promise("jobs-fault-topology")
@on_one_loop
async def test_a_failover_loses_nothing(pair, tmp_path):
    """Replication has caught up with what was acknowledged, or it would be no job's fault."""
    with Fleet(pair.url, tmp_path, concurrency=10, lease=15.0) as fleet:
        jobs = fleet.queue()
        async with jobs, anyio.create_task_group() as tasks:
            fleet.start(2)
            producer = Producer(jobs)
            tasks.start_soon(producer.produce)
            await fleet.until_there(jobs, 2)
            before = producer.acknowledged
            pair.primary.kill()
            await fleet.until(lambda: producer.acknowledged > before + 20)
            done = len(fleet.runs("end"))
            assert await fleet.until(lambda: len(fleet.runs("end")) > done + 50) < 2.5
            producer.stopping = True
            await fleet.until_empty(jobs)
            assert len(fleet.running()) == 2, "no worker process ended"
            assert (await jobs.stores[0].counts()).dead == 0
            await fleet.stop()
        runs = fleet.runs()
        assert fleet.runs("end").keys() == {*range(producer.acknowledged)}
        assert sum(runs.values()) - len(runs) <= 2 * fleet.concurrency
