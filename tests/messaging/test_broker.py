"""The broker: one contract in memory and on Redis; verbs, groups, requests, outages, endings."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from math import inf, nan
from typing import Any, ClassVar

import anyio
import pytest

import aiopatterns
from aiopatterns.backends import open_backend
from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.codec import JSON, MSGPACK
from aiopatterns.core.context import bind_correlation, bind_deadline, correlation_id, deadline
from aiopatterns.core.errors import (
    BackendUnavailableError,
    ClosedError,
    CodecError,
    NoHandlersError,
    QueueFullError,
    RejectedError,
    RemoteError,
    TimeoutExceededError,
)
from aiopatterns.messaging import Broker, Message
from aiopatterns.messaging.broker import CONFIRMED_WITHIN, BrokerStatistics
from aiopatterns.messaging.brokerevents import (
    BrokerHandlerFailed,
    BrokerInterrupted,
    BrokerMessagesDropped,
    BrokerResumed,
    BrokerSubscriptionFailed,
)
from aiopatterns.messaging.listing import read_listing
from aiopatterns.messaging.remote import LOST
from aiopatterns.testing import (
    InjectedError,
    Trial,
    cancel_everywhere,
    capture_events,
    explore,
    fail_everywhere,
    simulate,
)
from tests.messaging.stormy import Stormy

PATIENCE = 20.0


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
def brokers(request):
    """Return a function that makes brokers as of several processes."""
    if request.param == "memory":
        backend = open_backend("memory://")
        return lambda **options: Broker(backend, **options)
    url = request.getfixturevalue("redis_url")
    return lambda **options: Broker(url, **options)


@asynccontextmanager
async def fleet(brokers: Any, size: int, **options: Any):
    """So many brokers that know each other."""
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(brokers(**options)) for _ in range(size)]
        await known(*made)
        yield made


async def known(*made: Broker) -> None:
    """Wait until all of them know all the others."""
    with anyio.fail_after(PATIENCE):
        while any(each.statistics().peers < len(made) - 1 for each in made):
            await sleep(0.005)


async def heard(*made: Broker) -> None:
    """Wait until all of them have heard of each other's subscriptions."""
    exchanges = [wrong(broker)._exchange for broker in made]
    newest = {each.member: each.presence._edition for each in exchanges}

    def known_to(exchange: Any) -> bool:
        peers = exchange.routes._peers
        others = newest.keys() - {exchange.member}
        return all(
            member in peers and read_listing(peers[member].data).edition >= newest[member]
            for member in others
        )

    with anyio.fail_after(PATIENCE):
        while not all(known_to(exchange) for exchange in exchanges):
            await sleep(0.005)


class Inbox:
    """What a handler got."""

    def __init__(self, reply: object = None) -> None:
        self.messages: list[Message] = []
        self.reply = reply

    async def __call__(self, message: Message) -> object:
        self.messages.append(message)
        return self.reply

    @property
    def payloads(self) -> list[Any]:
        return [each.payload for each in self.messages]

    async def hold(self, count: int) -> list[Any]:
        with anyio.fail_after(PATIENCE):
            while len(self.messages) < count:
                await sleep(0.005)
        return self.payloads


async def echo(message: Message) -> Any:
    return message.payload


# ------------------------------------------------------------------------------- the verbs


@pytest.mark.promise("messaging-broker-conformance")
async def test_a_request_is_answered_from_near_and_far(brokers):
    async with fleet(brokers, 2) as (here, there):
        await there.subscribe("math.add", lambda m: m.payload["a"] + m.payload["b"])
        assert await here.request("math.add", {"a": 2, "b": 3}) == 5
        assert await there.request("math.add", {"a": 2, "b": 4}) == 6
        payloads: list[Any] = [None, 1, 1.5, "text", b"bytes", [1, [2]], {"a": {"b": []}}]
        await there.subscribe("echo", echo)
        for payload in payloads:
            assert await here.request("echo", payload) == payload


@pytest.mark.promise("messaging-broker-conformance")
async def test_a_published_message_reaches_all_without_a_group_and_one_of_each_group(brokers):
    async with fleet(brokers, 3) as made:
        alone, billing, mail = [Inbox() for _ in made], [Inbox() for _ in made], Inbox()
        for number, broker in enumerate(made):
            await broker.subscribe("order.paid", alone[number])
            await broker.subscribe("order.*", billing[number], group="billing")
        await made[0].subscribe("order.>", mail, group="mail")
        await heard(*made)
        for number in range(12):
            await made[1].publish("order.paid", number)
        for inbox in (*alone, mail):
            assert sorted(await inbox.hold(12)) == list(range(12))
        with anyio.fail_after(PATIENCE):
            while sum(len(inbox.messages) for inbox in billing) < 12:
                await sleep(0.005)
        assert [len(inbox.messages) for inbox in billing] == [4, 4, 4]
        assert sorted(n for inbox in billing for n in inbox.payloads) == list(range(12))


@pytest.mark.promise("messaging-broker-conformance")
async def test_patterns_of_one_group_are_one_group(brokers):
    async with fleet(brokers, 2) as (here, there):
        inbox = Inbox()
        for pattern in ("a.b", "a.*", "a.>", ">"):
            await there.subscribe(pattern, inbox, group="g")
        await heard(here, there)
        for number in range(8):
            await here.publish("a.b", number)
        await here.publish("a.c.d", 8)
        assert sorted(await inbox.hold(9)) == list(range(9))
        await sleep(0.02)
        assert len(inbox.messages) == 9


@pytest.mark.promise("messaging-broker-conformance")
async def test_send_needs_exactly_one_group(brokers):
    async with fleet(brokers, 2) as (here, there):
        await there.subscribe("order.create", Inbox())
        with pytest.raises(NoHandlersError, match=r"'order\.create'") as refused:
            await here.send("order.create", 1)
        assert refused.value.topic == "order.create"
        inbox = Inbox()
        handling = await there.subscribe("order.create", inbox, group="orders")
        await here.send("order.create", 2, key="k", headers={"a": "b"}, type="create", version=3)
        (message,) = (await inbox.hold(1), inbox.messages)[1]
        assert (message.kind, message.type, message.version) == ("command", "create", 3)
        assert (message.key, message.headers, message.topic) == ("k", {"a": "b"}, "order.create")
        await there.subscribe("order.*", Inbox(), group="audit")
        await heard(here, there)
        with pytest.raises(ValueError, match="'audit', 'orders'"):
            await here.send("order.create", 3)
        await handling.close()
        await heard(here, there)
        await here.send("order.create", 4)
        assert inbox.payloads == [2]


