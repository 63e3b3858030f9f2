"""Channel: a fast producer is slowed down to its consumer, and no item is lost."""

from __future__ import annotations

import asyncio

from aiopatterns import Channel


async def main() -> None:
    channel = Channel[int](10)

    async def produce() -> None:
        async with channel.producer():
            for number in range(1_000):
                await channel.send(number)  # waits while ten items are queued

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(produce())
        received = [number async for number in channel]  # ends when the producer has left
    assert received == list(range(1_000))
    assert channel.statistics().peak <= 10
    print(f"1,000 items in order; {channel.statistics().peak} in memory at most")


if __name__ == "__main__":
    asyncio.run(main())
