"""Two-phase commit: money leaves one database and reaches the other, or neither hears of it."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from aiopatterns.data import SqliteLog, SqliteParticipant, TwoPhaseCommit


def amounts(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [amount for (amount,) in connection.execute("SELECT amount FROM entries")]


async def main() -> None:
    folder = Path(tempfile.mkdtemp())
    paths = [folder / "bank.db", folder / "shop.db"]
    for path in paths:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE entries (amount INTEGER)")
    log = SqliteLog(str(folder / "decisions.db"))
    bank, shop = (SqliteParticipant(path.stem, str(path)) for path in paths)
    transfers = TwoPhaseCommit(log, participants=[bank, shop])

    async def transfer(amount: int) -> None:
        async with transfers.transaction() as tx:
            await tx[bank].execute("INSERT INTO entries VALUES (?)", (-amount,))
            await tx[shop].execute("INSERT INTO entries VALUES (?)", (amount,))
            if amount > 100:
                raise ValueError("too much")

    await transfer(10)
    try:
        await transfer(500)
    except ValueError as error:
        print(f"10 moved; 500 did not: {error}")
    await log.aclose()
    assert [amounts(path) for path in paths] == [[-10], [10]]


if __name__ == "__main__":
    asyncio.run(main())
