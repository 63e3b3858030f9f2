"""Jobs that worker processes of the fault tests run, and the ledger in which they note it.

The ledger is a file that all append to, so it is independent of the store that is under test.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import anyio

from aiopatterns.jobs.context import Context
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry


def define(url: str, ledger: str | Path, lease: float) -> JobQueue:
    """Make the queue with its jobs."""
    file = os.open(ledger, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    queue = JobQueue("faults", url, lease=lease)

    def note(what: str, number: int) -> None:
        os.write(file, f"{what} {number} {os.getpid()}\n".encode())

    @queue.job(name="work")
    async def work(number: int, seconds: float) -> int:
        note("begin", number)
        await anyio.sleep(seconds)
        note("end", number)
        return number

    @queue.job(name="slow", retry=Retry(on=OSError, attempts=20))
    async def slow(number: int, seconds: float) -> int:
        note("begin", number)
        await anyio.sleep(seconds)
        note("end", number)
        return number

    @queue.job(name="bad", retry=Retry(on=ValueError, attempts=3, backoff=Constant(0.05)))
    async def bad(number: int) -> None:
        note("begin", number)
        raise ValueError(number)

    @queue.job(name="killer", retry=Retry(on=ValueError, attempts=2))
    async def killer(number: int) -> None:
        note("begin", number)
        os.kill(os.getpid(), signal.SIGKILL)

    @queue.job(name="block")
    async def block(ctx: Context, number: int, seconds: float) -> None:
        note("begin", number)
        time.sleep(seconds)  # the loop is blocked, which no function should do
        note("end", number)

    return queue


if "FAULTS_URL" in os.environ:
    jobs = define(
        os.environ["FAULTS_URL"], os.environ["FAULTS_LEDGER"], float(os.environ["FAULTS_LEASE"])
    )
