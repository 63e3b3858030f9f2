"""Synchronisation: a shopping list on a phone and on a server, written apart, and one again."""

from __future__ import annotations

import asyncio

from aiopatterns.data import LastWriteWins, MemorySyncStore, Synchronizer


async def main() -> None:
    phone, server = MemorySyncStore("phone"), MemorySyncStore("server")
    sync = Synchronizer(phone, server, strategy=LastWriteWins())

    await phone.put("milk", {"bought": False})
    await server.put("bread", {"bought": True})
    first = await sync.run()
    assert (first.pushed, first.pulled) == (1, 1)

    await phone.put("milk", {"bought": True})  # both change one record, without a network
    await server.put("milk", {"bought": False, "litres": 2})
    await server.delete("bread")
    second = await sync.run()
    assert [conflict.key for conflict in second.conflicts] == ["milk"]
    assert await phone.get("bread") is None

    third = await sync.run()
    assert (third.pushed, third.pulled) == (0, 0), "nothing is sent twice"
    print(f"{first.pushed + first.pulled} records travelled, then one conflict was told")


if __name__ == "__main__":
    asyncio.run(main())