@pytest.mark.promise("messaging-broker-conformance")
async def test_who_does_not_answer_gets_what_is_published_alone(brokers):
    async with fleet(brokers, 2) as (here, there):
        grouped, alone = Inbox(), Inbox()
        await there.subscribe("order.create", grouped, group="audit", answers=False)
        await here.subscribe("order.create", alone, answers=False)
        for call in (here.send, here.request, there.send, there.request):
            with pytest.raises(NoHandlersError):
                await call("order.create", 1)
        await there.subscribe("order.*", lambda message: message.payload, group="orders")
        await heard(here, there)
        assert await here.request("order.create", 2) == 2
        await here.send("order.create", 3)
        await here.publish("order.create", 4)
        await grouped.hold(1)
        await alone.hold(1)
        assert grouped.payloads == alone.payloads == [4]


@pytest.mark.promise("messaging-broker-no-handlers")
async def test_nobody_listens_is_told_at_once(brokers):
    async with fleet(brokers, 2) as (here, _):
        started = monotonic()
        for call in (here.request("nobody", timeout=60.0), here.send("nobody")):
            with pytest.raises(NoHandlersError, match="'nobody'"):
                await call
        assert monotonic() - started < 10.0
        await here.publish("nobody", 1)  # is no error
        assert here.statistics().pending == 0


@pytest.mark.promise("messaging-broker-no-handlers")
async def test_who_does_not_know_yet_looks(brokers):
    async with fleet(brokers, 2) as (here, there):
        for number in range(10):
            await there.subscribe(f"late.{number}", echo, group="late")
            assert await here.request(f"late.{number}", number) == number
            await here.send(f"late.{number}", number)


@pytest.mark.promise("messaging-broker-conformance")
async def test_the_most_specific_pattern_answers(brokers):
    async with fleet(brokers, 2) as (here, there):
        for pattern, group in (
            (">", "recorder"), ("user.>", None), ("user.*", "b"), ("user.*", "a"), ("user.get", None)
        ):  # fmt: skip
            reply = f"{pattern} {group}"
            await there.subscribe(pattern, Inbox(reply), group=group)
        await heard(here, there)
        assert await here.request("user.get") == "user.get None"
        assert await here.request("user.set") == "user.* a"
        assert await here.request("user.a.b") == "user.> None"
        assert await here.request("other") == "> recorder"


@pytest.mark.promise("messaging-broker-remote-errors")
async def test_a_handlers_error_is_the_callers_at_once(brokers):
    class Unknown(LookupError):
        code = "unknown_user"
        retryable = True
        details: ClassVar = {"id": 17}

    async def fail(message: Message) -> None:
        raise Unknown("no user 17")

    async def plain(message: Message) -> None:
        raise ValueError("wrong")

    async def unwritable(message: Message) -> object:
        return object()

    async with fleet(brokers, 2) as (here, there):
        await there.subscribe("fail", fail)
        await there.subscribe("plain", plain)
        await there.subscribe("unwritable", unwritable)
        for broker in (here, there):
            with pytest.raises(RemoteError, match="Unknown: no user 17") as failed:
                await broker.request("fail", timeout=60)
            error = failed.value
            assert (error.type, error.message, error.code) == (
                "Unknown",
                "no user 17",
                "unknown_user",
            )
            assert (error.retryable, error.details) == (True, {"id": 17})
            with pytest.raises(RemoteError) as failed:
                await broker.request("plain", timeout=60)
            assert (failed.value.type, failed.value.retryable) == ("ValueError", False)
            with pytest.raises(RemoteError) as failed:
                await broker.request("unwritable", timeout=60)
            assert failed.value.type == "CodecError"
        assert there.statistics().failed == 4


@pytest.mark.promise("messaging-broker-remote-errors")
async def test_an_error_passes_through_the_service_between(brokers):
    async with fleet(brokers, 3) as (one, two, three):

        async def between(message: Message) -> Any:
            return await two.request("deep", message.payload)

        async def deep(message: Message) -> None:
            raise RemoteError("no", type="Denied", code="denied")

        await two.subscribe("between", between)
        await three.subscribe("deep", deep)
        with pytest.raises(RemoteError, match="Denied: no") as failed:
            await one.request("between")
        assert failed.value.code == "denied"


@pytest.mark.promise("messaging-broker-travels")
async def test_what_travels_into_the_handler_and_on(brokers):
    async with fleet(brokers, 2) as (here, there):
        seen: list[tuple[Message, str | None, float]] = []

        async def first(message: Message) -> Any:
            at = deadline()
            assert at is not None
            seen.append((message, correlation_id(), at - monotonic()))
            return await there.request("second", timeout=60)

        async def second(message: Message) -> str:
            at = deadline()
            assert at is not None
            seen.append((message, correlation_id(), at - monotonic()))
            return "done"

        await there.subscribe("first", first)
        await here.subscribe("second", second)
        with bind_correlation("seventeen"):
            assert await here.request("first", timeout=9.0) == "done"
        (one, correlation, left), (two, correlation2, left2) = seen
        assert correlation == correlation2 == one.correlation_id == "seventeen"
        assert 0 < left2 <= left <= 9.0
        assert (one.hops, two.hops) == (0, 1)
        assert (one.causation_id, two.causation_id) == (None, one.id)
        assert (one.kind, one.type, one.topic, one.attempt) == ("query", "first", "first", 1)
        assert await here.request("second") == "done"
        assert seen[-1][0].correlation_id == seen[-1][0].id
        assert correlation_id() is None
        assert deadline() is None


@pytest.mark.promise("messaging-broker-travels")
async def test_a_circle_of_services_ends(brokers):
    async with fleet(brokers, 2) as (here, there):
        asked = 0

        def handler(broker: Broker) -> Any:
            async def ask(message: Message) -> Any:
                nonlocal asked
                asked += 1
                return await broker.request("circle", timeout=30)

            return ask

        await there.subscribe("circle", handler(there), group="g", concurrency=100)
        await here.subscribe("circle", handler(here), group="g", concurrency=100)
        with pytest.raises(RemoteError, match="in a circle") as failed:
            await here.request("circle", timeout=30)
        assert failed.value.type == "RejectedError"
        assert asked == 33


