"""The fault book, long form of what concerns a fleet: servers that refuse, poison, stops, blocked loops."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys

import anyio
import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from tests.jobs.fleet import Fleet, on_one_loop
from tests.stress.test_jobs import report

pytestmark = [pytest.mark.real, pytest.mark.stress, pytest.mark.timeout(300)]

WORKERS = 3


@pytest.mark.promise("fault-05-redis-refuses")
@on_one_loop
async def test_a_server_that_refuses_by_turns_under_load(tmp_path, figures):
    """It is full, a replica of nobody, without replicas, without its scripts; then it is well again."""
    count, refused, unavailable = 6_000, 0, 0
    with RedisServer(private=True) as server, Fleet(server.url, tmp_path, lease=5.0) as fleet:
        jobs, began = fleet.queue(), monotonic()
        work = jobs.jobs["work"]

        async def strike() -> None:
            strikes = [
                (("CONFIG", "SET", "maxmemory", 1), ("CONFIG", "SET", "maxmemory", 0)),
                (("REPLICAOF", "127.0.0.1", 1), ("REPLICAOF", "NO", "ONE")),
                (
                    ("CONFIG", "SET", "min-replicas-to-write", 1),
                    ("CONFIG", "SET", "min-replicas-to-write", 0),
                ),
                (("SCRIPT", "FLUSH"), ("SCRIPT", "FLUSH")),
            ]
            for ill, well in strikes * 3:
                await anyio.sleep(0.5)
                server.command(*ill)
                await anyio.sleep(0.5)
                server.command(*well)

        async def produce() -> None:
            nonlocal refused, unavailable
            for start in range(0, count, 20):
                chunk = [work.using(id=f"job-{n}").job(n, 0.002) for n in range(start, start + 20)]
                await anyio.sleep(0.03)
                while True:
                    try:
                        await jobs.enqueue_many(chunk)
                    except BackendUnavailableError:
                        unavailable += 1
                    except BackendError:
                        refused += 1
                    else:
                        break
                    await anyio.sleep(0.02)

        async with jobs:
            fleet.start(WORKERS)
            await fleet.until_there(jobs, WORKERS)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(strike)
                tasks.start_soon(produce)
            await fleet.until_empty(jobs, within=60)
            assert len(fleet.running()) == WORKERS, "no worker process ended"
            await fleet.stop()
        report(figures, fleet, count, began)
        figures.record(
            "enqueues refused by a typed error", refused, f"and {unavailable} unavailable"
        )
        assert fleet.runs("end").keys() == {*range(count)}
        assert refused


@pytest.mark.promise("fault-08-poison")
@on_one_loop
async def test_one_in_a_hundred_always_fails_and_one_in_a_thousand_kills(
    redis_url, tmp_path, figures
):
    count = 10_000
    bad = range(50, count, 100)
    killers = range(500, count, 1_000)
    with Fleet(redis_url, tmp_path, concurrency=10) as fleet:
        jobs, began = fleet.queue(), monotonic()
        named = dict.fromkeys(bad, jobs.jobs["bad"])
        killer, work = jobs.jobs["killer"], jobs.jobs["work"]

        async def replace() -> None:
            while True:
                if (missing := WORKERS - len(fleet.running())) > 0:
                    fleet.kills += missing
                    fleet.start(missing)
                await anyio.sleep(0.02)

        async with jobs:
            await jobs.enqueue_many(
                killer.job(each)
                if each in killers
                else named[each].job(each)
                if each in named
                else work.job(each, 0.002)
                for each in range(count)
            )
            fleet.start(WORKERS)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(replace)
                await fleet.until_empty(jobs, within=200)
                tasks.cancel_scope.cancel()
            dead = (await jobs.stores[0].counts()).dead
            await fleet.stop()
        runs, ended = fleet.runs(), fleet.runs("end")
        good = {*range(count)} - {*bad} - {*killers}
        figures.record("jobs that were not done", len(good - ended.keys()), f"of {len(good):,}")
        figures.record(
            "dead letters", dead, f"of {len(bad)} that raise and {len(killers)} that kill"
        )
        figures.record(
            "runs beyond the first, of neighbours of killers", sum(runs[each] - 1 for each in good)
        )
        figures.record("processes killed", fleet.kills)
        figures.record("took", monotonic() - began, "s")
        assert good <= ended.keys()
        assert dead == len(bad) + len(killers)
        assert {runs[each] for each in bad} == {3}
        assert {runs[each] for each in killers} == {2}
        assert sum(runs[each] - 1 for each in good) <= fleet.kills * fleet.concurrency


HERD = """
import asyncio, sys
from aiopatterns.backends import open_backend
from aiopatterns.cache.aside import Cache

