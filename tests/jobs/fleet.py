"""Worker processes for the fault tests: started, killed, stopped, and what they have noted."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import struct
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

import anyio

from aiopatterns.core import clock
from aiopatterns.core.clock import monotonic

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def on_one_loop(test):
    """Run an async test once, by asyncio: what matters runs in processes of its own."""

    @functools.wraps(test)
    def run(*args, **fixtures):
        anyio.run(functools.partial(test, *args, **fixtures))

    return run


class Host:
    """A host whose wall clock jumps: in this process, and in the workers of a fleet on it.

    Args:
        file: Where the processes see by how much the clock is off.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.off = 0.0
        file.write_bytes(bytes(8))

    @contextmanager
    def jumping(self):
        """Let the clock of this process jump as well, in a block."""
        real = clock._source
        clock.set_source(replace(real, wall=lambda: real.wall() + self.off))
        try:
            yield self
        finally:
            clock.set_source(real)

    def jump(self, seconds: float) -> None:
        """Set the clock forward, or back, for all at the same instant."""
        self.off += seconds
        with self.file.open("r+b") as file:
            file.write(struct.pack("d", self.off))


class Fleet:
    """Some ``aiopatterns worker`` processes over one server.

    Args:
        url: The server, as workers see it.
        folder: For the ledger and what the workers print.
        lease: Of the queue, in seconds.
        concurrency: Jobs at once in each process.
        module: Where the jobs are defined.
        host: On which they run, if its clock jumps.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        lease=1.0,
        concurrency=10,
        grace=20.0,
        module="tests.jobs.faultjobs",
        host: Host | None = None,
    ) -> None:
        self.module, self.host = module, host
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
        define = importlib.import_module(self.module).define
        return define(url or self.url, self.ledger, self.lease)

    def start(self, count: int = 1) -> None:
        environment = {
            **os.environ,
            "FAULTS_URL": self.url,
            "FAULTS_LEDGER": str(self.ledger),
            "FAULTS_LEASE": str(self.lease),
        }
        if self.host is not None:
            environment["JUMPING_CLOCK"] = str(self.host.file)
            environment["PYTHONPATH"] = str(HERE / "jumpingclock")
        command = [sys.executable, "-m", "aiopatterns", "worker", f"{self.module}:jobs"]
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

    async def until_there(self, queue, workers: int, within: float = 20.0) -> None:
        """Wait until so many workers are at work."""
        began = monotonic()
        while (await queue.stores[0].counts()).workers < workers:
            assert monotonic() - began < within, self.log.read_text()[-4000:]
            await anyio.sleep(0.01)

    async def until_empty(self, queue, within: float = 30.0) -> float:
        """Wait until nothing is queued, scheduled or running."""
        began = monotonic()
        while any((await queue.stores[0].counts())[:4]):
            assert monotonic() - began < within, (
                await queue.stores[0].counts(), self.log.read_text()[-4000:]
            )  # fmt: skip
            await anyio.sleep(0.02)
        return monotonic() - began