async def test_context_variables_of_a_message_are_its_own(brokers):
    from contextvars import ContextVar

    variable: ContextVar[str] = ContextVar("variable", default="unset")
    async with fleet(brokers, 2) as (here, there):
        variable.set("subscriber")

        async def handler(message: Message) -> str:
            before = variable.get()
            variable.set("handler")
            await sleep(0)
            return before

        await there.subscribe("topic", handler, concurrency=1)
        variable.set("later")
        for broker in (here, there):
            assert [await broker.request("topic") for _ in range(3)] == ["subscriber"] * 3


async def test_payloads_are_the_receivers_own(brokers):
    async with fleet(brokers, 1) as (broker,):
        kept: list[Any] = []

        def keep(message: Message) -> list[Any]:
            kept.append(message.payload)
            return kept

        await broker.subscribe("topic", keep)
        sent = {"list": [1]}
        reply = await broker.request("topic", sent)
        sent["list"].append(2)
        reply[0]["list"].append(3)
        assert kept == [{"list": [1]}]


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])
async def test_brokers_of_different_codecs_understand_each_other(brokers, codec):
    async with brokers(codec=JSON) as here, brokers(codec=codec) as there:
        await there.subscribe("echo", echo)
        assert await here.request("echo", {"a": [1, "b", None]}) == {"a": [1, "b", None]}


async def test_what_cannot_travel_is_refused_before_anybody_gets_it(brokers):
    async with brokers(max_bytes=1_000) as here, brokers(max_bytes=1_000) as there:
        inbox = Inbox(reply="x" * 2_000)
        for broker in (here, there):
            await broker.subscribe("topic", inbox, group="g")
        await heard(here, there)
        for bad in (object(), "x" * 1_001):
            with pytest.raises(CodecError):  # also if nobody wants it
                await here.publish("nobody", bad)
            for _ in range(2):  # once for each member of the group
                for call in (here.request, here.publish, here.send):
                    with pytest.raises(CodecError):
                        await call("topic", bad)
        assert inbox.messages == []
        for _ in range(2):
            with pytest.raises(RemoteError, match="longer than max_bytes"):
                await here.request("topic")
        assert here.statistics().pending == 0


# ------------------------------------------------------------------------------- handlers


async def test_order_by_key_and_concurrency(brokers):
    async with fleet(brokers, 2) as (here, there):
        active, peak, done = 0, 0, dict[str, list[int]]()

        async def handler(message: Message) -> None:
            nonlocal active, peak
            active, peak = active + 1, max(peak, active + 1)
            await sleep(0.001)
            done.setdefault(message.key or "", []).append(message.payload)
            active -= 1

        await there.subscribe("topic", handler, concurrency=4, key=lambda m: m.key)
        await heard(here, there)
        for number in range(40):
            await here.publish("topic", number, key=f"k{number % 5}")
        with anyio.fail_after(PATIENCE):
            while sum(map(len, done.values())) < 40:
                await sleep(0.005)
        assert {key: numbers == sorted(numbers) for key, numbers in done.items()} == {
            f"k{n}": True for n in range(5)
        }
        assert 2 <= peak <= 4


async def test_a_message_whose_deadline_is_over_is_not_handled(brokers):
    async with fleet(brokers, 1) as (broker,):
        inbox = Inbox()

        async def slow(message: Message) -> None:
            await inbox(message)
            await sleep(0.2)

        await broker.subscribe("slow", slow, concurrency=1)
        async with anyio.create_task_group() as group:
            group.start_soon(broker.request, "slow", 1)
            await sleep(0.01)
            with pytest.raises(TimeoutExceededError, match="no reply from 'slow' within"):
                await broker.request("slow", 2, timeout=0.05)
        with anyio.fail_after(PATIENCE):
            while broker.statistics().expired != 1:
                await sleep(0.01)
        assert inbox.payloads == [1]


async def test_overflow_drops_by_name_and_tells_who_asks(brokers):
    async with fleet(brokers, 2) as (here, there):
        release = anyio.Event()

        async def stuck(message: Message) -> Any:
            await release.wait()
            return message.payload

        old = await there.subscribe("old", stuck, concurrency=1, capacity=2, overflow="drop_old")
        new = await there.subscribe("new", stuck, concurrency=1, capacity=2, overflow="drop_new")
        end = await there.subscribe("end", stuck, concurrency=1, capacity=2, overflow="fail")
        await heard(here, there)
        results: dict[str, list[Any]] = {"old": [], "new": [], "end": []}

        async def ask(topic: str, number: int) -> None:
            try:
                results[topic].append(await here.request(topic, number, timeout=30))
            except RemoteError as error:
                results[topic].append((number, error.type, error.retryable))
            except NoHandlersError:
                results[topic].append(number)

        with capture_events() as events:
            async with anyio.create_task_group() as group:
                for topic, one in (("old", old), ("new", new), ("end", end)):
                    for number in range(1, 6):
                        group.start_soon(ask, topic, number)
                        with anyio.fail_after(PATIENCE):
                            while one.statistics().received < number and number < 5:
                                await sleep(0.002)
                with anyio.fail_after(PATIENCE):
                    while [each.statistics().dropped for each in (old, new, end)] != [2, 2, 1]:
                        await sleep(0.002)
                release.set()
        full = [(QueueFullError.__name__, True)] * 2
        assert [each[1:] for each in results["old"][:2]] == full
        assert [each[0] for each in results["old"][:2]] == [2, 3]
        assert sorted(results["old"][2:]) == [1, 4, 5]
        assert [each[0] for each in results["new"][:2]] == [4, 5]
        assert sorted(results["new"][2:]) == [1, 2, 3]
        dropped = [each for each in events if isinstance(each, BrokerMessagesDropped)]
        assert [(each.pattern, each.overflow) for each in dropped] == [
            ("old", "drop_old"), ("new", "drop_new"), ("end", "fail")
        ]  # fmt: skip
        assert results["end"][0][:2] == (4, QueueFullError.__name__)
        assert sorted(results["end"][1:]) == [1, 2, 3, 5]
        failed = [each for each in events if isinstance(each, BrokerSubscriptionFailed)]
        assert failed == [BrokerSubscriptionFailed("end", 2)]
        with pytest.raises(NoHandlersError):
            await here.request("end")
        assert there.statistics().dropped == old.statistics().dropped + 2 + 1


