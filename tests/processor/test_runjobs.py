"""What workers do with chunks, asked for without a run around it."""

from __future__ import annotations

import platform
from pathlib import Path

import anyio
import pytest

from aiopatterns.backends.memory.kv import MemoryKv
from aiopatterns.core.errors import BackendUnavailableError, JobFailedError
from aiopatterns.jobs import JobDone, JobRetried, JobStatus, Worker
from aiopatterns.processor import runjobs as module
from aiopatterns.processor import stages, tokens, wire
from aiopatterns.processor.corpus import Chunk, Entry
from aiopatterns.processor.runjobs import HOST, FilesDiffer, Made, Sum, Task, run_queue, stamp
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import capture_events


@pytest.fixture
def chunk(tmp_path):
    (tmp_path / "a.py").write_text("value = 'word'  # comment\n")
    (tmp_path / "b.txt").write_text("Words and words\n")
    return Chunk(0, str(tmp_path), (Entry("a.py", ("a",)), Entry("b.txt", ("b", "b"))), 30)


@pytest.fixture
def soon(monkeypatch):
    """What is given back, or has failed, is taken again soon."""
    monkeypatch.setattr(module, "_SOON", 0.01)
    again = Retry(on=OSError, attempts=8, backoff=Constant(0.001))
    monkeypatch.setattr(module, "_AGAIN", again)
    monkeypatch.setattr(module, "_BREAK", 0.1)


def task(chunk: Chunk, key: str = "run:1", host: str = HOST) -> Task:
    return Task(key, host, stamp(chunk), wire.write_chunk(chunk))


async def test_each_stage_leaves_what_it_found_under_its_key(chunk):
    queue = run_queue("memory://")
    read = {
        "ingestion": (wire.read_facts, stages.ingest(chunk)),
        "processing": (wire.read_processed, stages.process(chunk)),
        "analysis": (wire.read_counted, stages.count(chunk)),
    }
    async with queue, Worker(queue):
        for name, (decode, expected) in read.items():
            handle = await queue.jobs[name].enqueue(task(chunk, f"run:{name}"))
            made: Made = await handle.result(timeout=5)
            assert (made.key, made.host) == (f"run:{name}", HOST)
            assert made.start <= made.end
            data = await queue.backend.kv.get(made.key)
            assert data is not None
            assert decode(data) == expected


async def test_sums_are_those_of_their_parts(chunk):
    queue = run_queue("memory://")
    async with queue, Worker(queue):
        kv = queue.backend.kv
        await kv.set("n", wire.write_processed(stages.process(chunk)), ttl=60)
        await kv.set("w", wire.write_counted(stages.count(chunk)), ttl=60)
        for name, parts in (("names", ["n"]), ("words", ["w"])):
            handle = await queue.jobs[name].enqueue(Sum(f"run:{name}", parts))
            await handle.result(timeout=5)
        names = wire.read_processed(await kv.get("run:names") or b"")
        words = wire.read_counted(await kv.get("run:words") or b"")
    single = stages.process(chunk)
    assert names.volume == single.volume
    assert tokens.unpack(names.names) == tokens.unpack(single.names)
    assert {name: tokens.unpack(bag) for name, bag in words.words} == {
        name: tokens.unpack(bag) for name, bag in stages.count(chunk).words
    }


async def test_a_sum_of_what_is_gone_fails_for_good():
    queue = run_queue("memory://")
    async with queue, Worker(queue):
        handle = await queue.jobs["names"].enqueue(Sum("run:s", ["run:gone"]))
        with pytest.raises(JobFailedError, match="not kept any more: run:gone") as caught:
            await handle.result(timeout=5)
        assert caught.value.attempts == 1


def test_machines_of_one_name_are_told_by_their_mounts(monkeypatch):
    assert module._host() == HOST
    assert HOST.startswith(platform.node())
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"boot")
    monkeypatch.setattr(Path, "readlink", lambda _: Path("mnt:[1]"))
    one = module._host()
    monkeypatch.setattr(Path, "readlink", lambda _: Path("mnt:[2]"))
    assert module._host() != one
    monkeypatch.setattr(Path, "readlink", Path("/nowhere").stat)
    assert module._host() == platform.node()


