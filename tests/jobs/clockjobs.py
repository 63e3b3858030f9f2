"""Jobs that depend on time, for worker processes whose wall clock jumps.

All that they say of time is on the monotonic clock, which processes of one host share.
"""

from __future__ import annotations

import os
from pathlib import Path

import anyio

from aiopatterns.core.clock import monotonic, wall
from aiopatterns.core.context import remaining
from aiopatterns.core.rate import Rate
from aiopatterns.jobs.limits import Limits
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry

CRON = 10_000


def define(url: str, ledger: str | Path, lease: float) -> JobQueue:
    """Make the queue with its jobs."""
    file = os.open(ledger, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    queue = JobQueue("clocks", url, lease=lease)

    def note(what: str, number: int) -> None:
        os.write(file, f"{what} {number} {os.getpid()}\n".encode())

    @queue.job(name="work", result_ttl=30)
    async def work(number: int, seconds: float) -> tuple[float, float | None]:
        """Return when it began, and what was left until its deadline then."""
        note("begin", number)
        found = monotonic(), remaining()
        await anyio.sleep(seconds)
        note("end", number)
        return found

    @queue.job(name="limited", limits=Limits(rate=Rate(1, per=0.3)))
    async def limited(number: int) -> float:
        note("begin", number)
        return monotonic()

    @queue.job(name="again", retry=Retry(on=ValueError, attempts=2, backoff=Constant(1.0)))
    async def again(number: int) -> None:
        note("begin", number)
        raise ValueError(number)

    @queue.job(name="wall")
    async def clock(number: int) -> float:
        """Return what this process takes for the time."""
        note("begin", number)
        return wall()

    @queue.cron("* * * * * *", name="tick")
    async def tick() -> None:
        note("begin", CRON)

    return queue


if "FAULTS_URL" in os.environ:
    jobs = define(
        os.environ["FAULTS_URL"], os.environ["FAULTS_LEDGER"], float(os.environ["FAULTS_LEASE"])
    )
