"""Single flight: a hundred ask for the same row at once, and the database is asked once."""

from __future__ import annotations

import asyncio

from aiopatterns.resilience import SingleFlight

queries: list[int] = []


@SingleFlight()
async def load(user_id: int) -> str:
    queries.append(user_id)
    await asyncio.sleep(0.01)
    return f"user {user_id}"


async def main() -> None:
    impatient = asyncio.ensure_future(load(1))
    others = [asyncio.ensure_future(load(1)) for _ in range(99)]
    await asyncio.sleep(0)
    impatient.cancel()  # one caller leaves; the load goes on for the others
    assert await asyncio.gather(*others) == ["user 1"] * 99
    assert queries == [1]
    print("99 answers, one that left, 1 query")


if __name__ == "__main__":
    asyncio.run(main())
