"""Change log: a search index follows the records of a shop, and reads only what has changed."""

from __future__ import annotations

import asyncio
from typing import Any

from aiopatterns.data import ChangeLog, MemorySyncStore


async def follow(log: ChangeLog, index: dict[str, Any]) -> int:
    """Bring the index up to date; return how many changes were read."""
    read = 0
    async for change in log.since(await log.acknowledged()):
        if change.deleted:
            index.pop(change.key, None)
        else:
            index[change.key] = change.value
        await log.acknowledge(change.checkpoint)
        read += 1
    return read


async def main() -> None:
    store = MemorySyncStore("shop")
    log = ChangeLog(store, consumer="search")
    index: dict[str, Any] = {}
    for number in range(100):
        await log.record(f"lamp-{number}", {"price": number})
    first = await follow(log, index)
    assert len(index) == 100

    await log.record("lamp-7", {"price": 70})
    await store.delete("lamp-8")
    second = await follow(log, index)
    assert index["lamp-7"] == {"price": 70}
    assert "lamp-8" not in index
    assert second <= 2
    print(f"{first} changes at first, {second} later")


if __name__ == "__main__":
    asyncio.run(main())
