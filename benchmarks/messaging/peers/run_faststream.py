"""Request-reply with faststream, in its own environment.

Follows: faststream documentation, "RPC over Redis" (``broker.request``), "Concurrent processing"
(``max_workers``, for one message at a time is the default) and "Testing" (``TestRedisBroker``).

``run_faststream.py memory COUNT`` or ``run_faststream.py redis URL CALLERS COUNT``; prints one line
of JSON: seconds, and how many requests failed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time

import uvloop
from faststream.redis import RedisBroker, TestRedisBroker

WARM = 20


def made(url: str, workers: int) -> RedisBroker:
    broker = RedisBroker(url, logger=None, log_level=logging.CRITICAL)

    @broker.subscriber("users.get", max_workers=workers)
    async def get(body: dict[str, int]) -> dict[str, int]:
        return body

    return broker


async def ask(broker: RedisBroker, callers: int, count: int) -> dict[str, float]:
    failed = 0

    async def caller(times: int) -> None:
        nonlocal failed
        for _ in range(times):
            try:
                reply = await broker.request({"id": 17}, "users.get", timeout=30)
                assert await reply.decode() == {"id": 17}
            except Exception:
                failed += 1

    await caller(WARM)
    failed = 0
    started = time.perf_counter()
    await asyncio.gather(*(caller(count // callers) for _ in range(callers)))
    return {"seconds": time.perf_counter() - started, "failed": failed}


async def main(where: str, *words: str) -> None:
    if where == "memory":
        (count,) = words
        async with TestRedisBroker(made("redis://localhost", 1)) as broker:
            print(json.dumps(await ask(broker, 1, int(count))))
        return
    url, callers, count = words
    broker = made(url, int(callers))
    async with broker:
        await broker.start()
        print(json.dumps(await ask(broker, int(callers), int(count))))


uvloop.run(main(*sys.argv[1:]))
