"""Processes that serve and that tests may kill, stop and replace."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
from anyio.streams.text import TextReceiveStream

__all__ = ["PATIENCE", "TTL", "Process", "on_one_loop", "process"]

SERVER = Path(__file__).with_name("server.py")
PATIENCE = 20.0
TTL = 1.2


def on_one_loop(test):
    """Run an async test once, by asyncio: what matters happens in other processes."""

    @functools.wraps(test)
    def run(*args, **fixtures):
        anyio.run(functools.partial(test, *args, **fixtures))

    return run


class Process:
    """A serving process, and what it says."""

    def __init__(self, real: anyio.abc.Process) -> None:
        self.real = real
        assert real.stdout is not None
        self._text = TextReceiveStream(real.stdout)
        self._held = ""

    async def says(self) -> str:
        with anyio.fail_after(PATIENCE):
            while "\n" not in self._held:
                self._held += await self._text.receive()
        line, _, self._held = self._held.partition("\n")
        return line

    def signal(self, number: int) -> None:
        os.kill(self.real.pid, number)


@asynccontextmanager
async def process(url: str, name: str, *, ttl: float = TTL, version: str = "1"):
    command = [sys.executable, str(SERVER), url, name, str(ttl), version]
    async with await anyio.open_process(command, stderr=subprocess.DEVNULL) as real:
        try:
            yield Process(real)
        finally:
            with suppress(ProcessLookupError):
                real.kill()
