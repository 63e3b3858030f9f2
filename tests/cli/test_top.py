from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.cli import top as module
from aiopatterns.cli.app import main
from aiopatterns.cli.exits import DONE, FAILED, USAGE
from aiopatterns.jobs import JobQueue, Worker
from tests.jobs.fleet import on_one_loop

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.real, pytest.mark.timeout(40)]


def start(*argv: str, **more) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "aiopatterns", "top", *argv]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **more)


async def read_until(file: int, words: bytes) -> bytes:
    """Read what a terminal is shown until the words have come."""
    text = b""
    with anyio.fail_after(20):
        while words not in text:
            await anyio.wait_readable(file)
            text += os.read(file, 65536)
    return text


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        ([], USAGE, "the following arguments are required: --backend"),
        (["--backend", "memory://"], USAGE, "--backend must be one that processes share"),
        (["--backend", "nowhere"], USAGE, "nowhere"),
        (["--backend", "redis://here", "--interval", "0"], USAGE, "seconds > 0, not '0'"),
        (["--backend", "redis://here", "--queue", ""], USAGE, "queues must"),
        (["--backend", "unix:///no/such/socket", "--once"], FAILED, "/no/such/socket"),
    ],
)
def test_bad_usage_is_one_line(argv, code, text, capsys):
    assert main(["top", *argv]) == code
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert text in told.err


def test_once_with_nothing_there(redis_url, capsys):
    assert main(["top", "--backend", redis_url, "--once", "--queue", "waiting-room"]) == DONE
    out = capsys.readouterr().out
    assert ": queues 1, workers 0" in out
    assert "waiting-room" in out


def test_a_reader_that_goes_away_is_one_line(redis_url, monkeypatch, capsys):
    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(module, "_tell", broken)
    assert main(["top", "--backend", redis_url]) == FAILED
    assert capsys.readouterr().err == "aiopatterns: Broken pipe\n"


@on_one_loop
async def test_queues_and_workers_as_text_and_as_json(redis_url, capsys):
    jobs = JobQueue("toptest", redis_url)

    @jobs.job(name="add")
    async def add(left: int, right: int) -> int:
        return left + right

    async with jobs, Worker(jobs):
        handle = await add.enqueue(1, 2)
        await handle.result(timeout=10)
        where = ["top", "--backend", redis_url, "--once"]
        assert await anyio.to_thread.run_sync(main, where) == DONE
        out = capsys.readouterr().out
        assert await anyio.to_thread.run_sync(main, [*where, "--json"]) == DONE
        told = json.loads(capsys.readouterr().out)
        await jobs.purge()
    assert "toptest" in out
    assert f":{os.getpid()}" in out
    (queue,) = [each for each in told["queues"] if each["name"] == "toptest"]
    assert (queue["workers"], queue["throughput"]) == (1, None)
    assert [each["pid"] for each in told["workers"]] == [os.getpid()]


@pytest.mark.promise("cli-top-outage")
@on_one_loop
async def test_lines_through_an_outage_until_a_signal():
    """JSON each look; the outage is one line on standard error; SIGTERM ends with 0."""
    async with RedisServer(private=True) as server:
        shown, told = os.pipe()
        argv = ("--backend", server.url, "--json", "--interval", "0.1", "--queue", "mail")
        with start(*argv, stdout=told, stderr=subprocess.PIPE) as process:
            os.close(told)
            first = await read_until(shown, b"\n")
            assert json.loads(first.splitlines()[0])["queues"][0]["name"] == "mail"
            server.kill()
            assert process.stderr is not None
            await read_until(process.stderr.fileno(), b"\n")
            while await anyio.to_thread.run_sync(more_to_read, shown):
                os.read(shown, 65536)
            server.restart()
            await read_until(shown, b"\n")
            process.send_signal(signal.SIGTERM)
            assert await anyio.to_thread.run_sync(process.wait) == DONE
            assert process.stderr.read() == b""
        os.close(shown)


def more_to_read(file: int) -> bool:
    import select

    return bool(select.select([file], [], [], 0.3)[0])


@on_one_loop
async def test_a_terminal_is_a_live_screen_with_keys(redis_url):
    ours, theirs = os.openpty()
    argv = ("--backend", redis_url, "--interval", "0.1", "--queue", "mail")
    with start(*argv, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        await read_until(ours, b"mail")
        os.write(ours, b"p")
        await read_until(ours, b"stands still")
        os.write(ours, b"q")
        text = await read_until(ours, b"\x1b[?1049l")
        assert await anyio.to_thread.run_sync(process.wait) == DONE
    assert b"Traceback" not in text
    os.close(ours)
