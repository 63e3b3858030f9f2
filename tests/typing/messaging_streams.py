"""Brokers, streams and the outbox as users write them, under both checkers."""

from __future__ import annotations

import sqlite3
from typing import Any, assert_type

from aiopatterns import Broker, Stream, StreamConsumer
from aiopatterns.messaging import (
    BrokerStatistics,
    ConsumerStatistics,
    Inbox,
    Message,
    Outbox,
    StreamStatistics,
)

broker = Broker("redis://localhost", name="shop", grace=10)
stream = Stream("orders", "redis://localhost", max_length=100_000)
consumer = StreamConsumer(stream, group="mail", max_deliveries=3)


async def answer(message: Message) -> dict[str, object]:
    return {"id": message.payload}


async def talk() -> None:
    async with broker:
        await broker.subscribe("users.get", answer, group="users", concurrency=4)
        await broker.publish("user.created", 17, key="17")
        found: Any = await broker.request("users.get", 17, timeout=2)
        assert found
        assert_type(broker.statistics(), BrokerStatistics)


async def handle(message: Message) -> None:
    assert_type(message.topic, str)
    assert_type(message.key, str | None)


async def consume() -> None:
    async with stream as opened:
        assert_type(opened, Stream)
        assert_type(await stream.append({"id": 1}, key="a", type="order.created"), str)
        assert_type(await stream.append_many([{"id": 2}, {"id": 3}]), list[str])
        async with consumer:
            async for delivery in consumer:
                assert_type(delivery.attempt, int)
                async with delivery as message:
                    assert_type(message, Message)
        await consumer.run(handle, concurrency=8, key=lambda message: message.key)
        assert_type(consumer.statistics(), ConsumerStatistics)
        assert_type(stream.statistics(), StreamStatistics)


async def relay(database: sqlite3.Connection) -> None:
    assert_type(await Outbox(database).add("order.created", {"id": 1}, key="a"), str)
    assert_type(await Outbox(database).relay(handle), int)
    assert_type(await Inbox(database, consumer="mail").first("id"), bool)
