"""Autoscaling: a pool of one worker meets two hundred items, and grows until they are served."""

from __future__ import annotations

import asyncio

from aiopatterns import WorkerPool
from aiopatterns.flow import Autoscale


async def resize(image: str) -> int:
    await asyncio.sleep(0.002)
    return len(image)


async def main() -> None:
    workers = Autoscale(1, 16, target_wait=0.005, idle=5)
    async with WorkerPool(resize, workers=workers) as pool:
        handles = [await pool.submit(f"{number}.png") for number in range(200)]
        await pool.drain()
        assert 1 < pool.statistics().limit <= 16
        print(f"{len(handles)} items; grew from 1 to {pool.statistics().limit} workers")


if __name__ == "__main__":
    asyncio.run(main())
