"""Runs over workers of their own, in memory and as processes over Redis."""

from __future__ import annotations

import os

import anyio
import pytest

from aiopatterns.backends.memory.kv import MemoryKv
from aiopatterns.backends.opening import open_backend
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.flow.executors import Inline
from aiopatterns.jobs import Worker
from aiopatterns.processor import fleet as module
from aiopatterns.processor.corpus import Corpus
from aiopatterns.processor.fleet import Fleet
from aiopatterns.processor.output import Output
from aiopatterns.processor.report import render_report
from aiopatterns.processor.runjobs import QUEUE, Made, run_queue
from aiopatterns.processor.system import DataProcessor
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import Trial, cancel_everywhere
from tests.jobs.fleet import on_one_loop
from tests.processor.chaos import Chaos, coordinator, library, until, worker
from tests.processor.records import make_progress
from tests.processor.reference import make_tree
from tests.processor.test_system import assert_plain, grow


async def serial(root, chunk_bytes=200):
    return await DataProcessor(Corpus.at(root), executor=Inline(1), chunk_bytes=chunk_bytes).run()


@pytest.mark.parametrize("seed", [1, 4, 7])
async def test_in_memory_the_result_equals_a_plain_serial_count(tmp_path, seed):
    fleet = Fleet("memory://", processes=3)
    processor = DataProcessor(Corpus.at(grow(tmp_path, seed)), executor=fleet, chunk_bytes=40)
    analysis = await processor.run()
    assert_plain(analysis, tmp_path)
    assert analysis == await serial(tmp_path, 40)
    stages = processor.progress.snapshot().stages
    assert all(each.done == each.total for each in stages)


@pytest.mark.real
@pytest.mark.timeout(40)
@on_one_loop
async def test_over_worker_processes_the_result_is_the_same(tmp_path, redis_url):
    make_tree(tmp_path)
    processor = DataProcessor(
        Corpus.at(tmp_path), executor=Fleet(redis_url, processes=2), chunk_bytes=200
    )
    assert await processor.run() == await serial(tmp_path)
    lanes = {lane for lane, _ in processor.progress.snapshot().lanes}
    assert "process 1" in lanes
    assert not any(each.startswith("thread") for each in lanes)
    await nothing_is_left(redis_url)


@pytest.mark.promise("processor-fleet-kills")
@pytest.mark.real
@pytest.mark.timeout(60)
@on_one_loop
async def test_whoever_is_killed_the_report_is_that_of_a_serial_run(tmp_path):
    root, chaos = library(tmp_path / "corpus"), Chaos(workers=(5, 40, 80, 120), server=(60, 100))
    with RedisServer(config={"appendonly": "yes", "appendfsync": "always"}) as server:
        processor = DataProcessor(
            Corpus.at(root),
            executor=Fleet(server.url, processes=4),
            report=Output(tmp_path / "report.html"),
            chunk_bytes=20_000,
        )
        await chaos.around(processor, server)
        assert chaos.kills == {"worker": 4, "server": 2}
        await nothing_is_left(server.url)
    expected, record = await serial(root, 20_000), make_progress()
    assert chaos.analysis == expected
    assert render_report(chaos.analysis, record, title="t") == render_report(
        expected, record, title="t"
    )
    assert (tmp_path / "report.html").read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.promise("processor-fleet-resume")
@pytest.mark.real
@pytest.mark.timeout(60)
@on_one_loop
async def test_a_run_that_is_killed_goes_on_with_workers_from_elsewhere(tmp_path, redis_url):
    """The workers are those of the command; one program is killed, another takes its place."""
    tree = make_tree(tmp_path / "tree")
    async with open_backend(redis_url) as backend:
        queue = backend.queue(QUEUE)

        async def told() -> bool:
            return (await queue.counts()).queued > 1

        async def done() -> bool:
            counts = await queue.counts()
            return counts.queued == counts.running == 0

        with coordinator(tree, redis_url, "nightly"):
            await until(told)
        with worker(redis_url, tmp_path / "log"):
            await until(done)
            fleet = Fleet(redis_url, processes=0, run="nightly")
            processor = DataProcessor(Corpus.at(tree), executor=fleet, chunk_bytes=200)
            assert await processor.run() == await serial(tree)
    begun = {each.stage: each.start < 0 for each in processor.progress.spans}
    assert begun["ingestion"]  # done before this program began
    assert not begun["processing"]
    await nothing_is_left(redis_url)


