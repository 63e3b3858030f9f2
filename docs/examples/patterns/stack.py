"""Stack: several policies as one, outermost first, and a picture of them in words."""

from __future__ import annotations

import asyncio

from aiopatterns import CircuitBreaker, Fallback, Rate, Retry, Stack, Timeout, TokenBucket
from aiopatterns.resilience import Constant

calls: list[str] = []
careful = Stack(
    Fallback("the default", on=OSError),
    Timeout(5),
    Retry(on=OSError, attempts=3, backoff=Constant(0.001)),
    CircuitBreaker("settings"),
    TokenBucket(Rate(100)),
    Timeout(1),
)


@careful
async def setting(name: str) -> str:
    calls.append(name)
    raise ConnectionError(f"nobody knows {name}")


async def main() -> None:
    assert await setting("colour") == "the default"
    assert len(calls) == 3
    print(careful.explain())


if __name__ == "__main__":
    asyncio.run(main())