@pytest.mark.usefixtures("soon")
async def test_a_machine_without_the_files_gives_the_chunk_back(chunk, tmp_path):
    queue = run_queue("memory://")
    given = task(chunk, host="elsewhere")
    (tmp_path / "b.txt").write_text("other\n")
    with capture_events() as events:
        async with queue, Worker(queue):
            handle = await queue.jobs["ingestion"].enqueue(given)
            while not any(isinstance(each, FilesDiffer) for each in events):
                await anyio.sleep(0.005)
            given_back = await handle.status()
            await handle.cancel()
    assert given_back is not JobStatus.DEAD
    found = next(each for each in events if isinstance(each, FilesDiffer))
    assert (found.root, found.host) == (str(tmp_path), "elsewhere")


async def test_a_machine_with_the_files_does_the_work_of_another(chunk, tmp_path):
    queue = run_queue("memory://")
    async with queue, Worker(queue):
        same = await queue.jobs["ingestion"].enqueue(task(chunk, host="elsewhere"))
        await same.result(timeout=5)
        given = task(chunk, host="elsewhere")
        (tmp_path / "b.txt").unlink()
        other = await queue.jobs["ingestion"].enqueue(given)  # nobody listens to what is told
        while await other.status() is not JobStatus.SCHEDULED:
            await anyio.sleep(0.005)


@pytest.mark.usefixtures("soon")
async def test_an_outage_costs_no_attempt(chunk, monkeypatch):
    kept, lost = MemoryKv.set, list[str]()

    async def away(self, key, value, *, ttl=None):
        if not lost:
            lost.append(key)
            raise BackendUnavailableError("away")
        await kept(self, key, value, ttl=ttl)

    monkeypatch.setattr(MemoryKv, "set", away)
    queue = run_queue("memory://")
    with capture_events() as events:
        async with queue, Worker(queue):
            await (await queue.jobs["analysis"].enqueue(task(chunk))).result(timeout=5)
    assert lost == ["run:1"]
    assert [each.attempt for each in events if isinstance(each, JobDone)] == [1]


async def test_the_machine_that_listed_the_files_is_believed(chunk, tmp_path):
    queue = run_queue("memory://")
    given = task(chunk)
    (tmp_path / "b.txt").unlink()
    async with queue, Worker(queue):
        made = await (await queue.jobs["ingestion"].enqueue(given)).result(timeout=5)
        facts = wire.read_facts(await queue.backend.kv.get(made.key) or b"")
    assert [each.kind for each in facts] == ["text", "unreadable"]


@pytest.mark.usefixtures("soon")
async def test_another_machine_that_cannot_read_them_fails_and_its_circuit_opens(chunk, tmp_path):
    (tmp_path / "c.txt").mkdir()  # which no open can read
    chunk = Chunk(0, chunk.root, (Entry("c.txt", ("c",)),), 1)
    queue = run_queue("memory://")
    with capture_events() as events:
        async with queue, Worker(queue):
            handle = await queue.jobs["ingestion"].enqueue(task(chunk, host="elsewhere"))
            with pytest.raises(JobFailedError, match=r"a file of .* cannot be read on") as caught:
                await handle.result(timeout=30)
    assert caught.value.attempts == 8
    assert any("circuit" in each.name for each in events)
    errors = [type(each.error).__name__ for each in events if isinstance(each, JobRetried)]
    assert "RetryLater" in errors


def test_a_stamp_tells_sizes_times_and_absence(chunk, tmp_path):
    first = stamp(chunk)
    assert stamp(chunk) == first
    (tmp_path / "a.py").write_text("value = 'ward'  # comment !\n")
    second = stamp(chunk)
    (tmp_path / "a.py").unlink()
    assert len({first, second, stamp(chunk)}) == 3
