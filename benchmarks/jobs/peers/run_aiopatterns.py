"""aiopatterns behind the common contract: the same program as for the peers, run by our Python.

Nothing is tuned: ``concurrency`` is what every contender gets, the rest are the defaults, results
kept for an hour, retries and leases among them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence

import contract

from aiopatterns.jobs import JobQueue, JobStatus, Worker

AT_ONCE = 1000  # results asked for at a time
LIVE = {JobStatus.QUEUED, JobStatus.SCHEDULED, JobStatus.WAITING, JobStatus.RUNNING}

jobs = JobQueue("bench", contract.URL)


@jobs.job(name="noop")
async def noop(key: str) -> int:
    return await contract.noop(key)


@jobs.job(name="work")
async def work(key: str) -> int:
    return await contract.work(key)


@jobs.job(name="probe")
async def probe(key: str) -> int:
    return await contract.probe(key)


TASKS = {"noop": noop, "work": work, "probe": probe}


class Ours:
    """The adapter."""

    async def open(self) -> None:
        await jobs.__aenter__()

    async def one(self, task: str, key: str, delay: float) -> None:
        await TASKS[task].using(id=key, delay=delay).enqueue(key)

    async def many(self, task: str, keys: Sequence[str]) -> None:
        await jobs.enqueue_many([TASKS[task].using(id=key).job(key) for key in keys])

    async def work(self) -> None:
        await Worker(jobs, concurrency=contract.CONCURRENCY).serve()

    def command(self) -> list[str]:
        at_once = ["--concurrency", str(contract.CONCURRENCY)]
        return [sys.executable, "-m", "aiopatterns", "worker", "run_aiopatterns:jobs", *at_once]

    async def stored(self, keys: Sequence[str]) -> int:
        right = 0
        for start in range(0, len(keys), AT_ONCE):
            handles = map(noop.handle, keys[start : start + AT_ONCE])
            results = await asyncio.gather(*(each.result(timeout=5) for each in handles))
            right += results.count(1)
        return right

    async def held(self, keys: Sequence[str]) -> Iterable[str]:
        """Those that wait, or run under a lease: when it ends, they go back."""
        states = {key: await work.handle(key).status() for key in keys}
        return [key for key, state in states.items() if state in LIVE]


if __name__ == "__main__":
    contract.main(Ours())
