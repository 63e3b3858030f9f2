"""arq behind the common contract.

Tuned as its documentation says: "Worker" (reference): ``max_jobs`` for jobs at once, ``poll_delay``
between looks at the queue (0.5 s by default, which alone caps a worker at max_jobs / 0.5 s), and
``log_results=False``. It has no batch enqueue: calls are gathered over its connection pool, as its
"Simple usage" does them one after the other.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence

import contract
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker

SETTINGS = RedisSettings.from_dsn(contract.URL)
AT_ONCE = 32  # enqueue calls in flight
POLL = 0.01


async def noop(ctx: dict, key: str) -> int:
    return await contract.noop(key)


async def work(ctx: dict, key: str) -> int:
    return await contract.work(key)


async def probe(ctx: dict, key: str) -> int:
    return await contract.probe(key)


FUNCTIONS = [noop, work, probe]


class WorkerSettings:
    """Read by the worker command: defaults, but for the number of jobs at once."""

    functions = FUNCTIONS
    redis_settings = SETTINGS
    max_jobs = contract.CONCURRENCY


class Arq:
    """The adapter."""

    pool: ArqRedis

    async def open(self) -> None:
        self.pool = await create_pool(SETTINGS)

    async def one(self, task: str, key: str, delay: float) -> None:
        assert await self.pool.enqueue_job(task, key, _job_id=key, _defer_by=delay or None)

    async def many(self, task: str, keys: Sequence[str]) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(key: str) -> None:
            async with gate:
                await self.one(task, key, 0.0)

        await asyncio.gather(*map(one, keys))

    async def work(self) -> None:
        await Worker(
            FUNCTIONS,
            redis_settings=SETTINGS,
            max_jobs=contract.CONCURRENCY,
            poll_delay=POLL,
            log_results=False,
            handle_signals=False,
        ).async_run()

    def command(self) -> list[str]:
        return [sys.executable, "-m", "arq", "run_arq.WorkerSettings"]

    async def stored(self, keys: Sequence[str]) -> int:
        results = await self.pool.all_job_results()
        return sum(each.success and each.result == 1 for each in results)

    async def held(self, keys: Sequence[str]) -> Iterable[str]:
        """Queued or in progress: a job stays in the sorted set until it has ended."""
        queued = await self.pool.zrange(self.pool.default_queue_name, 0, -1)
        return set(keys) & {each.decode() for each in queued}


if __name__ == "__main__":
    contract.main(Arq())
