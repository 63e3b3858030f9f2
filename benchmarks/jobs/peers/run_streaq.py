"""streaq behind the common contract.

Tuned as its documentation says: "Worker, Other configuration options": ``concurrency``, which
also sets how many it prefetches; "Task, Enqueuing tasks": ``enqueue_many`` for batches, one
pipeline each; its own benchmarks run it on uvloop with logging of each task as the only cost that
is left away here (``silent`` tasks).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

import contract
from streaq import Worker
from streaq.task import Task

CHUNK = 1000  # jobs a call of enqueue_many, which makes one anyio task each

worker = Worker(redis_url=contract.URL, concurrency=contract.CONCURRENCY)


@worker.task(name="noop", silent=True)
async def noop(key: str) -> int:
    return await contract.noop(key)


@worker.task(name="work")
async def work(key: str) -> int:
    return await contract.work(key)


@worker.task(name="probe")
async def probe(key: str) -> int:
    return await contract.probe(key)


TASKS = {"noop": noop, "work": work, "probe": probe}


class Streaq:
    """The adapter."""

    async def open(self) -> None:
        await AsyncExitStack().enter_async_context(worker)

    async def one(self, task: str, key: str, delay: float) -> None:
        job = self._job(task, key)
        await (job.start(delay=delay) if delay else job)

    async def many(self, task: str, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), CHUNK):
            await worker.enqueue_many([self._job(task, key) for key in keys[start : start + CHUNK]])

    def _job(self, task: str, key: str) -> Task:
        job = TASKS[task].enqueue(key)
        job.id = key
        return job

    async def work(self) -> None:
        # One that works beside the one that enqueues: each opens its connections once.
        working = Worker(
            redis_url=contract.URL, concurrency=contract.CONCURRENCY, handle_signals=False
        )
        working.include(worker)
        await working.run_async()

    def command(self) -> list[str]:
        return [sys.executable, "-m", "streaq", "run", "run_streaq:worker"]

    async def stored(self, keys: Sequence[str]) -> int:
        raw = await worker.redis.mget([worker.results_key + key for key in keys])
        results = [await worker.deserialize(each) for each in raw if each]
        return sum(each["s"] and each["r"] == 1 for each in results)

    async def held(self, keys: Sequence[str]) -> Iterable[str]:
        """In the stream, from which an entry goes when its task has ended."""
        entries = await worker.redis.xrange(worker.stream_key + worker.priorities[0])
        return set(keys) & {entry.field_values["task_id"] for entry in entries}


if __name__ == "__main__":
    contract.main(Streaq())
