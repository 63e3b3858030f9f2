"""The limit: a list of ids, taken a hundred at a time, and results set in the same write.

What a worker cannot do without on this client, and nothing else: no lease, so that a killed worker
loses what it holds, no attempts, no timeout, no status, no other worker told.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import contract
from redis.asyncio import Redis

QUEUE = "bare"
CHUNK = 1000  # jobs a command
KEPT = 3600  # seconds

redis = Redis.from_url(contract.URL)


class Bare:
    """The adapter."""

    async def open(self) -> None:
        await redis.ping()

    async def one(self, task: str, key: str, delay: float) -> None:
        assert task == "noop", "the limit runs nothing else"
        await redis.rpush(QUEUE, json.dumps({"id": key}))

    async def many(self, task: str, keys: Sequence[str]) -> None:
        assert task == "noop", "the limit runs nothing else"
        for start in range(0, len(keys), CHUNK):
            envelopes = [json.dumps({"id": key}) for key in keys[start : start + CHUNK]]
            await redis.rpush(QUEUE, *envelopes)

    async def work(self) -> None:
        results: dict[str, int] = {}
        while True:
            pipe = redis.pipeline(transaction=False)
            for key, result in results.items():
                pipe.set(f"{QUEUE}:{key}", json.dumps(result), ex=KEPT)
            pipe.lpop(QUEUE, contract.CONCURRENCY)
            envelopes = (await pipe.execute())[-1] or ()
            keys = [json.loads(each)["id"] for each in envelopes]
            results = {key: await contract.noop(key) for key in keys}

    def command(self) -> list[str]:
        raise NotImplementedError("the limit is no worker for disasters")

    async def stored(self, keys: Sequence[str]) -> int:
        return (await redis.mget([f"{QUEUE}:{key}" for key in keys])).count(b"1")

    async def held(self, keys: Sequence[str]) -> Iterable[str]:
        raise NotImplementedError("the limit is no worker for disasters")


if __name__ == "__main__":
    contract.main(Bare())
