"""Batching: rows go to the database a hundred at a time, the last ones without waiting long."""

from __future__ import annotations

import asyncio

from aiopatterns.flow import Pipeline

inserts: list[list[int]] = []


async def insert_many(rows: list[int]) -> None:
    inserts.append(rows)


async def main() -> None:
    await Pipeline(range(250)).batch(100, within=0.2).run(into=insert_many)
    assert [len(rows) for rows in inserts] == [100, 100, 50]
    assert [row for rows in inserts for row in rows] == list(range(250))
    print(f"250 rows in {len(inserts)} statements")


if __name__ == "__main__":
    asyncio.run(main())
