"""Adaptive limit: how many calls a service bears is found out, not guessed."""

from __future__ import annotations

import asyncio

from aiopatterns import OverloadedError, Retry, amap
from aiopatterns.resilience import AdaptiveLimit, Constant, Gradient

search = AdaptiveLimit(Gradient(initial=4))
busy: set[int] = set()


@search
async def find(number: int) -> int:
    busy.add(number)
    try:
        await asyncio.sleep(
            0.001 * max(1, len(busy) / 8)
        )  # beyond eight at once it only gets slower
        return number
    finally:
        busy.discard(number)


@Retry(on=OverloadedError, attempts=1_000, backoff=Constant(0.002))  # told at once, and comes again
async def client(number: int) -> int:
    return await find(number)


async def main() -> None:
    assert await amap(client, range(500), limit=32) == list(range(500))
    statistics = search.statistics()
    assert statistics.in_flight == len(busy) == 0
    print(f"500 served; began with 4 at once, found {statistics.limit}")


if __name__ == "__main__":
    asyncio.run(main())
