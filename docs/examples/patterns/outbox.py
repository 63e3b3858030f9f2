"""Outbox: an order and its message are both written or neither; a repeated message counts once."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from contextlib import suppress
from pathlib import Path

from aiopatterns.messaging import Inbox, Message, Outbox


async def order(database: sqlite3.Connection, item: str, *, fails: bool = False) -> None:
    """One transaction of the application."""
    with database:
        database.execute("INSERT INTO orders VALUES (?)", (item,))
        await Outbox(database).add("order.created", {"item": item})
        if fails:
            raise ConnectionError("the payment failed")


async def main() -> None:
    path = Path(tempfile.mkdtemp()) / "shop.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE orders (item TEXT)")
    await Outbox(database).create_tables()
    await Inbox(database).create_tables()

    await order(database, "tea")
    with suppress(ConnectionError):
        await order(database, "milk", fails=True)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    assert await Outbox(database).relay(send) == 1
    assert [message.payload["item"] for message in sent] == ["tea"]

    handled = 0
    for message in sent * 3:  # the network delivers it three times
        with database:
            handled += await Inbox(database, consumer="stock").first(message.id)
    assert handled == 1
    database.close()
    print("one order of two was paid: one message sent; delivered three times, handled once")


if __name__ == "__main__":
    asyncio.run(main())
