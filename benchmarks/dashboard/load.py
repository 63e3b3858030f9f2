"""A queue that does so many jobs a second, with a breaker and a cache that publish: one process."""

from __future__ import annotations

import sys
import time

import anyio

from aiopatterns.backends.opening import open_backend
from aiopatterns.cache.aside import Cache
from aiopatterns.dashboard.publisher import StatisticsPublisher
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.jobs.worker import Worker
from aiopatterns.resilience.breaker import CircuitBreaker

PIECES = 20


async def main(url: str, rate: int) -> None:
    jobs = JobQueue("load", open_backend(url))

    @jobs.job
    async def work(number: int) -> int:
        return number

    cache: Cache[str, int] = Cache("users", ttl=60)
    publisher = StatisticsPublisher(jobs.backend, CircuitBreaker("payments"), cache)
    async with jobs, Worker(jobs), publisher:
        print("ready", flush=True)
        due = time.monotonic()
        while True:
            await jobs.enqueue_many(work.job(number) for number in range(rate // PIECES))
            due += 1 / PIECES
            await anyio.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]), backend_options={"use_uvloop": True})
