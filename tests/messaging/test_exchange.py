"""The exchange: what comes in, whatever it is, and the sums of all subscriptions."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.core.clock import sleep
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import CodecError, NoHandlersError, QueueFullError, RemoteError
from aiopatterns.messaging import exchange as module
from aiopatterns.messaging.brokerevents import BrokerFrameRefused
from aiopatterns.messaging.exchange import Exchange, Totals
from aiopatterns.messaging.frames import Outcome, pack_delivery, pack_reply
from aiopatterns.messaging.intake import SubscriptionStatistics, Terms
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.remote import described
from aiopatterns.messaging.scribe import Scribe
from aiopatterns.testing import capture_events
from tests.messaging.stormy import Stormy

TERMS = Terms(group="g", concurrency=16, capacity=10, overflow="drop_old", key=None)
SCRIBE = Scribe(MSGPACK, max_bytes=1_000)


@asynccontextmanager
async def running(way: Any):
    exchange = Exchange("mine", way, SCRIBE)
    async with anyio.create_task_group() as group:
        await group.start(exchange.run)
        yield exchange
        group.cancel_scope.cancel()


async def ask(exchange: Exchange, topic: str, payload: object = None) -> Any:
    labels = ("query", None, 1, None, None)
    return await exchange.ask(topic, payload, wrong(labels), timeout=20.0)


@pytest.mark.promise("messaging-decoders")
async def test_frames_that_are_none_are_refused_and_told():
    way = Stormy(MemoryBackend())
    async with running(way) as exchange:
        number = exchange.subscribe("echo", lambda m: m.payload, TERMS)
        inbox = exchange.routes.here.inbox
        with capture_events() as events:
            for data in (b"", b"\x01", b"\x09", pack_delivery([1], b"no envelope"), b"\x02"):
                await way.publish(inbox, data)
            reply = pack_reply(99, Outcome.VALUE, b"")  # nobody has asked
            await way.publish(inbox, reply)
            assert await ask(exchange, "echo", 1) == 1
            await sleep(0.01)
        refused = [each for each in events if isinstance(each, BrokerFrameRefused)]
        assert len(refused) == exchange.refused == 4
        assert {each.broker for each in refused} == {"mine"}
        assert exchange.requests.late == 1
        exchange.unsubscribe(number)


async def test_addresses_for_replies_that_nobody_has_written_get_none():
    way = Stormy(MemoryBackend())
    async with running(way) as exchange:
        exchange.subscribe("echo", lambda m: m.payload, TERMS)
        for address in (
            "x",
            "x.",
            ".1",
            "x.-1",
            "x.1x",
            "x.99999999999999999999",
            "x.\u0665",
            "y" * 100 + ".1",
        ):
            message = Message(type="t", topic="echo", reply_to=address, payload=1)
            frame = pack_delivery([1], SCRIBE.envelopes.encode(message))
            await way.publish(exchange.routes.here.inbox, frame)
        await sleep(0.01)
        await exchange.courier.flush()
        replies = [each.channel for each in way.published if each.data[:1] == b"\x02"]
        assert replies == ["broker:", "broker:x"]  # what they say is harmless: nobody listens
        assert exchange.totals().handled == 8


@pytest.mark.parametrize(
    ("outcome", "body", "error"),
    [
        (Outcome.VALUE, b"\xff", CodecError),
        (Outcome.ERROR, b"\xff", CodecError),
        (Outcome.ERROR, described(ValueError("no")), RemoteError),
    ],
)
async def test_replies_that_cannot_be_read_are_an_end_as_well(outcome, body, error):
    way, other = (Stormy(memory := MemoryBackend()), Stormy(memory))
    async with running(way) as here, running(other) as there:
        there.subscribe("stuck", lambda m: anyio.sleep_forever(), TERMS)
        assert await there.presence.in_force(5.0)
        async with anyio.create_task_group() as group:

            async def asking() -> None:
                with pytest.raises(error):
                    await ask(here, "stuck")

            group.start_soon(asking)
            await sleep(0.01)
            await way.publish(here.routes.here.inbox, pack_reply(1, outcome, body))


async def test_too_many_subscriptions_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    async with running(Stormy(MemoryBackend())) as exchange:
        numbers = [exchange.subscribe("t", lambda m: None, TERMS) for _ in range(2)]
        with pytest.raises(QueueFullError, match="at most 2 subscriptions"):
            exchange.subscribe("t", lambda m: None, TERMS)
        exchange.unsubscribe(numbers[0])
        exchange.subscribe("t", lambda m: None, TERMS)


async def test_too_much_to_be_sent_is_an_error():
    way, other = (Stormy(memory := MemoryBackend()), Stormy(memory))
    async with running(way) as here, running(other) as there:
        there.subscribe("echo", lambda m: m.payload, TERMS)
        assert await there.presence.in_force(5.0)
        assert await ask(here, "echo", 1) == 1
        here.courier._outgoing = wrong(Endless())
        with pytest.raises(QueueFullError, match="too many"):
            await ask(here, "echo", 1)
        here.courier._outgoing = wrong([])
        assert len(here.requests) == 0


class Endless:
    def __len__(self) -> int:
        return 1_000_000


async def test_sums_are_those_of_all_subscriptions_also_of_ended_ones():
    way = Stormy(MemoryBackend())
    async with running(way) as exchange:
        release = anyio.Event()

        async def slow(message: Message) -> None:
            await release.wait()

        async with anyio.create_task_group() as group:
            one = exchange.subscribe("one", slow, TERMS)
            two = exchange.subscribe("two", lambda m: m.payload, TERMS)
            group.start_soon(ask, exchange, "one")
            group.start_soon(ask, exchange, "two")
            await sleep(0.01)
            for number in (one, two, one):
                exchange.unsubscribe(number)
            assert exchange.totals() == Totals(received=2, handled=1)
            release.set()
        assert exchange.totals() == exchange.totals() == Totals(received=2, handled=2)
        assert Totals(0, 1, 2, 3, 4).plus(SubscriptionStatistics(9, 1, 1, 1, 1, 0, 0, 0)) == (
            9,
            2,
            3,
            4,
            5,
        )


async def test_subscriptions_that_have_ended_leave_nothing_but_their_figures():
    async with running(Stormy(MemoryBackend())) as exchange:
        tasks = len(asyncio.all_tasks())
        for number in range(20):
            place = exchange.subscribe("t", lambda m: m.payload, TERMS)
            assert await ask(exchange, "t", number) == number
            exchange.unsubscribe(place)
        await anyio.wait_all_tasks_blocked()
        assert len(asyncio.all_tasks()) == tasks
        assert len(exchange._ending) == 1
        assert exchange.totals() == Totals(received=20, handled=20)


async def test_on_a_cluster_counts_prove_nothing():
    way = Stormy(MemoryBackend())
    way.url = "redis+cluster://host"
    exchange = Exchange("mine", wrong(way), SCRIBE)
    assert exchange.courier._counts is False
    async with running(way) as exchange:
        exchange._gap_at = -60.0
        with pytest.raises(NoHandlersError):
            await ask(exchange, "nobody")
        assert way.published == []  # it has not asked whether it is heard itself


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value
