"""Fallback: yesterday's price is better than none, but not for a mistake in the program."""

from __future__ import annotations

import asyncio

from aiopatterns import CircuitBreaker, Fallback, RejectedError, Stack

yesterday = {"apple": 1.20}


@Stack(
    Fallback(lambda _: yesterday["apple"], on=(OSError, RejectedError)),
    CircuitBreaker("prices"),
)
async def price_of_apples(*, currency: str) -> float:
    if currency != "EUR":
        raise KeyError(currency)
    raise ConnectionRefusedError("the shop is down")


async def main() -> None:
    assert await price_of_apples(currency="EUR") == 1.20
    try:
        await price_of_apples(currency="XXX")
    except KeyError as error:
        print(f"an outage gives yesterday's price; a mistake stays one: {error!r}")


if __name__ == "__main__":
    asyncio.run(main())
