"""Chaos: a third of all calls break on purpose, and a retry must make up for it."""

from __future__ import annotations

import asyncio

from aiopatterns import Retry, Stack, amap
from aiopatterns.resilience import Chaos, Constant

chaos = Chaos(errors=ConnectionResetError, rate=0.3, seed=1)


@Stack(Retry(on=OSError, attempts=20, backoff=Constant(0)), chaos)
async def fetch(page: int) -> int:
    return page


async def main() -> None:
    assert await amap(fetch, range(200), limit=10) == list(range(200))
    assert chaos.statistics().failed > 0
    print(f"200 answers in spite of {chaos.statistics().failed} failures")


if __name__ == "__main__":
    asyncio.run(main())
