"""Event bus: parts of one program hear of each other's doings, by type and by topic."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiopatterns import EventBus


@dataclass(frozen=True)
class OrderPaid:
    order: int
    amount: int


async def main() -> None:
    bus = EventBus()
    mails: list[int] = []
    audit: list[str] = []
    income = 0

    async def send_mail(event: OrderPaid) -> None:
        mails.append(event.order)

    def book(event: OrderPaid) -> None:  # handlers may be synchronous
        nonlocal income
        income += event.amount

    bus.subscribe(OrderPaid, send_mail)
    bus.subscribe(OrderPaid, book)
    bus.subscribe("order.*", lambda event: audit.append(repr(event)))
    for order in (1, 2, 3):
        await bus.publish(OrderPaid(order, 10 * order), topic="order.paid")
    assert (mails, income, len(audit)) == ([1, 2, 3], 60, 3)
    print(f"mails for {mails}, income {income}, audit has {len(audit)} lines")


if __name__ == "__main__":
    asyncio.run(main())