async def test_a_subscription_that_fails_is_closed_also_if_nobody_listens(brokers):
    async with fleet(brokers, 1) as (broker,):
        options = {"concurrency": 1, "capacity": 1, "overflow": "fail"}
        one = await broker.subscribe("topic", Inbox(), **wrong(options))
        for number in range(3):
            wrong(broker)._exchange._offer(wrong(one)._number, Message(type="t", payload=number))
        assert broker.statistics().subscriptions == 0


async def test_a_failed_handler_is_told_and_stops_nothing(brokers):
    async def handler(message: Message) -> None:
        if message.payload == 1:
            raise ValueError("one")
        if message.payload == 2:
            raise asyncio.CancelledError
        seen.append(message.payload)

    seen: list[int] = []
    async with fleet(brokers, 2) as (here, there):
        await there.subscribe("topic", handler, concurrency=1)
        await heard(here, there)
        with capture_events() as events:
            for number in range(4):
                await here.publish("topic", number)
            with anyio.fail_after(PATIENCE):
                while len(seen) < 2:
                    await sleep(0.005)
        assert seen == [0, 3]
        failed = [each for each in events if isinstance(each, BrokerHandlerFailed)]
        assert [each.error for each in failed] == ["ValueError: one", "CancelledError: "]
        assert {(each.pattern, each.topic) for each in failed} == {("topic", "topic")}


async def test_a_closed_subscription_takes_no_more(brokers):
    async with fleet(brokers, 2) as (here, there):
        first, second = Inbox(1), Inbox(2)
        async with await there.subscribe("topic", first, group="g") as one:
            await here.subscribe("topic", second, group="g")
            await heard(here, there)
            assert {await there.request("topic") for _ in range(4)} == {1, 2}
            assert (one.pattern, one.group) == ("topic", "g")
        await one.close()
        await heard(here, there)
        assert {await here.request("topic") for _ in range(4)} == {2}
        assert one.statistics().received == one.statistics().handled == 2
        assert there.statistics().handled == 2


async def test_a_request_to_a_place_just_closed_goes_to_the_next(brokers):
    async with fleet(brokers, 2) as (here, there):
        one = await there.subscribe("topic", Inbox(1), group="g")
        await there.subscribe("topic", Inbox(2), group="g")
        await heard(here, there)
        exchange = wrong(there)._exchange
        exchange.intakes.pop(wrong(one)._number)  # as if the others had not heard of it yet
        assert [await here.request("topic") for _ in range(4)] == [2] * 4
        assert there.statistics().received == 4  # what came for nobody is not counted
        await one.close()


# ------------------------------------------------------------------------------- endings


@pytest.mark.promise("messaging-broker-drain")
async def test_leaving_finishes_what_was_accepted_and_answers_it(brokers):
    async with fleet(brokers, 1) as (here,):
        replies: list[Any] = []

        async def slow(message: Message) -> Any:
            await sleep(0.05)
            return message.payload

        async def ask(number: int) -> None:
            replies.append(await here.request("slow", number, timeout=30))

        async with anyio.create_task_group() as group:
            async with brokers() as there:
                one = await there.subscribe("slow", slow, concurrency=2)
                for number in range(6):
                    group.start_soon(ask, number)
                with anyio.fail_after(PATIENCE):
                    while one.statistics().received < 6:
                        await sleep(0.002)
        assert sorted(replies) == list(range(6))
        with pytest.raises(NoHandlersError):
            await here.request("slow", 7)


@pytest.mark.promise("messaging-broker-drain")
async def test_the_grace_ends_handlers_that_do_not(brokers):
    async with fleet(brokers, 1) as (here,):
        errors: list[RemoteError | NoHandlersError] = []

        async def ask() -> None:
            try:
                await here.request("stuck", timeout=60)
            except (RemoteError, NoHandlersError) as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            async with brokers(grace=0.05) as there:
                one = await there.subscribe("stuck", lambda m: anyio.sleep_forever(), concurrency=1)
                group.start_soon(ask)
                group.start_soon(ask)
                with anyio.fail_after(PATIENCE):
                    while one.statistics().received < 2:
                        await sleep(0.002)
        kinds = {type(each): each for each in errors}
        lost = kinds[RemoteError]
        assert isinstance(lost, RemoteError)
        assert (lost.code, lost.retryable) == (LOST, True)
        assert NoHandlersError in kinds  # it had waited, and there was nobody else
        statistics = one.statistics()
        assert (statistics.cancelled, statistics.waiting, statistics.active) == (2, 0, 0)


async def test_a_pending_request_ends_with_its_broker(brokers):
    async with fleet(brokers, 1) as (there,):
        await there.subscribe("stuck", lambda m: sleep(0.3))
        ended: list[Exception] = []

        async def ask(broker: Broker) -> None:
            try:
                await broker.request("stuck", timeout=60)
            except ClosedError as error:
                ended.append(error)

        async with anyio.create_task_group() as group:
            async with brokers() as here:
                group.start_soon(ask, here)
                with anyio.fail_after(PATIENCE):
                    while not here.statistics().pending:
                        await sleep(0.002)
                await sleep(0.02)
        assert "was closed while 'stuck' was asked" in str(ended[0])


async def test_requests_of_a_broker_to_itself_end_with_it(brokers):
    ended: list[type[Exception]] = []

    async def ask(broker: Broker) -> None:
        try:
            await broker.request("stuck", timeout=60)
        except (RemoteError, NoHandlersError, ClosedError) as error:
            ended.append(type(error))

    async with anyio.create_task_group() as group:
        async with brokers(grace=0) as broker:
            await broker.subscribe("stuck", lambda m: anyio.sleep_forever(), concurrency=1)
            for _ in range(3):
                group.start_soon(ask, broker)
            await sleep(0.01)
            assert broker.statistics().pending == 3
    assert ended.count(RemoteError) == 1
    assert len(ended) == 3


