"""The service: handlers under a name; what they get, who gets it, one contract on both backends."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from aiopatterns import (
    Broker,
    Bulkhead,
    ClosedError,
    NoHandlersError,
    RejectedError,
    RemoteError,
    Retry,
    Service,
    Timeout,
    TimeoutExceededError,
)
from aiopatterns.backends import open_backend
from aiopatterns.core.clock import sleep
from aiopatterns.core.context import bind_correlation, correlation_id, deadline
from aiopatterns.messaging import Context, ServiceState, command, event, every, query
from aiopatterns.messaging.callplan import BAD_PAYLOAD
from aiopatterns.messaging.remote import LOST

PATIENCE = 20.0


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


@dataclass
class Wanted:
    id: int


@dataclass
class User:
    id: int
    name: str


class UnknownUserError(LookupError):
    code = "unknown_user"


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
def brokers(request):
    """Return a function that makes brokers as of several processes."""
    if request.param == "memory":
        backend = open_backend("memory://")
        return lambda **options: Broker(backend, **options)
    url = request.getfixturevalue("redis_url")
    return lambda **options: Broker(url, **options)


async def until(condition: Any) -> None:
    """Wait until ``condition()`` is true."""
    with anyio.fail_after(PATIENCE):
        while not condition():
            await sleep(0.002)


def known(*brokers: Broker) -> Any:
    """Whether brokers know each other."""
    return lambda: all(each.statistics().peers >= len(brokers) - 1 for each in brokers)


def users_service() -> Service:
    """Answers who somebody is."""
    users = Service("users", version="1.2.0")

    @users.query("user.get")
    async def get_user(wanted: Wanted) -> User:
        if wanted.id != 17:
            raise UnknownUserError(f"no user {wanted.id}")
        return User(17, "Ann")

    return users


@pytest.mark.promise("messaging-service-conformance")
async def test_a_query_is_answered_from_another_process(brokers):
    async with brokers() as here, brokers() as there:
        async with users_service().run(there):
            assert await here.request("user.get", {"id": 17}) == {"id": 17, "name": "Ann"}
            with pytest.raises(RemoteError) as caught:
                await here.request("user.get", {"id": 18})
            error = caught.value
            assert (error.type, error.code, error.retryable) == (
                "UnknownUserError",
                "unknown_user",
                False,
            )
        with pytest.raises(NoHandlersError):
            await here.request("user.get", {"id": 17})


@pytest.mark.promise("messaging-service-conformance")
async def test_services_ask_tell_and_hear_each_other(brokers):
    orders, mail, sent = Service("orders"), Service("mail"), list[dict[str, Any]]()

    @orders.command("order.create")
    async def create(ctx: Context, order: dict[str, Any]) -> dict[str, Any]:
        user = await ctx.request("user.get", {"id": order["user"]})
        await ctx.publish("order.created", {"user": user["name"]})
        await ctx.send("mail.count", 1)
        return {"for": user["name"]}

    @mail.event("order.*")
    async def note(ctx: Context, event: dict[str, str]) -> None:
        assert ctx.message is not None
        sent.append({"topic": ctx.message.topic, "by": ctx.correlation_id, **event})

    @mail.command("mail.count")
    async def count(ctx: Context, by: int) -> None:
        sent.append({"by": ctx.correlation_id, "count": by})

    async with brokers() as one, brokers() as two, brokers() as three, brokers() as customer:
        async with users_service().run(one), orders.run(two), mail.run(three):
            await until(known(one, two, three, customer))
            with bind_correlation("request-7"):
                reply = await customer.request("order.create", {"user": 17})
            assert reply == {"for": "Ann"}
            await until(lambda: len(sent) == 2)
            assert {"topic": "order.created", "by": "request-7", "user": "Ann"} in sent
            assert {"by": "request-7", "count": 1} in sent
            with pytest.raises(RemoteError) as caught:
                await customer.request("order.create", {"user": 18})
            assert caught.value.code == "unknown_user"  # through the service between


@pytest.mark.promise("messaging-service-conformance")
async def test_one_replica_gets_each_and_every_handler_of_a_service_its_own(brokers):
    seen: list[tuple[str, str, int]] = []

    def replica(name: str) -> Service:
        audit = Service("audit")

        @audit.event("order.*")
        async def first(number: int) -> None:
            seen.append(("first", name, number))

        @audit.event("order.created")
        async def second(number: int) -> None:
            seen.append(("second", name, number))

        return audit

    async with brokers() as one, brokers() as two, brokers() as shop:
        async with replica("a").run(one), replica("b").run(two):
            await until(known(one, two, shop))
            await sleep(0.05)
            for number in range(20):
                await shop.publish("order.created", number)
            await until(lambda: len(seen) >= 40)
    for handler in ("first", "second"):
        assert sorted(n for which, _, n in seen if which == handler) == list(range(20))
    assert {name for _, name, _ in seen} == {"a", "b"}


@pytest.mark.promise("messaging-service-payload")
@pytest.mark.parametrize(
    "payload", [None, 17, "x", [], {}, {"id": "17"}, {"id": None}, b"\xff", {"id": {"$gt": 0}}]
)
async def test_a_payload_that_does_not_fit_is_told_and_the_handler_is_not_called(brokers, payload):
    async with brokers() as broker, users_service().run(broker, propagation=0) as run:
        with pytest.raises(
            RemoteError, match="not what 'get_user' of service 'users' takes"
        ) as why:
            await broker.request("user.get", payload)
        assert (why.value.type, why.value.code, why.value.retryable) == (
            "CodecError",
            BAD_PAYLOAD,
            False,
        )
        assert (await broker.request("user.get", {"id": 17}))["name"] == "Ann"
        figures = run.statistics().handlers["get_user"]
        assert (figures.calls, figures.done, figures.failed) == (2, 1, 1)
