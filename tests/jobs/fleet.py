"""Worker processes for the fault tests: started, killed, stopped, and what they have noted."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Self

import anyio

from aiopatterns.core.clock import monotonic
from tests.jobs.faultjobs import define

ROOT = Path(__file__).resolve().parent.parent.parent


def on_one_loop(test):
    """Run an async test once, by asyncio: what matters runs in processes of its own."""

    @functools.wraps(test)
    def run(*args, **fixtures):
        anyio.run(functools.partial(test, *args, **fixtures))

    return run


class Fleet:
    """Some ``aiopatterns worker`` processes over one server.

    Args:
        url: The server, as workers see it.
        folder: For the ledger and what the workers print.
        lease: Of the queue, in seconds.
        concurrency: Jobs at once in each process.
    """

    def __init__(self, url: str, folder: Path, *, lease=1.0, concurrency=10, grace=20.0) -> None:
        self.url, self.folder, self.lease = url, folder, lease
        self.concurrency, self.grace = concurrency, grace
        self.ledger = folder / "ledger"
        self.log = folder / "log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.kills = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for each in self.processes:
            if each.poll() is None:
                each.kill()
            each.wait()

    def queue(self, url: str | None = None):
        """Return the queue for a producer."""
        return define(url or self.url, self.ledger, self.lease)

    def start(self, count: int = 1) -> None:
        environment = {
            **os.environ,
            "FAULTS_URL": self.url,
            "FAULTS_LEDGER": str(self.ledger),
            "FAULTS_LEASE": str(self.lease),
        }
        command = [sys.executable, "-m", "aiopatterns", "worker", "tests.jobs.faultjobs:jobs"]
        command += ["--concurrency", str(self.concurrency), "--grace", str(self.grace)]
        with self.log.open("ab") as log:
            for _ in range(count):
                self.processes.append(
                    subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
                )

    def running(self) -> list[subprocess.Popen[bytes]]:
        return [each for each in self.processes if each.poll() is None]

    def kill_one(self) -> None:
        """Kill the oldest that has begun to work with SIGKILL; on a busy machine starts take long."""
        working = {int(pid) for _, _, pid in self.lines()}
        for each in self.running():
            if each.pid in working:
                each.kill()
                self.kills += 1
                return

    def send(self, number: signal.Signals) -> None:
        for each in self.running():
            each.send_signal(number)

    async def stop(self) -> None:
        """End gracefully all that run."""
        self.send(signal.SIGTERM)
        await self.until(lambda: not self.running())

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.ledger.read_text().splitlines()]

    def runs(self, what: str = "begin") -> Counter[int]:
        """How often each job has begun, or ended."""
        return Counter(int(number) for kind, number, _ in self.lines() if kind == what)

    async def until(self, told, within: float = 20.0) -> float:
        """Wait until ``told()`` is true; returns how long that took."""
        began = monotonic()
        while not told():
            assert monotonic() - began < within, self.log.read_text()[-4000:]
            await anyio.sleep(0.01)
        return monotonic() - began

    async def until_empty(self, queue, within: float = 30.0) -> float:
        """Wait until nothing is queued, scheduled or running."""
        began = monotonic()
        while any((await queue.stores[0].counts())[:4]):
            assert monotonic() - began < within, (
                await queue.stores[0].counts(), self.log.read_text()[-4000:]
            )  # fmt: skip
            await anyio.sleep(0.02)
        return monotonic() - began