@pytest.mark.parametrize("verb", ["publish", "send", "request", "subscribe"])
async def test_who_waits_in_another_task_is_told_of_the_end(verb: str):
    memory = MemoryBackend()
    way = Stormy(memory)
    async with fleet(lambda **options: Broker(memory, **options), 1) as (there,):
        await there.subscribe("topic", echo, group="g")
        async with anyio.create_task_group() as group:
            with pytest.raises(RuntimeError, match="boom"):
                async with Broker(wrong(way)) as here:
                    await known(there, here)
                    way.hangs = True
                    group.start_soon(uses, here, verb, echo if verb == "subscribe" else 1)
                    await sleep(0.01)
                    raise RuntimeError("boom")
            way.hangs = False


async def uses(broker: Broker, verb: str, argument: object) -> None:
    with pytest.raises(ClosedError, match="was closed"):
        await getattr(broker, verb)("topic", argument)


async def test_who_looks_for_somebody_in_another_task_is_told_of_the_end():
    memory = MemoryBackend()
    async with anyio.create_task_group() as group, memory:
        way = Stormy(memory)
        async with Broker(wrong(way)) as broker:
            way.back()  # from now on somebody may come back
            for verb in ("send", "request"):
                group.start_soon(uses, broker, verb, 1)
            await sleep(0.01)


async def test_closing_a_subscription_after_its_broker_takes_no_time(brokers):
    async with brokers() as broker:
        subscription = await broker.subscribe("topic", echo)
        await broker.request("topic", 1)
    with anyio.fail_after(CONFIRMED_WITHIN / 2):
        await subscription.close()
    assert subscription.statistics().handled == 1
    assert broker.statistics().subscriptions == 0


async def test_an_error_in_the_block_leaves_bare_and_abandons(brokers):
    boom = RuntimeError("boom")
    with pytest.raises(RuntimeError) as raised:
        async with brokers() as broker:
            await broker.subscribe("stuck", lambda m: anyio.sleep_forever())
            await broker.publish("stuck")
            raise boom
    assert raised.value is boom


async def test_the_end_of_the_process_leaves_a_handler_bare(brokers):
    class End(BaseException):
        pass

    def handler(message: Message) -> None:
        raise End

    with pytest.raises(End):
        async with brokers(grace=0) as broker:
            await broker.subscribe("topic", handler)
            await broker.publish("topic")
            await anyio.sleep_forever()


async def test_opened_again_it_is_another(brokers):
    broker = brokers(name="mine")
    assert broker.statistics() == BrokerStatistics()
    for _ in range(2):
        async with broker:
            await broker.subscribe("echo", echo)
            assert await broker.request("echo", 1) == 1
            assert broker.statistics() == BrokerStatistics(
                connected=True, subscriptions=1, sent=1, received=1, handled=1
            )
            with pytest.raises(RuntimeError, match="open already"):
                await broker.__aenter__()
        assert not broker.statistics().connected
        with pytest.raises(ClosedError, match="async with Broker"):
            await broker.request("echo", 1)
    assert broker.name == "mine"
    assert broker.backend is not None


# ------------------------------------------------------------------------------- bad input


@pytest.mark.promise("messaging-bad-input")
async def test_bad_input_is_refused(brokers):
    with pytest.raises(TypeError, match="backend"):
        Broker(wrong(1))
    for options, kind in (
        ({"name": ""}, ValueError), ({"grace": -1}, ValueError), ({"grace": nan}, ValueError),
        ({"codec": "json"}, TypeError), ({"max_bytes": 0}, ValueError),
    ):  # fmt: skip
        with pytest.raises(kind, match=next(iter(options))):
            brokers(**options)
    async with brokers() as broker:
        for options, kind in (
            ({"group": ""}, ValueError), ({"group": 1}, TypeError), ({"group": "g\udc80"}, ValueError),
            ({"concurrency": 0}, ValueError),
            ({"concurrency": 1.5}, TypeError), ({"key": "k"}, TypeError), ({"capacity": 0}, ValueError),
            ({"overflow": "wait"}, ValueError), ({"answers": 1}, TypeError),
        ):  # fmt: skip
            with pytest.raises(kind, match=next(iter(options))):
                await broker.subscribe("topic", echo, **options)
        for pattern in ("", "a..b", "a.>.b", "a b", "*a", "a\udc80"):
            with pytest.raises(ValueError, match="topic"):
                await broker.subscribe(pattern, echo)
        with pytest.raises(TypeError, match="handler"):
            await broker.subscribe("topic", wrong(1))
        await broker.subscribe("topic", echo, group="g")
        for verb in (broker.publish, broker.send, broker.request):
            for topic in ("", "a.*", ">", "a..b"):
                with pytest.raises(ValueError, match="topic"):
                    await verb(topic)
            with pytest.raises(TypeError, match="topic"):
                await verb(wrong(1))
            for labels, kind in (
                ({"version": 0}, ValueError), ({"key": ""}, ValueError), ({"type": ""}, ValueError),
                ({"headers": {"a": 1}}, TypeError), ({"headers": 1}, TypeError),
            ):  # fmt: skip
                with pytest.raises(kind, match=next(iter(wrong(labels)))):
                    await verb("topic", **wrong(labels))
        for timeout, kind in ((0, ValueError), (-1.0, ValueError), (nan, ValueError),
                              (inf, ValueError), ("5", TypeError), (True, TypeError)):  # fmt: skip
            with pytest.raises(kind, match="timeout"):
                await broker.request("topic", timeout=wrong(timeout))
        assert await broker.request("topic", 1, timeout=5) == 1
        assert broker.statistics().pending == 0


def test_it_is_a_headline_name():
    assert aiopatterns.Broker is Broker


# ------------------------------------------------------------------------------- time


@pytest.mark.promise("messaging-broker-deadline")
async def test_a_request_ends_at_its_deadline(brokers):
    async with fleet(brokers, 2, grace=0) as (here, there):
        await there.subscribe("stuck", lambda m: anyio.sleep_forever(), concurrency=100)
        await heard(here, there)
        for broker in (here, there):
            started = monotonic()
            with pytest.raises(TimeoutExceededError, match="'stuck'") as expired:
                await broker.request("stuck", timeout=0.1)
            assert expired.value.timeout == 0.1
            with bind_deadline(monotonic() + 0.05), pytest.raises(TimeoutExceededError):
                await broker.request("stuck", timeout=60)
            with bind_deadline(monotonic() - 1), pytest.raises(TimeoutExceededError):
                await broker.request("stuck", timeout=60)
            assert 0.1 <= monotonic() - started < 10
        assert here.statistics().pending == 0


