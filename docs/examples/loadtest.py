"""Clients against a service that is slow and fails at times, with the figures a load test prints.

The server is real and local: it answers after a random while, with an error now and then. The
client keeps to a rate, gives each attempt a timeout, and retries what may pass.

Run: python docs/examples/loadtest.py [REQUESTS]
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import ClientResponseError, ClientSession, web

from aiopatterns import Rate, Retry, TimeoutExceededError, TokenBucket, WorkerPool, listen
from aiopatterns.resilience import Exponential

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiopatterns.core import Event

CLIENTS = 20
ERROR_RATIO = 0.1
SLOW_RATIO = 0.02


@asynccontextmanager
async def shaky_service(seed: int) -> AsyncIterator[tuple[str, Counter[int]]]:
    """A server on loopback that injects latency and errors; counts the answers it gave."""
    dice, given = random.Random(seed), Counter[int]()

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(1.0 if dice.random() < SLOW_RATIO else dice.uniform(0.001, 0.01))
        status = 503 if dice.random() < ERROR_RATIO else 200
        given[status] += 1
        return web.json_response({"item": request.match_info["item"]}, status=status)

    app = web.Application()
    app.router.add_get("/items/{item}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/items", given
    finally:
        await runner.cleanup()


async def main(requests: int) -> None:
    """Send the requests and print what a load test prints."""
    statuses: Counter[str] = Counter()
    retries = 0

    def count(event: Event) -> None:
        nonlocal retries
        retries += event.name == "aiopatterns.retry.scheduled"

    async with (
        shaky_service(seed=7) as (url, given),
        ClientSession(raise_for_status=True) as session,
    ):

        async def fetch(item: int) -> dict[str, str]:
            try:
                async with session.get(f"{url}/{item}") as response:
                    statuses[str(response.status)] += 1
                    body: dict[str, str] = await response.json()
                    return body
            except ClientResponseError as error:
                statuses[str(error.status)] += 1
                raise

        pool = WorkerPool(
            fetch,
            workers=CLIENTS,
            rate=TokenBucket(Rate(2_000, per=1.0), burst=CLIENTS),
            retry=Retry(
                on=(ClientResponseError, TimeoutExceededError),
                attempts=8,
                backoff=Exponential(initial=0.01, factor=2, cap=0.1),
            ),
            timeout=0.25,
        )
        start = time.perf_counter()
        with listen(count):
            async with pool, pool.stream(range(requests)) as outcomes:
                answers = [outcome.unwrap() async for outcome in outcomes]
            elapsed = time.perf_counter() - start
            figures = pool.statistics()

    assert sorted(int(each["item"]) for each in answers) == list(range(requests))
    assert statuses["200"] == requests == figures.done
    assert given[503] >= statuses["503"] > 0
    print(f"requests    {requests:,} done, 0 lost, {requests / elapsed:,.0f} a second")
    print(f"latency     p50 {figures.p50:.4f} s, p95 {figures.p95:.4f} s, p99 {figures.p99:.4f} s")
    print(f"statuses    {dict(sorted(statuses.items()))}, retries {retries}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 500))
