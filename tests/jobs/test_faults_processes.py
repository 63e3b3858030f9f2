"""The fault book, short form: worker processes that are killed, stopped, blocked or poisoned."""

from __future__ import annotations

import signal

import anyio
import pytest

from aiopatterns.core.clock import monotonic
from tests.jobs.fleet import Fleet, on_one_loop

pytestmark = [pytest.mark.real, pytest.mark.timeout(40)]


@pytest.mark.promise("jobs-fault-kill")
@on_one_loop
async def test_killed_workers_lose_nothing(redis_url, tmp_path):
    with Fleet(redis_url, tmp_path, concurrency=5) as fleet:
        jobs = fleet.queue()
        work = jobs.jobs["work"]
        async with jobs:
            fleet.start(3)
            await jobs.enqueue_many([work.job(each, 0.01) for each in range(1_000)])
            await fleet.until(lambda: len(fleet.runs()) > 50)
            while fleet.kills < 3:
                fleet.kill_one()
                fleet.start(3 - len(fleet.running()))
                await anyio.sleep(0.3)
            await fleet.until_empty(jobs)
            assert (await jobs.stores[0].counts()).dead == 0
            await fleet.stop()
        ended = fleet.runs("end")
        assert ended.keys() == {*range(1_000)}
        assert sum(fleet.runs().values()) - 1_000 <= fleet.kills * fleet.concurrency


@pytest.mark.promise("jobs-fault-pause")
@on_one_loop
async def test_a_paused_process_finds_its_jobs_taken(redis_url, tmp_path):
    with Fleet(redis_url, tmp_path, concurrency=2, lease=0.5) as fleet:
        jobs = fleet.queue()
        async with jobs:
            fleet.start()
            handles = [await jobs.jobs["work"].enqueue(each, 1.0) for each in range(2)]
            await fleet.until(lambda: len(fleet.runs()) == 2)
            fleet.send(signal.SIGSTOP)
            fleet.start()
            await fleet.until(lambda: sum(fleet.runs().values()) == 3)
            fleet.processes[0].send_signal(signal.SIGCONT)
            assert [await each.result(timeout=10) for each in handles] == [0, 1]
            await fleet.stop()
            assert (await jobs.stores[0].counts()).workers == 0
        assert fleet.runs() == {0: 2, 1: 2}
        assert "2 lost to other workers" in fleet.log.read_text()


@pytest.mark.promise("jobs-fault-poison")
@on_one_loop
async def test_poison_is_dead_after_its_attempts_and_the_rest_is_done(redis_url, tmp_path):
    with Fleet(redis_url, tmp_path, concurrency=5, lease=0.5) as fleet:
        jobs = fleet.queue()
        work, bad, killer = (jobs.jobs[each] for each in ("work", "bad", "killer"))
        async with jobs:
            calls = [work.job(each, 0.005) for each in range(300)]
            calls[50:50] = [bad.job(each) for each in range(1_000, 1_003)]
            calls[100:100] = [killer.job(2_000)]
            await jobs.enqueue_many(calls)
            fleet.start(2)

            async def replace() -> None:
                while True:
                    if len(fleet.running()) < 2:
                        fleet.start()
                    await anyio.sleep(0.02)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(replace)
                await fleet.until_empty(jobs)
                tasks.cancel_scope.cancel()
            letters = (await jobs.stores[0].page("dead")).jobs
            assert len(letters) == 4
            await fleet.stop()
        runs = fleet.runs()
        assert {*range(300)} <= fleet.runs("end").keys()
        assert [runs[each] for each in range(1_000, 1_003)] == [3, 3, 3]
        assert runs[2_000] == 2
        # Innocent neighbours of the killer ran again, at most as many as its first victim held.
        assert sum(runs[each] - 1 for each in range(300)) <= fleet.concurrency


@pytest.mark.leaves("{ap:q:faults}:*")
@pytest.mark.promise("jobs-fault-stop")
@on_one_loop
async def test_a_stop_finishes_or_hands_back_within_the_grace(redis_url, tmp_path):
    with Fleet(redis_url, tmp_path, concurrency=50, grace=1.5) as fleet:
        jobs = fleet.queue()
        async with jobs:
            fleet.start()
            await jobs.enqueue_many(
                [jobs.jobs["work"].job(each, 0.6 if each < 25 else 60) for each in range(50)]
            )
            await fleet.until(lambda: len(fleet.runs()) == 50)
            began = monotonic()
            fleet.send(signal.SIGTERM)
            await fleet.until(lambda: not fleet.running())
            assert monotonic() - began < 1.5 + 1.0  # the interpreter needs a moment to leave
            assert fleet.processes[0].returncode == 0
            assert fleet.runs("end").keys() == {*range(25)}
            counts = await jobs.stores[0].counts()
            assert (counts.queued, counts.running, counts.workers) == (25, 0, 0)
            page = await jobs.stores[0].page("queued")
            assert {each.attempts for each in page.jobs} == {0}
        text = fleet.log.read_text()
        assert "25 done, 0 dead" in text


@pytest.mark.leaves("{ap:q:faults}:*")
@pytest.mark.promise("jobs-fault-stop")
@on_one_loop
async def test_a_second_stop_forces(redis_url, tmp_path):
    with Fleet(redis_url, tmp_path, concurrency=5, grace=60) as fleet:
        jobs = fleet.queue()
        async with jobs:
            fleet.start()
            for each in range(5):
                await jobs.jobs["work"].enqueue(each, 60)
            await fleet.until(lambda: len(fleet.runs()) == 5)
            fleet.send(signal.SIGTERM)
            await anyio.sleep(0.1)
            fleet.send(signal.SIGINT)
            assert await fleet.until(lambda: not fleet.running()) < 2
            assert fleet.processes[0].returncode == 0
            assert (await jobs.stores[0].counts()).queued == 5


@pytest.mark.promise("jobs-fault-blocked")
@on_one_loop
async def test_a_blocked_loop_keeps_its_lease_and_warns(redis_url, tmp_path):
    with Fleet(redis_url, tmp_path, concurrency=3, lease=1.2) as fleet:
        jobs = fleet.queue()
        async with jobs:
            fleet.start(2)
            await (await jobs.jobs["block"].enqueue(0, 2.0)).result(timeout=20)
            await fleet.stop()
        assert fleet.runs() == {0: 1}
        text = fleet.log.read_text()
        assert "loop_blocked" in text
        assert "time.sleep(seconds)" in text