def test_deadlines_are_exact_in_virtual_time():
    async def main() -> None:
        async with open_backend("memory://") as backend:
            async with Broker(backend, grace=0) as here, Broker(backend, grace=0) as there:
                await there.subscribe("stuck", lambda m: anyio.sleep_forever(), concurrency=1)
                started = monotonic()
                with pytest.raises(TimeoutExceededError):
                    await here.request("stuck", timeout=7.5)
                assert monotonic() - started == pytest.approx(7.5)
                for timeout in range(100, 200):  # more budgets than have a timer of their own
                    with anyio.move_on_after(1):
                        await here.request("stuck", timeout=timeout)
                started = monotonic()
                with pytest.raises(TimeoutExceededError):
                    await here.request("stuck", timeout=77.5)
                assert monotonic() - started == pytest.approx(77.5)

    simulate(main)


# ------------------------------------------------------------------------------- outages


@asynccontextmanager
async def storm(size: int, **options: Any):
    """So many brokers, each with a way of its own to one server in memory."""
    memory = MemoryBackend()
    ways = [Stormy(memory) for _ in range(size)]
    async with AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(Broker(wrong(way), name=f"b{n}", **options))
            for n, way in enumerate(ways)
        ]
        await known(*made)
        yield made, ways


async def test_an_outage_is_told_once_and_ends_nothing():
    async with storm(2) as ((here, there), (way, other)):
        await there.subscribe("echo", echo)
        await here.subscribe("near", echo)
        await heard(here, there)
        with capture_events() as events:
            way.outage()
            for _ in range(3):
                with pytest.raises(BackendUnavailableError, match="nobody answers"):
                    await here.request("echo")
                with pytest.raises(BackendUnavailableError, match="nobody answers"):
                    await here.publish("echo")
                with pytest.raises(BackendUnavailableError, match="nobody answers"):
                    await here.send("unknown")
            assert not here.statistics().connected
            assert await here.request("near", 1) == 1  # needs nobody else
            way.back()
            with anyio.fail_after(PATIENCE):
                while not here.statistics().connected:
                    await sleep(0.01)
        assert await here.request("echo", 2) == 2
        told = [each for each in events if isinstance(each, (BrokerInterrupted, BrokerResumed))]
        assert told == [BrokerInterrupted("b0", "nobody answers"), BrokerResumed("b0")]
        assert here.statistics().gaps == 1
        assert other.error is None


async def test_a_lost_connection_ends_what_waits_for_a_reply_from_afar():
    async with storm(2) as ((here, there), (way, _)):
        for broker, topic in ((there, "far"), (here, "near")):
            await broker.subscribe(topic, lambda m: sleep(0.2))
        await heard(here, there)
        ended: dict[str, object] = {}

        async def ask(topic: str) -> None:
            try:
                ended[topic] = await here.request(topic, timeout=60)
            except BackendUnavailableError as error:
                ended[topic] = str(error)

        async with anyio.create_task_group() as group:
            group.start_soon(ask, "far")
            group.start_soon(ask, "near")
            await sleep(0.05)
            way.back()
        assert "the connection was lost while a reply from 'far' was due" in str(ended["far"])
        assert ended["near"] is None
        with anyio.fail_after(PATIENCE):
            while here.statistics().late != 1:
                await sleep(0.01)


async def test_a_directory_that_was_lost_is_filled_again_and_misleads_nobody():
    async with storm(3) as ((here, there, third), ways):
        await there.subscribe("echo", echo, group="g")
        await third.subscribe("echo", echo, group="g")
        await heard(here, there, third)
        await ways[0].lose_directory()
        for number in range(20):
            assert await here.request("echo", number) == number
        with anyio.fail_after(PATIENCE):
            while len((await ways[0].directory("brokers").snapshot()).members) < 3:
                await sleep(0.01)
        assert await here.request("echo", 1) == 1


def test_after_an_outage_a_request_waits_for_those_who_come_back():
    async def main() -> None:
        async with storm(2) as ((here, there), (way, _)):
            await there.subscribe("echo", echo)
            await heard(here, there)
            inbox = wrong(there)._exchange
            member, reader = inbox.member, wrong(way).memory.pubsub._channels
            lost = reader.pop(f"broker:{member}")  # nobody hears it: it is connecting anew
            way.back()
            async with anyio.create_task_group() as group:

                async def ask() -> None:
                    assert await here.request("echo", 1, timeout=5) == 1

                group.start_soon(ask)
                await sleep(0.5)
                reader[f"broker:{member}"] = lost
            reader.pop(f"broker:{member}")
            way.back()
            with pytest.raises(TimeoutExceededError):
                await here.request("echo", 1, timeout=0.5)
            await sleep(3)
            with pytest.raises(NoHandlersError):
                await here.request("echo", 1, timeout=5)
            reader[f"broker:{member}"] = lost

    simulate(main)


@pytest.mark.promise("messaging-broker-no-handlers")
def test_who_has_died_is_found_out_by_sending_and_the_next_gets_it():
    async def main() -> None:
        async with storm(4) as ((here, *others), (way, *_)):
            inboxes = [Inbox(n) for n in range(3)]
            for broker, inbox in zip(others, inboxes, strict=True):
                await broker.subscribe("topic", inbox, group="g")
            await others[0].subscribe("alone", Inbox("alone"))
            await heard(here, *others)
            reader = wrong(way).memory.pubsub._channels
            dead = [wrong(each)._exchange.member for each in others[:2]]
            kept = {f"broker:{each}": reader.pop(f"broker:{each}") for each in dead}
            for number in range(6):
                await here.publish("topic", number)
                await here.send("topic", number)
                assert await here.request("topic", number) == 2
            assert await inboxes[2].hold(18) is not None
            with pytest.raises(NoHandlersError):
                await here.request("alone")
            await here.publish("alone")  # lost, and no error
            third = f"broker:{wrong(others[2])._exchange.member}"
            kept[third] = reader.pop(third)
            with pytest.raises(NoHandlersError):
                await here.send("topic")
            await here.publish("topic")  # to nobody
            reader.update(kept)

    simulate(main)


