"""Rate limits: twenty calls at once, a burst of five, and the rest at two hundred a second."""

from __future__ import annotations

import asyncio

from aiopatterns import Rate, TokenBucket, amap

quota = TokenBucket(Rate(200), burst=5)


async def main() -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()

    @quota
    async def call(_: int) -> float:
        return loop.time() - start

    when = await amap(call, range(20), limit=20)
    last = max(when)
    assert last >= 15 / 200 * 0.9, "fifteen calls had to wait for a token each"
    print(f"the last of twenty calls began after {last * 1000:.0f} ms")


if __name__ == "__main__":
    asyncio.run(main())
