from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from aiopatterns.cli import worker as command
from aiopatterns.cli.app import main
from aiopatterns.cli.exits import FAILED, USAGE
from aiopatterns.core.telemetry import Event
from aiopatterns.jobs import JobStarted, LoopBlocked
from aiopatterns.jobs.ledger import Ledger, add_up
from tests.jobs.fleet import on_one_loop

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.real, pytest.mark.timeout(40)]

SOURCE = """
    import os, threading, time
    from aiopatterns.jobs import JobQueue

    jobs = JobQueue("shop", os.environ.get("SHOP_URL", "memory://"), lease=1.0)

    @jobs.job(name="hello")
    async def hello() -> int:
        return os.getpid()

    @jobs.job(name="stuck")
    def stuck() -> None:
        time.sleep(30)
"""


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "shop.py").write_text(textwrap.dedent(SOURCE))
    return tmp_path


def start(folder: Path, *argv: str, url: str = "memory://", **more) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "aiopatterns", "worker", "shop:jobs", *argv],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "SHOP_URL": url, "PYTHONPATH": str(ROOT)}, **more,
    )  # fmt: skip


def banner(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return "".join(process.stdout.readline() for _ in range(4))


def catches(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Whether the process has a handler for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.promise("jobs-worker-input")
@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "the following arguments are required: MODULE:QUEUE"),
        (["shop"], "target must name a queue, not 'shop'"),
        (["no_such_module:jobs"], "there is no module 'no_such_module'"),
        (["shop:jobs", "--concurrency", "0"], "--concurrency: must be a whole number from 1"),
        (["shop:jobs", "--processes", "x"], "--processes: must be a whole number from 1"),
        (["shop:jobs", "--grace", "-1"], "--grace: must be a number of seconds >= 0, not '-1'"),
        (["shop:jobs", "--grace", "soon"], "--grace: must be a number of seconds >= 0"),
        (["shop:jobs", "--max-jobs", "0"], "--max-jobs: must be a whole number >= 1"),
        (["shop:jobs", "--processes", "2"], "whose backend processes share"),
        (["shop:jobs", "--backend", "redis://h"], "its backend is memory://, so none may be given"),
        (["aiopatterns.processor.runjobs:run_queue"], "neither backend nor AIOPATTERNS_BACKEND"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(argv, text, shop, monkeypatch, capsys):
    monkeypatch.chdir(shop)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    assert main(["worker", *argv]) == USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line
    sys.modules.pop("shop", None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_ends_after_a_signal_with_code_0(number, shop):
    process = start(shop, "--concurrency", "7", "--grace", "3")
    assert banner(process) == (
        "aiopatterns worker: queue 'shop' at memory://\n"
        "1 process, 7 jobs at once in each, 3 s grace\n"
        "jobs: hello, stuck\n"
        "Ctrl-C ends it gracefully, twice at once\n"
    )
    while not catches(process, signal.SIGTERM):
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "ended: 0 done, 0 dead, 0 retried\n", "")


@pytest.fixture
def here(shop, monkeypatch):
    """Run the command in this process, without what it leaves behind in one."""
    monkeypatch.chdir(shop)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    monkeypatch.setattr(command, "_leave_threads", lambda: None)
    listeners: list[Any] = []

    def install(listener):
        listeners.append(listener)
        return nullcontext()

    monkeypatch.setattr(command, "install_listener", install)
    yield listeners
    sys.modules.pop("shop", None)


def signal_later() -> None:
    threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()


def test_the_command_says_how_it_went(here, capsys, monkeypatch):
    signal_later()
    assert main(["worker", "shop:jobs"]) == 0
    assert capsys.readouterr().out.endswith("ended: 0 done, 0 dead, 0 retried\n")
    (rare,) = here
    logged: list[Event] = []
    monkeypatch.setattr(command, "log_events", lambda: logged.append)
    here.clear()
    signal_later()
    assert main(["worker", "shop:jobs", "--debug"]) == 0
    assert here == [logged.append]
    assert rare.func is command._log_rare
    for event in (JobStarted("q", "j", "1", 1, None), LoopBlocked("w", 1.0, "")):
        command._log_rare(logged.append, event)
    assert [type(each) for each in logged] == [LoopBlocked]


@pytest.mark.usefixtures("here")
def test_a_supervisor_says_how_it_went(redis_url, capsys, monkeypatch):
    monkeypatch.setenv("SHOP_URL", redis_url)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    signal_later()
    assert main(["worker", "shop:jobs", "--processes", "2"]) == 0
    out = capsys.readouterr().out
    assert "2 processes, 100 jobs at once in each" in out
    assert out.endswith(" restarts\n")


def test_the_summary_tells_how_long_jobs_took():
    ledger = Ledger("q")
    ledger.processed, ledger.lost, ledger.stale = 3, 1, 1
    ledger.seconds.record(0.5)
    assert command._summary(add_up([ledger])) == (
        "3 done, 0 dead, 0 retried, 2 lost to other workers; half within 502 ms, 99 % within 502 ms"
    )


def test_threads_that_a_function_keeps_busy_do_not_keep_the_process(monkeypatch):
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    command._leave_threads()
    assert codes == []
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="AnyIO worker thread")
    thread.start()
    command._leave_threads()
    end.set()
    thread.join()
    assert codes == [0]


def test_a_pipe_that_ends_stops_the_process(monkeypatch):
    found = [b"x", b""]
    killed = threading.Event()
    monkeypatch.setattr(os, "read", lambda *_: found.pop(0))
    monkeypatch.setattr(os, "kill", lambda *_: killed.set())
    command._end_with_parent()
    assert killed.wait(5)
    assert found == []


def test_nobody_at_the_url_is_one_line_and_code_1(shop):
    for argv in ([], ["--processes", "2"]):
        process = start(shop, *argv, url=f"unix://{shop}/nowhere.sock")
        out, err = process.communicate(timeout=20)
        assert process.returncode == FAILED
        assert len(err.splitlines()) == 1, err
        assert "nowhere.sock" in err
        assert "ended" not in out


@on_one_loop
async def test_a_function_that_blocks_its_thread_does_not_keep_the_process(shop, redis_url):
    from aiopatterns.jobs import JobQueue

    process = start(shop, "--grace", "0.5", url=redis_url)
    banner(process)
    jobs = JobQueue("shop", redis_url, lease=1.0)

    @jobs.job(name="stuck")
    def stuck() -> None: ...

    @jobs.job(name="hello")
    async def hello() -> int:
        return 0

    import anyio

    async with jobs:
        assert await (await hello.enqueue()).result(timeout=10) == process.pid
        handle = await stuck.enqueue()
        while (await jobs.stores[0].counts()).running == 0:
            await anyio.sleep(0.01)
        process.terminate()
        began = time.monotonic()
        out, err = await anyio.to_thread.run_sync(lambda: process.communicate(timeout=10))
        assert time.monotonic() - began < 3
        assert (process.returncode, err) == (0, "")
        assert "ended: 1 done" in out
        await handle.cancel()
        while any((await jobs.stores[0].counts())[:4]):
            await anyio.sleep(0.01)


def test_a_child_ends_with_its_supervisor(shop):
    process = start(shop, "--child", stdin=subprocess.PIPE)
    while not catches(process, signal.SIGTERM):
        time.sleep(0.01)
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")