def test_a_process_that_vanishes_ends_its_requests_and_is_forgotten():
    async def main() -> None:
        async with storm(2, grace=0) as ((here, there), (way, other)):
            await there.subscribe("stuck", lambda m: anyio.sleep_forever())
            await heard(here, there)
            other.hangs = True  # it renews no more: as if it were dead
            await other.memory.directory("brokers").snapshot()
            started = monotonic()
            with pytest.raises(RemoteError, match="has gone") as lost:
                await here.request("stuck", timeout=600)
            assert (lost.value.code, lost.value.retryable) == (LOST, True)
            assert 10 < monotonic() - started < 25
            assert here.statistics().peers == 0
            other.hangs = False
            await sleep(10)
            assert here.statistics().peers == 1
            assert way.error is None

    simulate(main)


def test_a_subscription_that_the_backend_does_not_take_is_an_error():
    async def main() -> None:
        async with storm(1) as ((here,), (way,)):
            way.outage()
            started = monotonic()
            with pytest.raises(BackendUnavailableError, match="within 5 s"):
                await here.subscribe("topic", echo)
            assert monotonic() - started == pytest.approx(CONFIRMED_WITHIN)
            assert here.statistics().subscriptions == 0
            way.back()

    simulate(main)


async def test_a_subscription_that_is_not_taken_is_undone():
    class Refusing:
        def __init__(self, presence: Any) -> None:
            self.presence = presence

        def __getattr__(self, name: str) -> Any:
            return getattr(self.presence, name)

        async def in_force(self, within: float) -> bool:
            return False

    async with storm(1) as ((here,), _):
        exchange = wrong(here)._exchange
        presence, exchange.presence = exchange.presence, Refusing(exchange.presence)
        with pytest.raises(BackendUnavailableError, match="'topic' within 5 s"):
            await here.subscribe("topic", echo)
        exchange.presence = presence
        assert here.statistics().subscriptions == 0


async def test_a_backend_that_is_away_at_the_opening_is_an_error():
    way = Stormy(MemoryBackend())
    way.outage()
    with pytest.raises(BackendUnavailableError, match="nobody answers"):
        async with Broker(wrong(way)):
            pass
    way.back()
    async with Broker(wrong(way)) as broker:
        way.outage()  # leaving needs nobody
        assert broker.statistics().peers == 0


@pytest.mark.real
@pytest.mark.promise("messaging-broker-restart")
async def test_redis_killed_and_restarted_under_load_lets_no_request_hang():
    ended: list[tuple[str, float]] = []
    stop = False

    async def caller(broker: Broker) -> None:
        while not stop:
            started = monotonic()
            try:
                assert await broker.request("echo", 17, timeout=2.0) == 17
                ended.append(("ok", monotonic() - started))
            except (BackendUnavailableError, TimeoutExceededError) as error:
                ended.append((type(error).__name__, monotonic() - started))

    with RedisServer(private=True) as server:
        async with Broker(server.url) as here, Broker(server.url) as there:
            await there.subscribe("echo", echo, group="g")
            await heard(here, there)
            async with anyio.create_task_group() as group:
                for _ in range(100):
                    group.start_soon(caller, here)
                await sleep(0.3)
                server.kill()
                await sleep(0.3)
                await anyio.to_thread.run_sync(server.restart)
                before = len(ended)
                with anyio.fail_after(PATIENCE):
                    while [each for each, _ in ended[before:]].count("ok") < 1_000:
                        await sleep(0.02)
                stop = True
            assert max(took for _, took in ended) < 2.0 + 3.0  # of a busy machine
            assert here.statistics().pending == 0
            assert await here.request("echo", 1) == 1


@pytest.mark.real
@pytest.mark.promise("messaging-broker-deadline")
async def test_a_redis_that_says_nothing_holds_no_request_past_its_deadline():
    with RedisServer(private=True) as server:
        async with Broker(server.url) as here, Broker(server.url) as there:
            await there.subscribe("echo", echo)
            await heard(here, there)
            server.pause()
            try:
                started = monotonic()
                for topic in ("echo", "nobody"):
                    with pytest.raises(TimeoutExceededError):
                        await here.request(topic, timeout=0.2)
                assert 0.4 <= monotonic() - started < 4.0
            finally:
                server.resume()
            assert await here.request("echo", 1) == 1


@pytest.mark.real
@pytest.mark.promise("messaging-broker-thousand")
async def test_a_thousand_callers_at_once_over_redis(redis_url):
    async with Broker(redis_url) as here, Broker(redis_url) as there:
        await there.subscribe("echo", echo, group="g")
        got = list[int]()

        async def ask(number: int) -> None:
            got.extend([await here.request("echo", number, timeout=30) for _ in range(2)])

        async with anyio.create_task_group() as group:
            for number in range(1_000):
                group.start_soon(ask, number)
        assert sorted(got) == sorted([*range(1_000), *range(1_000)])
        assert here.statistics().late == 0


