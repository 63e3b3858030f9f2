"""A run whose workers and server are killed, and what stands around it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections import Counter
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import anyio

from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.clock import monotonic
from aiopatterns.processor.analysis import Analysis
from aiopatterns.processor.hands import TARGET
from aiopatterns.processor.system import DataProcessor

ROOT = Path(__file__).resolve().parent.parent.parent
# Seconds for which a server that was killed stays away.
_AWAY = 0.3


def library(root: Path, packages=("asyncio", "email", "json", "unittest")) -> Path:
    """A part of the standard library, as a corpus of its own."""
    source = Path(sysconfig.get_path("stdlib"))
    for each in packages:
        shutil.copytree(source / each, root / each, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def children(of: int | None = None) -> list[int]:
    """Worker processes of this process, or of another."""
    found = []
    for thread in Path(f"/proc/{of or os.getpid()}/task").iterdir():
        with suppress(OSError):
            for pid in (thread / "children").read_text("ascii").split():
                if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    found.append(int(pid))
    return found


class Chaos:
    """Kills a worker, or the server, whenever so many chunks are done.

    Args:
        workers: Done chunks, over all stages, at which a worker is killed.
        server: Done chunks at which the server is killed, and started again.
        seed: Of the choice of the worker.
    """

    def __init__(self, *, workers=(), server=(), seed: int = 1) -> None:
        marks = [*((each, "worker") for each in workers), *((each, "server") for each in server)]
        self._marks = sorted(marks)
        self._dice = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.analysis: Analysis

    async def around(self, processor: DataProcessor, server: RedisServer) -> None:
        """Run the processor, and kill meanwhile."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._kill, processor, server)
            self.analysis = await processor.run()
            tasks.cancel_scope.cancel()

    async def _kill(self, processor: DataProcessor, server: RedisServer) -> None:
        for mark, what in self._marks:
            while sum(each.done for each in processor.progress.snapshot().stages) < mark:
                await anyio.sleep(0.005)
            await (self.kill_worker() if what == "worker" else self.kill_server(server))

    async def kill_worker(self) -> None:
        """Kill a worker that runs; wait for one if there is none at the time."""
        while not (there := children()):
            await anyio.sleep(0.005)
        os.kill(self._dice.choice(there), signal.SIGKILL)
        self.kills["worker"] += 1

    async def kill_server(self, server: RedisServer) -> None:
        """Kill the server, and start it again over what it has kept."""
        server.kill()
        self.kills["server"] += 1
        await anyio.sleep(_AWAY)
        await anyio.to_thread.run_sync(server.restart)


@contextmanager
def worker(url: str, log: Path):
    """A worker as it is started on another machine; it ends by a signal, with code 0."""
    argv = [sys.executable, "-m", "aiopatterns", "worker", TARGET, "--backend", url]
    with log.open("wb") as file, subprocess.Popen(argv, cwd=ROOT, stdout=file, stderr=file) as run:
        try:
            yield run
            run.send_signal(signal.SIGTERM)
            assert run.wait(20) == 0, log.read_text()
        finally:
            run.kill()


@contextmanager
def coordinator(root: Path, url: str, run: str):
    """A program that runs the system with the workers of others; it is killed at the end."""
    argv = [sys.executable, "-m", "tests.processor.chaos", str(root), url, run]
    with subprocess.Popen(argv, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


async def until(told, within: float = 20.0) -> None:
    """Wait until ``await told()`` is true."""
    began = monotonic()
    while not await told():
        assert monotonic() - began < within
        await anyio.sleep(0.01)


async def main(root: str, url: str, run: str) -> None:
    from aiopatterns.processor.corpus import Corpus
    from aiopatterns.processor.fleet import Fleet

    fleet = Fleet(url, processes=0, run=run)
    await DataProcessor(Corpus.at(root), executor=fleet, chunk_bytes=200).run()


if __name__ == "__main__":
    anyio.run(partial(main, *sys.argv[1:]))
