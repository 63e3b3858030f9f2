"""Spans of messages: broker, stream and outbox, and the headers in between."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import anyio
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from aiopatterns.backends import open_backend
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import RemoteError
from aiopatterns.core.tracing import NO_SPAN
from aiopatterns.messaging import Broker, Outbox, Stream, StreamConsumer
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.tracing import onward, processing, sending
from aiopatterns.resilience.backoff import Constant
from tests.contrib.spans import attributes, id_of, seen

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.promise("telemetry-off")
def test_nothing_is_made_while_nobody_traces():
    headers = {"a": "b"}
    assert sending("broker", "a.b", "publish") is NO_SPAN
    assert processing("broker", Message(type="a")) is NO_SPAN
    assert onward(headers) is headers
    assert onward(None) is None


def test_the_span_goes_with_the_headers_unless_they_name_another():
    with seen() as record, record.mine.start_as_current_span("call"):
        mine = (onward(None) or {})["traceparent"]
        assert onward({"a": "b"}) == {"a": "b", "traceparent": mine}
        assert onward({"traceparent": PARENT}) == {"traceparent": PARENT}
    assert mine.split("-")[2] == f"{id_of(record.one('call')):016x}"


async def test_a_message_of_a_broker():
    got = anyio.Event()
    seen_headers: list[Any] = []

    async def handler(message: Message) -> None:
        seen_headers.append(message.headers)
        got.set()

    with seen() as record:
        async with Broker("memory://") as broker:
            await broker.subscribe("order.*", handler, group="mails")
            await broker.publish("order.paid", 1, type="paid", headers={"a": "b"})
            await got.wait()
    sent, done = record.one("publish order.paid"), record.one("process order.*")
    assert record.path(done) == ["publish order.paid", "process order.*"]
    assert (sent.kind, done.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert seen_headers[0]["a"] == "b"
    (message_id, conversation) = (
        attributes(done).pop(f"messaging.message.{each}") for each in ("id", "conversation_id")
    )
    assert message_id == conversation
    wanted = {
        "messaging.system": "aiopatterns.broker",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "order.paid",
        "messaging.destination.template": "order.*",
        "messaging.consumer.group.name": "mails",
        "messaging.message.id": message_id,
        "messaging.message.conversation_id": message_id,
        "aiopatterns.subject": "paid",
        "aiopatterns.attempt": 1,
    }
    assert attributes(done) == wanted


async def test_a_request_lasts_until_its_answer_and_knows_its_error():
    async def handler(message: Message) -> int:
        if message.payload is None:
            raise ValueError("no number")
        return 7

    with seen() as record:
        async with Broker("memory://") as broker:
            await broker.subscribe("price", handler)
            assert await broker.request("price", 1) == 7
            with pytest.raises(RemoteError):
                await broker.request("price")
    asked = [each for each in record.spans if each.name == "request price"]
    done = [each for each in record.spans if each.name == "process price"]
    assert [each.kind for each in asked] == [SpanKind.CLIENT] * 2
    for outer, inner in zip(asked, done, strict=True):
        assert inner.parent is not None
        assert inner.parent.span_id == id_of(outer)
    assert "messaging.destination.template" not in attributes(done[0])
    assert attributes(done[1])["error.type"] == "ValueError"
    assert asked[1].status.status_code is StatusCode.ERROR


async def test_a_command_and_a_handler_that_is_cut_off():
    began = anyio.Event()

    async def handler(message: Message) -> None:
        began.set()
        await sleep(60)

    with seen() as record:
        async with Broker("memory://", grace=0.0) as broker:
            await broker.subscribe("pay", handler, group="pays")
            await broker.send("pay", 1)
            await began.wait()
    assert record.path(record.one("process pay")) == ["send pay", "process pay"]
    assert attributes(record.one("process pay"))["aiopatterns.outcome"] == "cancelled"


async def test_a_message_of_a_stream_in_a_block():
    with seen() as record:
        async with Stream("orders", "memory://") as orders:
            await orders.append_many([1, 2])
            async with StreamConsumer(orders, group="g", backoff=Constant(0)) as consumer:
                async for delivery in consumer:
                    async with delivery:
                        with record.mine.start_as_current_span("inside"):
                            pass
                    if delivery.id.endswith("2") or len(record.spans) > 4:
                        break
    done = [each for each in record.spans if each.name == "process orders"]
    assert len(done) == 2
    for each in done:
        assert record.path(each) == ["append orders", "process orders"]
        assert attributes(each)["messaging.consumer.group.name"] == "g"
    inside = [each for each in record.spans if each.name == "inside"]
    assert record.path(inside[0]) == ["append orders", "process orders", "inside"]
    assert attributes(record.one("append orders"))["messaging.batch.message_count"] == 2


async def test_a_message_of_a_stream_in_a_handler_and_its_second_attempt():
    attempts: list[int] = []
    over = anyio.Event()

    async def handler(message: Message) -> None:
        attempts.append(message.attempt)
        if len(attempts) == 1:
            raise OSError("away")
        over.set()

    with seen() as record:
        async with Stream("orders", "memory://") as orders:
            await orders.append(Message(type="order", headers={"a": "b"}))
            consumer = StreamConsumer(orders, group="g", backoff=Constant(0))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(consumer.run, handler)
                await over.wait()
                await sleep(0.01)
                tasks.cancel_scope.cancel()
    first, second = (each for each in record.spans if each.name == "process orders")
    assert attributes(first)["error.type"] == "OSError"
    assert "error.type" not in attributes(second)
    for each in (first, second):
        assert record.path(each) == ["append orders", "process orders"]


async def test_a_handler_of_a_stream_that_ends_with_its_consumer():
    began = anyio.Event()

    async def handler(message: Message) -> None:
        began.set()
        await sleep(60)

    with seen() as record:
        async with Stream("orders", "memory://") as orders:
            await orders.append(1)
            consumer = StreamConsumer(orders, group="g", backoff=Constant(0))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(consumer.run, handler)
                await began.wait()
                tasks.cancel_scope.cancel()
    assert attributes(record.one("process orders"))["aiopatterns.outcome"] == "cancelled"


async def test_two_brokers_of_one_backend():
    got = anyio.Event()

    async def handler(message: Message) -> None:
        got.set()

    backend = open_backend("memory://")
    with seen() as record:
        async with Broker(backend, name="a") as one, Broker(backend, name="b") as other:
            await other.subscribe("order.paid", handler)
            await one.publish("order.paid", 1)
            await got.wait()
    assert record.path(record.one("process order.paid"))[0] == "publish order.paid"


@pytest.mark.real
async def test_a_message_that_waits_in_an_outbox():
    got: list[Any] = []

    async def sink(message: Message) -> None:
        got.append(message.headers["traceparent"])

    with seen() as record, closing(sqlite3.connect(":memory:")) as connection:
        outbox = Outbox(connection)
        await outbox.create_tables()
        with record.mine.start_as_current_span("call"):
            message_id = await outbox.add("order.paid", 1)
        connection.commit()
        assert await outbox.relay(sink) == 1
    done = record.one("process order.paid")
    assert record.path(done) == ["call", "add order.paid", "process order.paid"]
    assert attributes(record.one("add order.paid"))["messaging.message.id"] == message_id
    assert got[0].split("-")[2] == f"{id_of(record.one('add order.paid')):016x}"