@pytest.mark.real
@on_one_loop
async def test_a_server_that_forgets_costs_its_chunks_anew(tmp_path):
    make_tree(tmp_path)
    with RedisServer(private=True) as server:
        fleet = Fleet(server.url, processes=0)
        processor = DataProcessor(Corpus.at(tmp_path), executor=fleet, chunk_bytes=200)
        chaos = Chaos(server=(1,))
        queue = run_queue(server.url)
        async with Worker(queue, concurrency=1):
            await chaos.around(processor, server)
    assert chaos.kills["server"] == 1
    assert chaos.analysis == await serial(tmp_path)


@pytest.mark.parametrize("times", [1, 100])
async def test_values_that_were_forgotten_are_made_anew_but_not_for_ever(
    tmp_path, monkeypatch, times
):
    get, forgotten = MemoryKv.get, list[str]()

    async def forgetful(self, key):
        if len(forgotten) < times:
            forgotten.append(key)
            return None
        return await get(self, key)

    monkeypatch.setattr(MemoryKv, "get", forgetful)
    processor = DataProcessor(Corpus.at(grow(tmp_path, 1)), executor=Fleet("memory://"))
    if times == 1:
        assert await processor.run() == await serial(tmp_path)
        return
    with pytest.raises(BackendError, match=r"memory:// has forgotten the jobs of run .* 5 times"):
        await processor.run()


async def test_a_run_that_was_ended_begins_anew_under_its_id(tmp_path):
    corpus = Corpus.at(grow(tmp_path, 1))
    async with open_backend("memory://") as backend:
        with anyio.move_on_after(0.05):
            await DataProcessor(corpus, executor=Fleet(backend, processes=0, run="one")).run()
        counts = await backend.queue(QUEUE).counts()
        assert counts.queued == 0
        for _ in range(2):  # a run that has ended well begins anew as well
            fleet = Fleet(backend, processes=2, run="one")
            assert await DataProcessor(corpus, executor=fleet).run() == await serial(tmp_path)


@pytest.mark.untraced
def test_wherever_it_is_cancelled_no_job_and_no_value_is_left(tmp_path):
    corpus = Corpus.at(grow(tmp_path, 1))

    def scenario() -> Trial:
        backend = open_backend("memory://")
        processor = DataProcessor(corpus, executor=Fleet(backend, processes=1))

        async def work() -> None:
            async with backend:
                try:
                    await processor.run()
                finally:
                    with anyio.CancelScope(shield=True):
                        await nothing_is_in(backend)

        return Trial(work())

    cancel_everywhere(scenario, kinds=("native", "scope"), minimum=5)


@pytest.mark.real
@on_one_loop
async def test_a_server_that_stays_away_ends_the_run(tmp_path, monkeypatch):
    again = Retry(on=BackendUnavailableError, attempts=1)
    monkeypatch.setattr(module, "_PATIENT", again)
    monkeypatch.setattr(module, "_LOOK", 0.05)
    monkeypatch.setattr(module, "_FAREWELL", 0.1)
    with RedisServer(private=True) as server:
        fleet = Fleet(open_backend(server.url, timeout=0.3), processes=0)
        async with anyio.create_task_group() as tasks:

            async def kill() -> None:
                async def sent() -> bool:
                    return bool(server.command("KEYS", "*"))

                await until(sent)
                server.kill()

            tasks.start_soon(kill)
            with pytest.raises(BackendUnavailableError):
                await DataProcessor(Corpus.at(grow(tmp_path, 1)), executor=fleet).run()


def test_what_another_machine_did_is_told_by_this_clock():
    made = Made("key", "elsewhere", 7, 7, 1_000_000.0, 1_000_002.0)
    timed = module._timed(made, 3)
    assert timed.end - timed.start == pytest.approx(2.0)
    assert timed.end < 1_000_000.0
    assert timed.process != os.getpid()


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="processes must be a whole number >= 0, not -1"):
        Fleet("memory://", processes=-1)
    with pytest.raises(ValueError, match="backend must be a URL, which worker processes can open"):
        Fleet(open_backend("redis://host"), processes=1)
    assert Fleet(open_backend("redis://host"), processes=0).capacity == 1
    with pytest.raises(ValueError, match="run must be"):
        Fleet("memory://", run="")


async def nothing_is_left(url: str) -> None:
    """Only outcomes with a life are left: no value, no job that waits."""
    async with open_backend(url) as backend:
        await nothing_is_in(backend)


async def nothing_is_in(backend) -> None:
    assert not (await backend.kv.scan("run:", limit=10_000)).keys
    counts = await backend.queue(QUEUE).counts()
    assert (counts.queued, counts.scheduled, counts.running) == (0, 0, 0)
