"""Retry: a server that drops two connections, and a caller who never hears of it."""

from __future__ import annotations

import asyncio

from aiopatterns import Retry
from aiopatterns.resilience import Exponential

dropped = [ConnectionResetError("reset"), ConnectionRefusedError("restarting")]


@Retry(on=OSError, attempts=5, backoff=Exponential(initial=0.001, cap=0.01))
async def fetch(page: int) -> str:
    if dropped:
        raise dropped.pop()
    return f"page {page}"


@Retry(on=OSError, attempts=3)
async def parse(text: str) -> int:
    return int(text)  # a ValueError is no accident of the network: it is not tried again


async def main() -> None:
    assert await fetch(7) == "page 7"
    try:
        await parse("seven")
    except ValueError as error:
        print(f"fetched after two failures; not repeated: {error}")


if __name__ == "__main__":
    asyncio.run(main())
