"""Jobs on several servers and under clocks that jump, long form. Each prints its figures."""

from __future__ import annotations

import shutil
import subprocess

import anyio
import pytest

from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.clock import monotonic
from aiopatterns.core.context import bind_deadline
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.jobs.desk import TRUSTED
from aiopatterns.testing import RedisCluster, RedisSentinel, explore
from tests.jobs.fleet import HERE, Fleet, Host
from tests.jobs.test_faults_clock import HOUR, jumping
from tests.jobs.test_faults_topology import SLOT
from tests.stress.test_jobs import report

pytestmark = [pytest.mark.real, pytest.mark.stress, pytest.mark.timeout(300)]

JOBS = 20_000
CONCURRENCY = 20
WORKERS = 3


async def produce(jobs, count: int) -> list[BackendUnavailableError]:
    """Enqueue in chunks, again under the same ids what was not acknowledged; return the errors."""
    work, errors = jobs.jobs["work"], []
    for start in range(0, count, 200):
        chunk = [work.using(id=f"job-{n}").job(n, 0.002) for n in range(start, start + 200)]
        while True:
            try:
                await jobs.enqueue_many(chunk)
            except BackendUnavailableError as error:
                errors.append(error)
            else:
                break
    return errors


async def settled(fleet: Fleet, jobs) -> None:
    """Wait until all is done, by the workers that were there from the start."""
    await fleet.until_empty(jobs, within=120)
    assert len(fleet.running()) == WORKERS, "no worker process ended"
    assert (await jobs.stores[0].counts()).dead == 0
    await fleet.stop()


async def test_a_slot_moves_twice_under_load(tmp_path):
    """Thousands of keys move, for longer than callers wait: they may be told so, as documented."""
    with (
        RedisCluster() as cluster,
        Fleet(cluster.url, tmp_path, concurrency=CONCURRENCY, lease=15.0) as fleet,
    ):
        jobs, began, errors, took = fleet.queue(), monotonic(), [], []

        async def move() -> None:
            for _ in range(2):
                await fleet.until(lambda: len(fleet.lines()) > 2_000)
                before = monotonic()
                await cluster.move_slot(SLOT, to=(cluster.owner(SLOT) + 1) % 3)
                took.append(f"{monotonic() - before:.2f}")
                await anyio.sleep(0.5)

        async with jobs:
            fleet.start(WORKERS)
            await fleet.until_there(jobs, WORKERS)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(move)
                errors = await produce(jobs, JOBS)
            await settled(fleet, jobs)
        report("slot moved", fleet, began, errors=len(errors), moves=took)
        assert fleet.runs() == fleet.runs("end") == dict.fromkeys(range(JOBS), 1)


async def test_a_primary_that_dies_under_load(tmp_path):
    with (
        RedisSentinel() as pair,
        Fleet(pair.url, tmp_path, concurrency=CONCURRENCY, lease=15.0) as fleet,
    ):
        jobs, began, errors, resumed = fleet.queue(), monotonic(), [], []

        async def kill() -> None:
            await fleet.until(lambda: len(fleet.lines()) > 2_000)
            pair.primary.kill()
            before, done = monotonic(), len(fleet.lines())
            await fleet.until(lambda: len(fleet.lines()) > done + 500)
            resumed.append(f"{monotonic() - before:.2f}")

        async with jobs:
            fleet.start(WORKERS)
            await fleet.until_there(jobs, WORKERS)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kill)
                errors = await produce(jobs, JOBS)
            await settled(fleet, jobs)
        report("failover", fleet, began, errors=len(errors), resumed=resumed)
        assert fleet.runs("end").keys() == {*range(JOBS)}
        assert fleet.runs().total() - JOBS <= WORKERS * CONCURRENCY


async def test_the_clock_of_a_host_jumps_all_the_time(redis_url, tmp_path):
    host = Host(tmp_path / "clock")
    fleet = Fleet(redis_url, tmp_path, module="tests.jobs.clockjobs", host=host)
    with host.jumping(), fleet:
        jobs, began = fleet.queue(), monotonic()
        work = jobs.jobs["work"]

        async def jump() -> None:
            while True:
                for by in (HOUR, -2 * HOUR, HOUR):
                    host.jump(by)
                    await anyio.sleep(0.15)

        async with jobs:
            fleet.start(WORKERS)
            await fleet.until_there(jobs, WORKERS)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(jump)
                sent = []
                for number in range(2_000):
                    delay = number % 5 * 0.5
                    with bind_deadline(monotonic() + 60):
                        at = monotonic() + delay
                        seconds = 0.05 if number % 20 else 2.5  # longer than the lease
                        handle = await work.using(delay=delay).enqueue(number, seconds)
                        sent.append((at, delay, handle))
                late = []
                for at, delay, handle in sent:
                    begun, left = await handle.result(timeout=60)
                    late.append(begun - at)
                    assert left == pytest.approx(60 - delay - late[-1], abs=0.1)
                tasks.cancel_scope.cancel()
            await fleet.stop()
        runs = fleet.runs()
        seconds = monotonic() - began
        print(f"\nclock of the host: {seconds:.1f} s, late {min(late):.3f} to {max(late):.3f} s")
        assert min(late) > -0.002, "never early"
        assert [runs[each] for each in range(2_000)] == [1] * 2_000


def test_jobs_in_memory_while_the_clock_jumps():
    began = monotonic()
    explore(jumping, range(1_000, 1_200))
    print(f"\n200 seeds in {monotonic() - began:.1f} s")


@pytest.fixture
def jumping_server(tmp_path, monkeypatch):
    """A server of this test alone whose own clock jumps, by a library that is put before libc."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None, "a server's clock can be moved only with a C compiler"
    library, host = tmp_path / "jump.so", Host(tmp_path / "server-clock")
    source = HERE / "jumpingclock" / "jump.c"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60
    )
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(library))
        patch.setenv("JUMPING_CLOCK", str(host.file))
        server = RedisServer(private=True)
        server.start()
    yield server, host
    server.stop()


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_the_clock_of_the_server_jumps(jumping_server, tmp_path, jump):
    """Leases and delays are on it: after a jump forward jobs may run again; none is lost.

    After a jump back what was delayed waits that much longer, and so does the end of a lease or a result.
    """
    server, host = jumping_server
    with Fleet(server.url, tmp_path, module="tests.jobs.clockjobs", lease=2.0) as fleet:
        jobs, began = fleet.queue(), monotonic()
        work = jobs.jobs["work"]
        async with jobs:
            fleet.start(WORKERS)
            await fleet.until_there(jobs, WORKERS)
            for number in range(100):
                await work.enqueue(number, 1.0)
            await fleet.until(lambda: len(fleet.lines()) > 10)
            host.jump(jump)
            await anyio.sleep(TRUSTED)
            with bind_deadline(monotonic() + 60):
                after = [await work.enqueue(number, 0.01) for number in range(100, 200)]
            await fleet.until(lambda: {*range(100)} <= fleet.runs("end").keys(), within=60)
            for each in after:
                assert (await each.result(timeout=60))[1] == pytest.approx(60, abs=5)
            await fleet.stop()
        report("clock of the server", fleet, began, jump=jump)
        runs = fleet.runs()
        assert {*range(200)} <= fleet.runs("end").keys()
        assert sum(runs[each] - 1 for each in range(200)) <= WORKERS * fleet.concurrency
