"""Saga: three steps over three services, and what is undone when the last one fails."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from aiopatterns.core import SagaError
from aiopatterns.data import Saga, SqliteSagaStore

log: list[str] = []
journal = Path(tempfile.mkdtemp()) / "sagas.db"
checkout = Saga("checkout", SqliteSagaStore(str(journal)))


async def release(order: dict[str, Any]) -> None:
    log.append("released")


async def refund(order: dict[str, Any]) -> None:
    log.append("refunded")


@checkout.step(compensate=release)
async def reserve(order: dict[str, Any]) -> None:
    log.append("reserved")


@checkout.step(compensate=refund)
async def pay(order: dict[str, Any]) -> None:
    log.append("paid")


@checkout.step
async def ship(order: dict[str, Any]) -> None:
    if order["to"] == "the moon":
        raise ValueError("nobody goes there")
    log.append("shipped")


async def main() -> None:
    result = await checkout.run({"to": "Rome"}, id="order-1")
    assert result.state == "completed"
    assert log == ["reserved", "paid", "shipped"]
    log.clear()
    try:
        await checkout.run({"to": "the moon"}, id="order-2")
    except SagaError as error:
        print(f"{error}; done and undone: {', '.join(log)}")
    assert log == ["reserved", "paid", "refunded", "released"]


if __name__ == "__main__":
    asyncio.run(main())