async def main(url):
    backend = open_backend(url)
    async with Cache("herd", ttl=60, backend=backend) as cache, backend:
        async def load(key):
            number = await backend.kv.incr("loads", ttl=60)
            await asyncio.sleep(0.3)
            return f"loaded {number}"

        await backend.kv.incr("ready", ttl=60)
        while await backend.kv.get("ready") != b"2":
            await asyncio.sleep(0.002)
        values = await asyncio.gather(*(cache.get_or_load("cold", load) for _ in range(500)))
        assert set(values) == {"loaded 1"}, values

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.promise("fault-13-herd")
def test_a_thousand_misses_of_one_key_over_two_processes_are_one_load(redis_url, figures):
    callers = [
        subprocess.Popen([sys.executable, "-c", HERD, redis_url], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for caller in callers:
        _, told = caller.communicate(timeout=60)
        assert caller.returncode == 0, told.decode()

    async def loads() -> bytes | None:
        async with open_backend(redis_url) as backend:
            return await backend.kv.get("loads")

    found = int(asyncio.run(loads()) or 0)
    figures.record("loads", found, "for 1,000 misses over 2 processes")
    assert found == 1


@pytest.mark.promise("fault-14-stop")
@on_one_loop
async def test_stopped_again_and_again_under_load_nothing_runs_twice(redis_url, tmp_path, figures):
    """Twice a second one of three workers is told to stop, with 50 jobs in flight, and replaced."""
    count, stops, dice = 8_000, 15, random.Random(7)
    with Fleet(redis_url, tmp_path, concurrency=50, grace=10.0) as fleet:
        jobs, began, longest = fleet.queue(), monotonic(), 0.0
        work = jobs.jobs["work"]
        async with jobs:
            fleet.start(WORKERS)
            await fleet.until_there(jobs, WORKERS)
            await jobs.enqueue_many(work.job(each, dice.uniform(0.1, 0.5)) for each in range(count))
            for _ in range(stops):
                await anyio.sleep(0.5)
                working = {int(pid) for _, _, pid in fleet.lines()}
                told = next(each for each in fleet.running() if each.pid in working)
                told.send_signal(signal.SIGTERM)
                fleet.start()
                longest = max(longest, await fleet.until(lambda told=told: told.poll() is not None))
                assert told.returncode == 0
            await fleet.until_empty(jobs, within=120)
            await fleet.stop()
        report(figures, fleet, count, began)
        figures.record("stopped by SIGTERM", stops, "processes, each with exit code 0")
        figures.record(
            "a stop took", longest, "s at most, with jobs of up to 0.5 s and a grace of 10 s"
        )
        assert fleet.runs() == fleet.runs("end") == dict.fromkeys(range(count), 1)
        assert longest < 5


@pytest.mark.promise("fault-15-blocked-loop")
@on_one_loop
async def test_loops_that_block_again_and_again_keep_their_leases(redis_url, tmp_path, figures):
    """Ten jobs block their process for 2 s each, with a lease of 1.2 s, among 3,000 that do not."""
    count, blocks = 3_000, 10
    with Fleet(redis_url, tmp_path, concurrency=10, lease=1.2) as fleet:
        jobs, began = fleet.queue(), monotonic()
        work, block = jobs.jobs["work"], jobs.jobs["block"]
        async with jobs:
            fleet.start(WORKERS)
            await fleet.until_there(jobs, WORKERS)
            await jobs.enqueue_many(
                work.job(each, 0.005) if each % (count // blocks) else block.job(each, 2.0)
                for each in range(count)
            )
            await fleet.until_empty(jobs, within=90)
            await fleet.stop()
        report(figures, fleet, count, began)
        warned = fleet.log.read_text().count("loop_blocked")
        figures.record("warnings with the stack", warned, f"for {blocks} blocks of 2 s")
        assert fleet.runs() == fleet.runs("end") == dict.fromkeys(range(count), 1)
        assert warned >= 1
