"""Timeout: one bound for the whole and one for each attempt, and whose patience ran out."""

from __future__ import annotations

import asyncio

from aiopatterns import Retry, Stack, Timeout, TimeoutExceededError
from aiopatterns.resilience import Constant

delays = [1.0, 1.0, 0.0]  # the third attempt is quick


@Stack(Timeout(10), Retry(on=TimeoutError, attempts=3, backoff=Constant(0)), Timeout(0.01))
async def ask() -> str:
    await asyncio.sleep(delays.pop(0))
    return "answer"


async def main() -> None:
    assert await ask() == "answer"
    try:
        with Timeout(0.01).scope():
            await asyncio.sleep(60)
    except TimeoutExceededError as error:
        print(f"two attempts cut short, then an answer; a block cut after {error.timeout} s")


if __name__ == "__main__":
    asyncio.run(main())
