"""A reactive consumer: orders flow in, totals for each customer flow out, whatever goes wrong.

``python reactive_stream.py [URL]``: in memory by default; ``redis://localhost:6379`` for a server
that others see as well.

A shop appends its orders to a stream. Two consumers of one group keep the totals of each customer:
the orders of one customer in their order, those of different customers beside each other. One
order fails at first and comes again before those behind it; one can never be handled, and is found
in the dead letters, mended, and driven anew. A second group, which has come later, sees everything
from the beginning.
"""

from __future__ import annotations

import sys
from collections import defaultdict

import anyio

from aiopatterns import Reject, Stream, StreamConsumer, open_backend
from aiopatterns.messaging import Message

CUSTOMERS = ("ann", "bob", "eve")
ORDERS = [(number, CUSTOMERS[number % 3], 100 * (number + 1)) for number in range(30)]


class Totals:
    """What each customer has spent, and in which order that was learned."""

    def __init__(self) -> None:
        self.cents: dict[str, int] = defaultdict(int)
        self.seen: dict[str, list[int]] = defaultdict(list)
        self.mended = False

    async def add(self, message: Message) -> None:
        """Handle one order."""
        order = message.payload
        await anyio.sleep(0.001)
        if order["number"] == 7 and message.attempt == 1:
            raise ConnectionError("the price service is away for a moment")
        if order["number"] == 11 and not self.mended:
            raise Reject("no such article")
        self.cents[order["customer"]] += order["cents"]
        self.seen[order["customer"]].append(order["number"])

    @property
    def count(self) -> int:
        """Orders that are in the totals."""
        return sum(map(len, self.seen.values()))


async def main(url: str) -> None:
    """Run the shop."""
    totals = Totals()
    async with open_backend(url) as backend:
        stream = Stream("example-orders", backend, max_length=1_000)
        consumers = [StreamConsumer(stream, group="totals") for _ in range(2)]
        async with anyio.create_task_group() as tasks:
            for consumer in consumers:
                tasks.start_soon(run, consumer, totals)
            for number, customer, cents in ORDERS:
                order = {"number": number, "customer": customer, "cents": cents}
                await stream.append(order, key=customer, type="order.created")
            await until(totals, len(ORDERS) - 1)
            (letter,) = await stream.dead_letters(group="totals")
            assert letter.message is not None
            print(f"order {letter.message.payload['number']} was given up: {letter.error}")
            totals.mended = True
            await stream.requeue([letter.id], group="totals")
            await until(totals, len(ORDERS))
            for consumer in consumers:
                consumer.stop()
        for customer in CUSTOMERS:
            orders = [number for number in totals.seen[customer] if number != 11]
            in_order = "in order" if orders == sorted(orders) else "out of order"
            print(f"{customer}: {totals.cents[customer] / 100:.2f}, {in_order}")
        print(f"a group that came later sees {await count(stream)} orders")


async def run(consumer: StreamConsumer, totals: Totals) -> None:
    """Let one consumer handle orders until it is stopped."""
    await consumer.run(totals.add, concurrency=8, key=lambda message: message.key)


async def until(totals: Totals, orders: int) -> None:
    """Wait until so many orders are in the totals."""
    while totals.count < orders:
        await anyio.sleep(0.01)


async def count(stream: Stream) -> int:
    """Read all orders once more, one after the other."""
    numbers = set[int]()
    async with StreamConsumer(stream, group="audit") as consumer:
        async for delivery in consumer:
            async with delivery as message:
                numbers.add(message.payload["number"])
            if len(numbers) == len(ORDERS):
                break
    return len(numbers)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1] if len(sys.argv) > 1 else "memory://")
