"""The fault book, short form: a server that dies, fills up, or is behind a network that fails."""

from __future__ import annotations

import anyio
import pytest

from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.worker import Worker
from aiopatterns.testing import capture_events
from aiopatterns.testing.proxy import FaultProxy
from tests.jobs.fleet import on_one_loop

pytestmark = [pytest.mark.real, pytest.mark.timeout(40)]


def define(url: str, runs: list[int], *, lease: float = 5.0) -> JobQueue:
    jobs = JobQueue("faults", url, lease=lease)

    @jobs.job(name="work")
    async def work(number: int, seconds: float) -> int:
        runs.append(number)
        await anyio.sleep(seconds)
        return number

    return jobs


@pytest.fixture
def durable():
    """A server of this test alone that keeps every acknowledged write."""
    config = {"appendonly": "yes", "appendfsync": "always"}
    with RedisServer(config=config) as server:
        yield server


@pytest.mark.promise("jobs-fault-restart")
@on_one_loop
async def test_a_server_that_is_killed_and_restarted_loses_nothing(durable):
    runs: list[int] = []
    jobs = define(durable.url, runs)
    acknowledged = []

    async def produce() -> None:
        for number in range(400):
            while True:
                try:
                    await jobs.jobs["work"].using(id=f"job-{number}").enqueue(number, 0.005)
                except BackendUnavailableError:
                    await anyio.sleep(0.02)
                else:
                    acknowledged.append(number)
                    break

    async with jobs, Worker(jobs, concurrency=20) as worker:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(produce)
            for _ in range(3):
                await anyio.sleep(0.3)
                durable.kill()
                await anyio.sleep(0.1)
                await anyio.to_thread.run_sync(durable.restart)
                back, done = monotonic(), worker.statistics().processed
                while worker.statistics().processed == done and len(acknowledged) < 400:
                    await anyio.sleep(0.005)
                assert monotonic() - back < 2.0, "on the way again by itself"
        await worker.run_until_empty()
    assert {*runs} == {*range(400)}
    assert len(runs) - 400 <= 3 * 20


@pytest.mark.promise("jobs-fault-network")
@on_one_loop
async def test_lost_replies_and_cut_connections_lose_nothing(redis_url):
    runs: list[int] = []
    async with FaultProxy(redis_url) as proxy:
        producer, jobs = define(redis_url, []), define(proxy.url, runs)
        async with producer, jobs, Worker(jobs, concurrency=10) as worker:
            proxy.storm(drop_reply_ratio=0.05, drop_request_ratio=0.05, duplicate_ratio=0.05)
            for number in range(300):
                await producer.jobs["work"].using(id=f"job-{number}").enqueue(number, 0.003)
            for _ in range(3):
                proxy.cut()
                await anyio.sleep(0.2)
            proxy.calm()
            await worker.run_until_empty()
            assert (await producer.stores[0].counts()).dead == 0
    assert sorted(runs) == [*range(300)], "the lease never ended, so none runs twice"


@pytest.mark.promise("jobs-fault-full")
@on_one_loop
async def test_a_full_server_refuses_producers_and_lets_consumers_drain():
    with RedisServer(private=True) as server:
        runs: list[int] = []
        jobs = define(server.url, runs)
        async with jobs:
            work = jobs.jobs["work"]
            await jobs.enqueue_many([work.job(each, 0.0) for each in range(200)])
            server.command("CONFIG", "SET", "maxmemory", 1)
            with pytest.raises(BackendError) as caught:
                await work.enqueue(1_000, 0.0)
            assert not isinstance(caught.value, BackendUnavailableError)
            with capture_events() as events:
                async with Worker(jobs, publish=False) as worker:
                    await anyio.sleep(0.3)
                    server.command("CONFIG", "SET", "maxmemory", 0)
                    await work.enqueue(1_001, 0.0)
                    await worker.run_until_empty()
            troubles = [each for each in events if each.name == "aiopatterns.worker.troubled"]
            assert len(troubles) <= 1, "warned once"
        assert {*runs} == {*range(200), 1_001}


@pytest.mark.promise("jobs-fault-restart")
@on_one_loop
async def test_an_idle_worker_hears_again_after_an_outage(durable):
    runs: list[int] = []
    jobs = define(durable.url, runs)
    async with jobs, Worker(jobs):
        await anyio.sleep(0.1)
        durable.kill()
        await anyio.sleep(0.5)
        await anyio.to_thread.run_sync(durable.restart)
        back = monotonic()
        handle = None
        while handle is None:
            try:
                handle = await jobs.jobs["work"].enqueue(1, 0.0)
            except BackendUnavailableError:
                await anyio.sleep(0.01)
        assert await handle.result(timeout=10) == 1
        assert monotonic() - back < 2.0
    assert runs == [1]
