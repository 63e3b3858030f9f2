"""saq behind the common contract.

Tuned as its documentation says: "Worker": ``concurrency``; "Queue": ``max_concurrent_ops`` for
calls of ``enqueue`` in flight. It has no batch enqueue: calls are gathered, as in its own
benchmarks. One connection a slot and some for the queue come from redis-py's pool.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Iterable, Sequence

import contract
from saq import Queue, Status, Worker

AT_ONCE = 32  # enqueue calls in flight

queue = Queue.from_url(contract.URL, max_concurrent_ops=max(AT_ONCE, contract.CONCURRENCY))


async def noop(ctx: dict, *, key: str) -> int:
    return await contract.noop(key)


async def work(ctx: dict, *, key: str) -> int:
    return await contract.work(key)


async def probe(ctx: dict, *, key: str) -> int:
    return await contract.probe(key)


FUNCTIONS = [noop, work, probe]
settings = {  # read by the worker command: defaults, but for the number of jobs at once
    "queue": Queue.from_url(contract.URL),
    "functions": FUNCTIONS,
    "concurrency": contract.CONCURRENCY,
}


class Saq:
    """The adapter."""

    async def open(self) -> None:
        await queue.connect()

    async def one(self, task: str, key: str, delay: float) -> None:
        # Whole seconds are all it can say; up, so that none is early by what was asked.
        scheduled = math.ceil(time.time() + delay) if delay else 0
        job = await queue.enqueue(task, key=key, kwargs={"key": key}, scheduled=scheduled)
        assert job is not None

    async def many(self, task: str, keys: Sequence[str]) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(key: str) -> None:
            async with gate:
                await self.one(task, key, 0.0)

        await asyncio.gather(*map(one, keys))

    async def work(self) -> None:
        # A worker sweeps as it starts, and takes jobs it has popped and not yet marked active for
        # stuck: it aborts them. Not where another has swept within the last minute.
        await queue.sweep()
        worker = Worker(queue, FUNCTIONS, concurrency=contract.CONCURRENCY)
        worker.SIGNALS = []
        await worker.start()

    def command(self) -> list[str]:
        return [sys.executable, "-m", "saq", "run_saq.settings"]

    async def stored(self, keys: Sequence[str]) -> int:
        jobs = await queue.jobs(keys)
        return sum(
            job is not None and job.status == Status.COMPLETE and job.result == 1 for job in jobs
        )

    async def held(self, keys: Sequence[str]) -> Iterable[str]:
        """Those in one of its lists, unless active without a retry left: the sweep aborts them."""
        redis, lists = queue.redis, ("queued", "active")
        listed = [await redis.lrange(queue.namespace(each), 0, -1) for each in lists]
        found = {queue.job_key_from_id(each.decode()) for one in listed for each in one}
        jobs = await queue.jobs([key for key in keys if key in found])
        return [job.key for job in jobs if job and (job.status != Status.ACTIVE or job.retryable)]


if __name__ == "__main__":
    contract.main(Saq())
