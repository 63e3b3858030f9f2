"""Supervisors with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from aiopatterns.core.clock import monotonic
from aiopatterns.flow.autoscale import Autoscale
from aiopatterns.jobs import ChildCrashed, JobQueue, Supervisor
from aiopatterns.jobs import supervisor as module
from aiopatterns.testing import capture_events
from tests.jobs.fleet import on_one_loop

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.real, pytest.mark.timeout(50)]

SOURCE = """
    import os, time
    import anyio
    from aiopatterns.jobs import JobQueue

    jobs = JobQueue("supervised", {url!r}, lease=1.0)
    VERSION = 1

    @jobs.job(name="who")
    async def who(seconds: float = 0.0) -> list[int]:
        await anyio.sleep(seconds)
        return [os.getpid(), VERSION]

    @jobs.job(name="block")
    async def block() -> None:
        time.sleep(20)
"""


@pytest.fixture
def target(tmp_path, monkeypatch, redis_url, request):
    name = f"supervised_{tmp_path.name}".replace("[", "_").replace("]", "_").replace("-", "_")
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SOURCE.format(url=redis_url)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield f"{name}:jobs"
    sys.modules.pop(name, None)


@pytest.fixture
def jobs(redis_url):
    queue = JobQueue("supervised", redis_url, lease=1.0)

    @queue.job(name="who")
    async def who(seconds: float = 0.0) -> list[int]:
        return []

    return queue


async def ask(jobs: JobQueue, seconds: float = 0.0) -> list[int]:
    handle = await jobs.jobs["who"].enqueue(seconds)
    found: list[int] = await handle.result(timeout=20)
    return found


async def until(told, within: float = 20.0) -> None:
    began = monotonic()
    while not told():
        assert monotonic() - began < within
        await anyio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@on_one_loop
async def test_processes_run_jobs_and_one_that_crashes_is_replaced(target, jobs):
    with capture_events() as events:
        async with jobs, Supervisor(target, processes=2, grace=2) as supervisor:
            await until(lambda: len(supervisor.statistics().pids) == 2)
            pids = {*supervisor.statistics().pids}
            assert (await ask(jobs))[0] in pids
            victim = min(pids)
            os.kill(victim, signal.SIGKILL)
            await until(lambda: supervisor.statistics().restarts == 1)
            await until(lambda: len(supervisor.statistics().pids) == 2)
            assert victim not in supervisor.statistics().pids
            assert (await ask(jobs))[0] in supervisor.statistics().pids
            last = supervisor.statistics().pids
        assert not any(map(alive, last))
        assert supervisor.statistics().processes == 0
    (crash,) = [each for each in events if isinstance(each, ChildCrashed)]
    assert (crash.pid, crash.code) == (victim, -signal.SIGKILL)
    await leave_nothing(jobs)


async def leave_nothing(jobs: JobQueue) -> None:
    """Let the lease of killed workers end, and take them back, so that no key is left."""
    from aiopatterns.jobs import Worker

    async with Worker(jobs):
        began = monotonic()
        async with jobs.backend:
            while (await jobs.stores[0].counts()).workers > 1 or monotonic() - began < 1.5:
                await anyio.sleep(0.05)


@on_one_loop
async def test_leaving_by_an_error_ends_the_processes_too(target, jobs):
    with pytest.raises(KeyError):
        async with Supervisor(target, processes=1, grace=0.5) as supervisor:
            await until(lambda: supervisor.statistics().pids)
            (pid,) = supervisor.statistics().pids
            await anyio.sleep(0.5)
            raise KeyError
    assert not alive(pid)
    await leave_nothing(jobs)


@on_one_loop
async def test_signals_are_passed_on_and_a_second_one_forces(target, jobs):
    supervisor = Supervisor(target, processes=2, grace=60, concurrency=1)
    async with jobs, anyio.create_task_group() as tasks:
        tasks.start_soon(supervisor.serve)
        handles = [await jobs.jobs["who"].enqueue(40.0) for _ in range(2)]
        began = monotonic()
        while (await jobs.stores[0].counts()).running < 2:
            assert monotonic() - began < 20
            await anyio.sleep(0.02)
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep(0.3)
        assert len(supervisor.statistics().pids) == 2
        began = monotonic()
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: not supervisor.statistics().pids)
        assert monotonic() - began < 3
        for each in handles:
            await each.cancel()


@on_one_loop
async def test_a_process_that_has_run_its_jobs_is_replaced_at_once(target, jobs):
    async with jobs, Supervisor(target, processes=1, grace=2, max_jobs=2) as supervisor:
        seen = set()
        for _ in range(5):
            seen.add((await ask(jobs))[0])
        assert len(seen) >= 2
        assert supervisor.statistics().restarts >= 1


@on_one_loop
async def test_a_change_of_the_source_restarts(target, jobs, tmp_path):
    async with jobs, Supervisor(target, processes=1, grace=2, reload=True) as supervisor:
        pid, version = await ask(jobs)
        assert version == 1
        (source,) = tmp_path.glob("*.py")
        source.write_text(source.read_text().replace("VERSION = 1", "VERSION = 22"))
        await until(lambda: supervisor.statistics().restarts == 1)
        other, version = await ask(jobs)
        assert (other != pid, version) == (True, 22)


@on_one_loop
async def test_the_number_of_processes_follows_the_load(target, jobs):
    scale = Autoscale(1, 2, target_wait=0.5, idle=1)
    async with jobs, Supervisor(target, autoscale=scale, concurrency=2, grace=2) as supervisor:
        who = jobs.jobs["who"]
        await jobs.enqueue_many([who.job(0.2) for _ in range(40)])
        await until(lambda: len(supervisor.statistics().pids) == 2)
        await until(lambda: supervisor.statistics().processes == 1, within=25)
        while any((await jobs.stores[0].counts())[:4]):
            await anyio.sleep(0.02)


@on_one_loop
async def test_no_process_outlives_a_supervisor_that_is_killed(target, jobs):
    code = (
        "import anyio, sys\nfrom aiopatterns.jobs import Supervisor\n"
        f"anyio.run(Supervisor({target!r}, processes=1, grace=1).serve)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    async with jobs:
        (pid, _) = await ask(jobs)
        process.kill()
        process.wait()
        await until(lambda: not alive(pid), within=5)


@on_one_loop
async def test_a_process_that_does_not_obey_is_killed(target, jobs, monkeypatch):
    monkeypatch.setattr(module, "MARGIN", 0.2)

    @jobs.job(name="block")
    async def block() -> None: ...

    async with jobs:
        async with Supervisor(target, processes=1, grace=0.0) as supervisor:
            handle = await block.enqueue()
            while (await jobs.stores[0].counts()).running == 0:
                await anyio.sleep(0.01)
            (pid,) = supervisor.statistics().pids
            began = monotonic()
        assert monotonic() - began < 2
        assert not alive(pid)
        await handle.cancel()
    await leave_nothing(jobs)


def test_children_have_the_backend_from_their_environment(target, tmp_path):
    (tmp_path / "made_queue.py").write_text(
        "from aiopatterns.jobs import JobQueue\n"
        "def make(backend):\n    return JobQueue('made', backend)\n"
    )
    supervisor = Supervisor("made_queue:make", backend="redis://:secret@host/0")
    assert supervisor._environment == {"AIOPATTERNS_BACKEND": "redis://:secret@host/0"}
    assert not any("secret" in each for each in supervisor._arguments)
    assert Supervisor(target)._environment == {}
    sys.modules.pop("made_queue", None)


@pytest.mark.promise("jobs-worker-input")
def test_bad_input(target, tmp_path):
    (tmp_path / "in_memory_queue.py").write_text(
        "from aiopatterns.jobs import JobQueue\njobs = JobQueue('m')\n"
    )
    for make, kind, text in [
        (lambda: Supervisor("in_memory_queue:jobs"), ValueError, "processes share"),
        (lambda: Supervisor(target, processes=0), ValueError, "processes"),
        (lambda: Supervisor(target, autoscale=cast("Any", 3)), TypeError, "autoscale"),
        (lambda: Supervisor(target, concurrency=0), ValueError, "concurrency"),
        (lambda: Supervisor(target, grace=-1), ValueError, "grace"),
        (lambda: Supervisor(target, max_jobs=0), ValueError, "max_jobs"),
        (lambda: Supervisor("nothing"), ValueError, "target"),
    ]:
        with pytest.raises(kind, match=text):
            make()
    sys.modules.pop("in_memory_queue", None)
