"""The fault book of jobs, long form: more jobs, more kills, all at once. Each prints its figures."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager

import anyio
import pytest

from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.clock import monotonic, seeded
from aiopatterns.core.errors import BackendError
from aiopatterns.jobs import JobQueue
from aiopatterns.testing import FaultProxy, explore
from tests.jobs import test_simulation as simulation
from tests.jobs.fleet import Fleet

pytestmark = [pytest.mark.real, pytest.mark.stress, pytest.mark.timeout(600)]

JOBS = 20_000
CONCURRENCY = 20


@asynccontextmanager
async def chaos(period: float, *strikes):
    """Strike, by turns, every ``period`` seconds while the block runs."""

    async def strike() -> None:
        number = 0
        while True:
            await anyio.sleep(period)
            await strikes[number % len(strikes)]()
            number += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(strike)
        yield
        tasks.cancel_scope.cancel()


async def produce(jobs: JobQueue, count: int, *, first: int = 0) -> None:
    """Enqueue in chunks; a chunk that was not acknowledged is sent again under its ids."""
    work = jobs.jobs["work"]
    for start in range(first, first + count, 200):
        chunk = [
            work.using(id=f"job-{each}").job(each, 0.002) for each in range(start, start + 200)
        ]
        while True:
            try:
                await jobs.enqueue_many(chunk)
            except BackendError:
                await anyio.sleep(0.05)
            else:
                break


async def start(fleet: Fleet, jobs: JobQueue) -> None:
    """Start three workers and wait until they are there; then no outage ends them."""
    fleet.start(3)
    while (await counts(jobs)).workers < 3:
        await anyio.sleep(0.01)


async def kill_and_replace(fleet: Fleet) -> None:
    if fleet.running():
        fleet.kill_one()
    fleet.start(3 - len(fleet.running()))


def report(name: str, fleet: Fleet, began: float, **more: object) -> None:
    runs = fleet.runs()
    again = sum(runs.values()) - len(runs)
    seconds = monotonic() - began
    print(
        f"\n{name}: {len(runs)} jobs in {seconds:.1f} s, {fleet.kills} kills, {again} again", more
    )


def check(fleet: Fleet, count: int) -> None:
    """Nothing is lost, and no more is run again than was held."""
    assert fleet.runs("end").keys() == {*range(count)}
    assert sum(fleet.runs().values()) - count <= fleet.kills * fleet.concurrency


async def test_a_kill_every_half_second(redis_url, tmp_path):
    with Fleet(redis_url, tmp_path, concurrency=CONCURRENCY) as fleet:
        jobs, began = fleet.queue(), monotonic()
        async with jobs:
            await start(fleet, jobs)
            async with chaos(0.5, lambda: kill_and_replace(fleet)):
                await produce(jobs, JOBS)
                await fleet.until_empty(jobs, within=300)
            fleet.start(1)
            await anyio.sleep(2 * fleet.lease)
            await fleet.until_empty(jobs, within=60)
            await fleet.stop()
        report("kill -9", fleet, began)
        check(fleet, JOBS)


@pytest.mark.parametrize("fsync", ["always", "everysec"])
async def test_the_server_is_killed_three_times_under_load(fsync, tmp_path):
    with (
        RedisServer(config={"appendonly": "yes", "appendfsync": fsync}) as server,
        Fleet(server.url, tmp_path, concurrency=CONCURRENCY, lease=15.0) as fleet,
    ):
        jobs, began = fleet.queue(), monotonic()
        resumed = []

        async def disaster() -> None:
            for _ in range(3):
                await anyio.sleep(0.7)
                server.kill()
                await anyio.to_thread.run_sync(server.restart)
                back, done = monotonic(), len(fleet.lines())
                while len(fleet.lines()) == done and any((await counts(jobs))[:4]):
                    await anyio.sleep(0.01)
                resumed.append(monotonic() - back)

        async with jobs:
            await start(fleet, jobs)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(disaster)
                await produce(jobs, JOBS)
            await fleet.until_empty(jobs, within=300)
            assert len(fleet.running()) == 3, "no worker process ended"
            await fleet.stop()
        report(
            f"server kill -9, {fsync}", fleet, began, resumed=[f"{each:.2f}" for each in resumed]
        )
        assert fleet.runs("end").keys() == {*range(JOBS)}
        assert max(resumed) < 2.0


async def counts(jobs: JobQueue):
    while True:
        try:
            return await jobs.stores[0].counts()
        except BackendError:
            await anyio.sleep(0.02)


async def test_both_at_once_behind_a_network_that_fails(tmp_path):
    with RedisServer(config={"appendonly": "yes", "appendfsync": "always"}) as server:
        async with FaultProxy(server.url, seed=7) as proxy:
            with Fleet(proxy.url, tmp_path, concurrency=CONCURRENCY) as fleet:
                jobs, began, dice = fleet.queue(server.url), monotonic(), seeded(7)

                async def kill_server() -> None:
                    server.kill()
                    await anyio.to_thread.run_sync(server.restart)

                async def disturb() -> None:
                    proxy.storm(
                        drop_reply_ratio=0.02, drop_request_ratio=0.02, duplicate_ratio=0.02
                    )
                    proxy.delay(0.002, jitter=0.002)
                    if dice.random() < 0.5:
                        proxy.cut()

                async with jobs:
                    await start(fleet, jobs)
                    kill = lambda: kill_and_replace(fleet)
                    async with chaos(0.7, disturb, kill, kill_server, kill):
                        await produce(jobs, JOBS // 4)
                        with anyio.move_on_after(15):
                            while any((await counts(jobs))[:4]):
                                await anyio.sleep(0.1)
                    proxy.heal()
                    proxy.calm()
                    fleet.start(3 - len(fleet.running()))
                    await fleet.until_empty(jobs, within=120)
                    await fleet.stop()
                report("both, and the network", fleet, began, proxy=proxy.statistics())
                assert fleet.runs("end").keys() == {*range(JOBS // 4)}


async def test_paused_processes_never_run_beside_those_who_took_over(redis_url, tmp_path):
    with Fleet(redis_url, tmp_path, concurrency=CONCURRENCY) as fleet:
        jobs, began = fleet.queue(), monotonic()

        async def pause() -> None:
            victim = fleet.running()[0]
            victim.send_signal(signal.SIGSTOP)
            fleet.kills += 1
            await anyio.sleep(3 * fleet.lease)
            victim.send_signal(signal.SIGCONT)

        async with jobs:
            await start(fleet, jobs)
            async with chaos(0.2, pause):
                for number in range(5):
                    await produce(jobs, JOBS // 5, first=number * JOBS // 5)
                    await anyio.sleep(3)
            fleet.send(signal.SIGCONT)
            await fleet.until_empty(jobs, within=120)
            await fleet.stop()
        report("paused", fleet, began)
        check(fleet, JOBS)


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(simulation.lossy(before=0.1, after=0.1, late=0.1), id="lossy"),
        pytest.param(simulation.partitioned, id="partitioned"),
        pytest.param(simulation.changing, id="changing"),
        pytest.param(simulation.cancelled, id="cancelled"),
        pytest.param(simulation.spread, id="spread"),
    ],
)
def test_two_thousand_seeds(scenario):
    began = monotonic()
    explore(scenario, range(1_000, 1_400))
    print(f"\n400 seeds in {monotonic() - began:.1f} s")
