"""One worker process, without a worker in it: any module that takes the arguments will do."""

from __future__ import annotations

import signal
import sys

import anyio
import pytest

from aiopatterns.core.clock import monotonic
from aiopatterns.jobs import child as module
from aiopatterns.jobs.child import Child, ChildCrashed
from aiopatterns.testing import capture_events
from tests.jobs.fleet import on_one_loop

pytestmark = [pytest.mark.real, pytest.mark.timeout(20)]


def make(code: str, *, grace: float = 1.0) -> Child:
    child = Child([], grace=grace)
    child._arguments = [sys.executable, "-c", code]
    return child


async def until(told) -> None:
    began = monotonic()
    while not told():
        assert monotonic() - began < 10
        await anyio.sleep(0.005)


@on_one_loop
async def test_it_runs_the_command():
    child = Child(["shop:jobs", "--child"], grace=1)
    assert child._arguments == [
        sys.executable, "-m", "aiopatterns", "worker", "shop:jobs", "--child"
    ]  # fmt: skip
    child.kill()  # nothing runs
    child.restart()
    assert child.pid is None


@on_one_loop
async def test_it_has_an_environment_and_may_be_quiet(tmp_path, capfd):
    for quiet in (True, False):
        child = Child([], {"SAID": "word"}, grace=1, quiet=quiet)
        child._arguments = [sys.executable, "-c", "import os; print(os.environ['SAID'])"]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.keep)
            await until(lambda: child.restarts)
            child.stop()
        assert ("word" in capfd.readouterr().out) is not quiet


@on_one_loop
async def test_one_that_ends_well_is_started_at_once_and_one_that_crashes_later():
    with capture_events() as events:
        child = make("raise SystemExit(3)")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.keep)
            await until(lambda: child.restarts == 3)
            assert child.failures == 3
            child.stop()
    delays = [each.delay for each in events if isinstance(each, ChildCrashed)]
    assert len(delays) == 3
    assert 0.1 <= delays[0] <= 0.2
    assert 0.4 <= delays[2] <= 0.8
    assert {each.code for each in events if isinstance(each, ChildCrashed)} == {3}

    child = make("pass")
    with capture_events() as events:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.keep)
            await until(lambda: child.restarts == 3)
            child.stop()
    assert events == []


@on_one_loop
async def test_one_that_has_lived_long_begins_with_the_shortest_wait(monkeypatch):
    monkeypatch.setattr(module, "_LIVED", 0.0)
    child = make("raise SystemExit(3)")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(child.keep)
        await until(lambda: child.restarts == 2)
        assert child._crashes == 1
        child.stop()


@on_one_loop
async def test_a_restart_replaces_the_process():
    child = make("import time; time.sleep(60)")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(child.keep)
        await until(lambda: child.pid)
        first = child.pid
        child.restart()
        await until(lambda: child.pid not in {None, first})
        child.stop()


@on_one_loop
async def test_one_that_was_stopped_while_it_started_ends():
    child = make("import time; time.sleep(60)")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(child.keep)
        await anyio.lowlevel.checkpoint()
        child.stop()
    assert child.pid is None


@on_one_loop
async def test_a_cancelled_keeper_leaves_no_process(monkeypatch):
    monkeypatch.setattr(module, "MARGIN", 0.1)
    stubborn = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(flush=True)\ntime.sleep(60)"
    for code in ("import time; time.sleep(60)", stubborn):
        child = make(code, grace=0.2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.keep)
            await until(lambda: child.pid)
            await anyio.sleep(0.3)
            tasks.cancel_scope.cancel()
        assert child.pid is None


@on_one_loop
async def test_signals_to_a_process_that_is_gone_are_nothing(monkeypatch):
    child = make("import time; time.sleep(60)")

    def gone(*_):
        raise ProcessLookupError

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(child.keep)
        await until(lambda: child.pid)
        process = child._process
        assert process is not None
        child._process = type("Gone", (), {"send_signal": gone, "kill": gone})()
        child.kill()
        child.restart()
        child._process = process
        child.kill()
        await until(lambda: child.restarts)
        child.stop()


@on_one_loop
async def test_a_crash_that_nobody_listens_to():
    child = make(f"import os; os.kill(os.getpid(), {signal.SIGKILL})")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(child.keep)
        await until(lambda: child.restarts == 1)
        child.stop()
