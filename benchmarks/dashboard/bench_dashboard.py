"""The dashboard: its share of a core while a queue does 1,000 jobs a second.

A private Redis, one process that enqueues and does the jobs, and the command ``aiopatterns
dashboard``, whose CPU time (user and system, from ``/proc``) is compared with the clock for ten
seconds. A viewer is a connection that reads ``/api/live``, as the page does.

The page is compared with nothing: what peers poll or redraw is another set of figures. What stands
beside is the command that nobody watches, and one that 20 watch, for a look is taken once for all.

Goal: less than 1 % of a core with one viewer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

from aiopatterns.backends.redis.embedded import RedisServer
from benchmarks.harness import Bench, Figure

if TYPE_CHECKING:
    from collections.abc import Generator

    from benchmarks.harness import Contender

RATE = 1_000
SECONDS = 10.0
WARM = 4.0

bench = Bench("dashboard/dashboard", versions=("starlette", "uvicorn"), loops=("uvloop",), rounds=3)


@contextmanager
def running(*words: str) -> Generator[tuple[int, str]]:
    """A program that prints a line: its pid, and that line."""
    command = [sys.executable, "-m", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.kill()


def cpu(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(host: str, cookie: str) -> HTTPConnection:
    """Read what a page gets, until the connection is closed."""
    connection = HTTPConnection(host)
    connection.request("GET", "/api/live", headers={"Cookie": cookie})
    answer = connection.getresponse()
    assert answer.status == 200

    def read() -> None:
        with suppress(OSError, ValueError, AttributeError):
            while answer.readline():
                pass

    threading.Thread(target=read, daemon=True).start()
    return connection


def cookie_of(host: str, token: str) -> str:
    connection = HTTPConnection(host)
    connection.request("GET", f"/?token={token}")
    answer = connection.getresponse()
    return (answer.getheader("Set-Cookie") or "").partition(";")[0]


def share(viewers: int) -> float:
    """Percent of a core that the dashboard takes."""
    with ExitStack() as stack:
        enter = stack.enter_context
        url = enter(RedisServer(private=True)).url
        enter(running("benchmarks.dashboard.load", url, str(RATE)))
        command = ("aiopatterns", "dashboard", "--backend", url, "--port", "0")
        pid, address = enter(running(*command))
        host, _, token = address.removeprefix("http://").partition("/?token=")
        cookie = cookie_of(host, token)
        for _ in range(viewers):
            stack.callback(watch(host, cookie).close)
        time.sleep(WARM)
        began, used = time.monotonic(), cpu(pid)
        time.sleep(SECONDS)
        found = (cpu(pid) - used) / (time.monotonic() - began) * 100
        if viewers:
            check(host, cookie)
        return found


def check(host: str, cookie: str) -> None:
    """See that the page would show what is done."""
    connection = HTTPConnection(host)
    connection.request("GET", "/api/overview", headers={"Cookie": cookie})
    seen = json.loads(connection.getresponse().read())
    (queue,) = seen["queues"]
    assert queue["throughput"] > 0.8 * RATE, queue
    assert {each["kind"] for each in seen["owners"]} == {"breaker", "cache"}


def with_viewers(viewers: int) -> Contender:
    async def run() -> Figure:
        return Figure(share(viewers))

    return run


idle = bench.case("CPU of the dashboard, 1,000 jobs/s", clock="cpu", unit="% of a core", warm=False)
idle.ours("one viewer")(with_viewers(1))
idle.ours("20 viewers")(with_viewers(20))
idle.limit("nobody watches")(with_viewers(0))
idle.under(1.0, ours="one viewer")

if __name__ == "__main__":
    bench.main()
