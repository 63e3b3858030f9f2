from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from aiopatterns.cli.app import main
from aiopatterns.cli.exits import FAILED, USAGE
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
