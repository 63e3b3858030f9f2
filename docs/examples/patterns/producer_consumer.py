"""Producer and consumers: one reads, four write, and the slow end sets the pace."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiopatterns import produce_consume

stored: list[int] = []


async def readings(send: Callable[[int], Awaitable[None]]) -> None:
    for number in range(100):
        await send(number)


async def store(reading: int) -> None:
    await asyncio.sleep(0.001)
    stored.append(reading)


async def main() -> None:
    report = await produce_consume(readings, store, consumers=4, capacity=20)
    assert sorted(stored) == list(range(100))
    assert report.produced == report.consumed == 100
    print(report)


if __name__ == "__main__":
    asyncio.run(main())
