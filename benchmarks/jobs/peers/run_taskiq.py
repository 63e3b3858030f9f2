"""taskiq with taskiq-redis behind the common contract, as two contenders: list and stream.

Tuned as its documentation says: "CLI, Other parameters": ``--max-async-tasks``, and
``--max-prefetch`` "useful for systems with high message rates" for the stream, which acknowledges;
uvloop, which its worker takes where it is installed; ``result_ex_time`` and a serialiser for
results from "taskiq-redis, RedisAsyncResultBackend". There is no batch enqueue: calls are
gathered. ``broker.startup()`` comes before the first job, else the stream's group does not exist
and jobs are lost. Delayed jobs need a scheduler process of its own and are not measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Sequence

import contract
from redis.asyncio import Redis
from taskiq.api import run_receiver_task
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

AT_ONCE = 32  # enqueue calls in flight
QUEUE = "taskiq"
GROUP = "taskiq"

broker = (RedisStreamBroker if contract.FLAVOUR == "stream" else ListQueueBroker)(
    contract.URL, queue_name=QUEUE
).with_result_backend(
    RedisAsyncResultBackend(contract.URL, result_ex_time=3600, serializer=ORJSONSerializer())
)


@broker.task(task_name="noop")
async def noop(key: str) -> int:
    return await contract.noop(key)


@broker.task(task_name="work")
async def work(key: str) -> int:
    return await contract.work(key)


@broker.task(task_name="probe")
async def probe(key: str) -> int:
    return await contract.probe(key)


TASKS = {"noop": noop, "work": work, "probe": probe}


class Taskiq:
    """The adapter."""

    async def open(self) -> None:
        await broker.startup()

    async def one(self, task: str, key: str, delay: float) -> None:
        if delay:
            raise NotImplementedError("delayed jobs need taskiq's scheduler process")
        await TASKS[task].kicker().with_task_id(key).kiq(key)

    async def many(self, task: str, keys: Sequence[str]) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(key: str) -> None:
            async with gate:
                await self.one(task, key, 0.0)

        await asyncio.gather(*map(one, keys))

    async def work(self) -> None:
        prefetch = contract.CONCURRENCY if contract.FLAVOUR == "stream" else 0
        await run_receiver_task(broker, max_async_tasks=contract.CONCURRENCY, max_prefetch=prefetch)

    def command(self) -> list[str]:
        at_once = ["--workers", "1", "--max-async-tasks", str(contract.CONCURRENCY)]
        return [sys.executable, "-m", "taskiq", "worker", "run_taskiq:broker", *at_once]

    async def stored(self, keys: Sequence[str]) -> int:
        ready = 0
        for key in keys:
            if not await broker.result_backend.is_result_ready(key):
                break
            ready += (await broker.result_backend.get_result(key)).return_value == 1
        return ready

    async def held(self, keys: Sequence[str]) -> Iterable[str]:
        """In the list; or in the stream and not yet read, or read and not acknowledged."""
        redis = Redis.from_url(contract.URL)
        if contract.FLAVOUR != "stream":
            messages = await redis.lrange(QUEUE, 0, -1)
        else:
            messages = await self._live_entries(redis)
        return set(keys) & {json.loads(each)["task_id"] for each in messages}

    async def _live_entries(self, redis: Redis) -> list[bytes]:
        (group,) = await redis.xinfo_groups(QUEUE)
        read = group["last-delivered-id"].decode()
        unread = await redis.xrange(QUEUE, min=f"({read}")
        pending = await redis.xpending_range(QUEUE, GROUP, "-", "+", 1_000_000)
        found = [
            each
            for one in pending
            for each in await redis.xrange(QUEUE, one["message_id"], one["message_id"])
        ]
        return [fields[b"data"] for _, fields in [*unread, *found]]


if __name__ == "__main__":
    contract.main(Taskiq())