CHILD = """
import sys, anyio
from aiopatterns.messaging import Broker
async def main():
    async with Broker(sys.argv[1]) as broker:
        await broker.subscribe("who", lambda message: int(sys.argv[2]), group="g")
        print("ready", flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


@pytest.mark.real
@pytest.mark.promise("messaging-broker-no-handlers")
async def test_a_killed_process_is_passed_over_at_once(redis_url):
    command = [sys.executable, "-c", CHILD, redis_url]
    children = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE) for number in range(2)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert await anyio.to_thread.run_sync(child.stdout.readline) == b"ready\n"
        async with Broker(redis_url) as broker:
            assert {await broker.request("who") for _ in range(4)} == {0, 1}
            children[0].kill()
            children[0].wait()
            with anyio.fail_after(PATIENCE):
                while True:  # the server has to notice the end of the connection
                    try:
                        if {await broker.request("who", timeout=0.2) for _ in range(4)} == {1}:
                            break
                    except TimeoutExceededError:
                        pass
            children[1].kill()
            children[1].wait()
            with anyio.fail_after(PATIENCE):
                while True:
                    try:
                        await broker.request("who", timeout=0.2)
                    except NoHandlersError:
                        break
                    except TimeoutExceededError:
                        pass
    finally:
        for child in children:
            child.kill()
            child.communicate()


@pytest.mark.real
async def test_hostile_bytes_in_the_inbox_stop_nothing(redis_url):
    async with Broker(redis_url) as broker, open_backend(redis_url) as backend:
        await broker.subscribe("echo", echo)
        inbox = f"broker:{wrong(broker)._exchange.member}"
        for data in (
            b"",
            b"\x00",
            b"\x01",
            b"\x01\x00\x01\x00\x00\x00\x01rest",
            b"\x02",
            b"\xff" * 50,
        ):
            await backend.pubsub.publish(inbox, data)
        assert await broker.request("echo", 1) == 1
        with anyio.fail_after(PATIENCE):
            while broker.statistics().refused < 5:
                await sleep(0.005)


# ------------------------------------------------------------------------------- every await


@pytest.mark.promise("messaging-broker-cancel")
def test_cancelled_anywhere_nothing_is_left():
    def scenario() -> Trial:
        backend = open_backend("memory://")
        here, there = Broker(backend, name="here", grace=1), Broker(backend, name="there", grace=1)

        async def work() -> None:
            async with here, there:
                async with await there.subscribe("topic", lambda m: sleep(0.01), group="g"):
                    await here.publish("topic", 1)
                    await here.send("topic", 2)
                    await here.request("topic", 3)
                with pytest.raises(NoHandlersError):
                    await here.request("topic", 4)

        def check() -> None:
            for broker in (here, there):
                statistics = broker.statistics()
                assert statistics.pending == 0
                assert not statistics.connected

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=15)


@pytest.mark.promise("messaging-broker-fail-everywhere")
def test_handlers_and_keys_that_fail_at_any_call_stop_nothing():
    def scenario(fault: Callable[[], None]) -> Trial:
        backend = open_backend("memory://")
        here, there = Broker(backend), Broker(backend)

        def key(message: Message) -> str:
            fault()
            return "k"

        async def handler(message: Message) -> Any:
            fault()
            await sleep(0.001)
            fault()
            return message.payload

        async def work() -> None:
            failed = 0
            async with here, there:
                one = await there.subscribe("topic", handler, key=key, group="g")
                for number in range(3):
                    await here.publish("topic", number)
                    try:
                        assert await here.request("topic", number) == number
                    except RemoteError as error:
                        assert error.type == InjectedError.__name__
                        failed += 1
            statistics = one.statistics()
            assert statistics.received == 6 == statistics.handled + statistics.failed
            assert failed <= statistics.failed <= 1

        return Trial(work())

    fail_everywhere(scenario, minimum=18)


@pytest.mark.promise("messaging-broker-seeds")
def test_every_message_is_accounted_for_under_many_seeds():
    async def main() -> None:
        backend = open_backend("memory://")
        async with Broker(backend) as one, Broker(backend) as two, Broker(backend) as three:
            made = (one, two, three)
            ended: list[object] = []

            async def handler(message: Message) -> Any:
                if message.payload % 7 == 0:
                    raise ValueError("seven")
                if message.payload % 3 == 0:
                    await sleep(0.001)
                return message.payload

            subscriptions = [
                await each.subscribe("topic.*", handler, group="g", concurrency=2, capacity=5)
                for each in made
            ]

            async def ask(broker: Broker, number: int) -> None:
                try:
                    assert await broker.request("topic.a", number, timeout=5) == number
                    ended.append(None)
                except (RemoteError, RejectedError) as error:
                    ended.append(error)

            async with anyio.create_task_group() as group:
                for number in range(30):
                    group.start_soon(ask, made[number % 3], number)
                    if number == 20:
                        group.start_soon(subscriptions[1].close)
            assert len(ended) == 30
            each = [subscription.statistics() for subscription in subscriptions]
            for one_of in each:
                assert one_of.received == (
                    one_of.handled + one_of.failed + one_of.dropped + one_of.expired
                    + one_of.cancelled + one_of.waiting + one_of.active
                )  # fmt: skip
            assert sum(one_of.handled + one_of.failed + one_of.dropped for one_of in each) == 30
            assert all(broker.statistics().pending == 0 for broker in made)

    explore(main, range(200))


async def test_a_subscription_that_closes_takes_what_comes_in_the_time_of_its_propagation(brokers):
    got: list[int] = []

    async def slow(message: Message) -> None:
        await sleep(0.01)
        got.append(message.payload)

    async with fleet(brokers, 1) as (broker,):
        place = await broker.subscribe("topic", slow, group="g", concurrency=1)
        number = place._number
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place.close, 0.2)
            await sleep(0.05)
            for payload in range(3):  # as of somebody who has not heard of it yet
                broker._exchange._offer(number, Message(type="t", topic="topic", payload=payload))
            assert got == []
        await place.quiet()
        assert got == [0, 1, 2]
        broker._exchange._offer(number, Message(type="t", topic="topic", payload=3))
        await place.quiet()
        assert got == [0, 1, 2]
        await place.close()
        with pytest.raises(ValueError, match="propagation"):
            await place.close(-1)


@pytest.mark.promise("messaging-broker-seeds")
def test_every_request_ends_while_brokers_come_and_go():
    async def storm() -> None:
        backend, places, ended = MemoryBackend(), list[Any](), 0

        async def handler(message: Message) -> object:
            await sleep(rng().random() * 0.02)
            if rng().random() < 0.1:
                raise ValueError("\udc80")
            return object() if rng().random() < 0.1 else message.payload

        async def serving() -> None:
            for _ in range(3):
                with suppress(InjectedError):
                    async with Broker(backend, grace=0.01) as broker:
                        options: dict[str, Any] = {
                            "overflow": rng().choice(("drop_old", "drop_new", "fail")),
                            "key": rng().choice((None, lambda m: m.key)),
                        }
                        async with await broker.subscribe(
                            "t.*", handler, group="g", concurrency=2, capacity=3, **options
                        ) as place:
                            places.append(place)
                            await sleep(rng().random() * 0.2)
                        if rng().random() < 0.5:
                            raise InjectedError

        async def asking(broker: Broker, number: int) -> None:
            nonlocal ended
            for payload in range(20):
                timeout, began = rng().choice((0.01, 0.1, 1.0)), monotonic()
                with suppress(RemoteError, NoHandlersError, TimeoutExceededError):
                    await broker.request(
                        f"t.{number}", payload, timeout=timeout, key="abc"[payload % 3]
                    )
                assert monotonic() <= began + timeout + 0.001
                ended += 1

        async with Broker(backend) as broker, anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(serving)
                group.start_soon(asking, broker, number)
        assert ended == 100
        assert broker.statistics().pending == 0
        for place in places:
            s = place.statistics()
            assert s.received == s.handled + s.failed + s.dropped + s.expired + s.cancelled
            assert s.waiting == s.active == 0

    explore(storm, range(40))
