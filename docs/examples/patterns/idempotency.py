"""Idempotency: an order that arrives three times, twice at once, is charged once."""

from __future__ import annotations

import asyncio

from aiopatterns import Idempotent
from aiopatterns.backends import open_backend

backend = open_backend("memory://")  # for several processes: "redis://..."
charged: list[int] = []


@Idempotent(backend, key=lambda order, **_: order, name="charge")
async def charge(order: str, *, amount: int) -> str:
    charged.append(amount)
    await asyncio.sleep(0.01)
    return f"receipt {len(charged)} for {order}"


async def main() -> None:
    async with backend:
        first, second = await asyncio.gather(
            charge("order-1", amount=5), charge("order-1", amount=5)
        )
        third = await charge("order-1", amount=5)
        assert first == second == third == "receipt 1 for order-1"
        assert await charge("order-2", amount=7) == "receipt 2 for order-2"
    assert charged == [5, 7]
    print(f"four requests, two charges: {charged}")


if __name__ == "__main__":
    asyncio.run(main())
