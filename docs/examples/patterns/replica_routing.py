"""Replica routing: reads go to the copy, but never back behind one's own writes."""

from __future__ import annotations

import asyncio

from aiopatterns.data import Position, ReplicaRouter


class Shelf:
    """A database in miniature; for PostgreSQL there is PostgresNode."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: list[str] = []

    async def position(self) -> Position:
        return Position(len(self.notes))

    async def lag(self) -> float:
        return 0.0


async def main() -> None:
    primary, copy = Shelf("primary"), Shelf("copy")
    asked = []
    async with ReplicaRouter(primary, [copy], max_wait=0.02) as router, router.session():
        async with router.write() as place:
            place.notes.append("hello")
        async with router.read() as place:
            asked.append(place.name)
        copy.notes.append("hello")  # replication catches up
        async with asyncio.timeout(10):
            while asked[-1] != "copy":
                async with router.read() as place:
                    asked.append(place.name)
    assert asked[0] == "primary"
    print(f"after its write the session read from: {asked}")


if __name__ == "__main__":
    asyncio.run(main())
