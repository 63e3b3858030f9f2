"""Calls of the gateway's own go the way of requests, and carry what they are part of."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.context import bind_correlation, remaining
from aiopatterns.core.errors import (
    ClosedError,
    RequestRefusedError,
    TimeoutExceededError,
    UpstreamError,
)
from aiopatterns.flow.gathering import scatter_gather
from aiopatterns.gateway.app import Gateway
from aiopatterns.gateway.auth import APIKeyAuth
from aiopatterns.gateway.policy import Limits, RoutePolicy, Timeouts
from aiopatterns.gateway.request import Request
from aiopatterns.gateway.routing import Route
from aiopatterns.testing import simulate
from tests.gateway.memory import (
    Answer,
    Client,
    Handler,
    MemoryTransport,
    answering,
    ask,
    body_of,
    failing,
)

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def gateway(handler: Handler, *routes: Route, **rest: Any) -> Gateway:
    return Gateway(routes, transport=MemoryTransport(handler), **rest)


def sent(door: Gateway) -> Any:
    transport: Any = door._transport
    return transport.sent


async def test_a_call_gets_the_whole_answer():
    hops = [(b"connection", b"x-hop"), (b"x-hop", b"1"), (b"etag", b"1")]
    async with gateway(answering(Answer(201, hops, [b"a", b"b"]), Answer(200, (), b"c"))) as door:
        response = await door.fetch(
            "http://s:8/base", "/x?y=1", method="PUT", headers=[(b"a", b"b")], body=b"hi"
        )
        assert (response.status, response.body, response.headers) == (201, b"ab", [(b"etag", b"1")])
        assert (await door.fetch("http://s:8/base")).body == b"c"
    first, second = sent(door)
    assert (first.method, first.port, first.target) == (b"PUT", 8, b"/base/x?y=1")
    assert (first.body, first.length) == (b"hi", 2)
    assert second.target == b"/base/"
    values = dict(first.headers)
    assert values[b"a"] == b"b"
    assert len(values[b"x-request-id"]) == 24


async def test_a_body_that_is_not_held_is_sent_all_the_same():
    received = []

    async def handler(outgoing):
        received.append(await body_of(outgoing))
        return Answer()

    async with gateway(handler) as door:
        await door.fetch("http://s", method="POST", body=b"hi")
    assert received == [b"hi"]


@pytest.mark.promise("gateway-functions")
async def test_a_call_on_behalf_of_a_request_carries_it():
    async def page(request: Request) -> Any:
        await door.fetch("http://s", "/x", headers=[(b"tracestate", b"mine")], on_behalf_of=request)
        left = remaining()
        return {"id": request.correlation_id, "left": left is not None and 0 < left <= 60}

    route = Route("/", to=page, auth=APIKeyAuth({"ann": "secret-key"}))
    async with gateway(answering(Answer()), route) as door:
        headers = [
            (b"x-api-key", b"secret-key"),
            (b"x-request-id", b"one"),
            (b"traceparent", TRACE),
            (b"tracestate", b"theirs"),
            (b"cookie", b"private"),
        ]
        reply = await Client("GET", "/", headers=headers).ask(door)
    assert json.loads(reply.body) == {"id": "one", "left": True}
    values = dict(sent(door)[0].headers)
    assert values[b"x-request-id"] == b"one"
    assert values[b"x-user-id"] == b"ann"
    assert values[b"x-forwarded-for"] == b"9.9.9.9"
    assert values[b"x-forwarded-host"] == b"shop"
    assert values[b"traceparent"].startswith(TRACE[:36])
    assert values[b"tracestate"] == b"mine"
    assert b"cookie" not in values


@pytest.mark.promise("gateway-functions")
async def test_a_page_of_several_services_with_what_is_to_be_had():
    async def handler(outgoing):
        if outgoing.host == "down":
            raise failing()
        return Answer(200, (), outgoing.target)

    async def page(request: Request) -> Any:
        found = await scatter_gather(
            {
                name: partial(door.fetch, f"http://{name}", f"/{name}", on_behalf_of=request)
                for name in ("users", "down", "orders")
            }
        )
        parts = {name: each.content.decode() for name, each in found.values.items()}
        return {"parts": parts, "missing": [*found.errors]}

    async with gateway(handler, Route("/", to=page), defaults=RoutePolicy(retry=None)) as door:
        reply = await ask(door)
    assert json.loads(reply.body) == {
        "parts": {"users": "/users", "orders": "/orders"},
        "missing": ["down"],
    }


async def test_a_call_without_a_request_carries_what_is_bound():
    async with gateway(answering(Answer())) as door:
        with bind_correlation("bound"):
            await door.fetch("http://s")
    assert dict(sent(door)[0].headers)[b"x-request-id"] == b"bound"


async def test_what_a_call_may_not_be():
    async with gateway(answering(Answer(200, (), b"x"))) as door:
        for target in ("/a/../b", "no-slash", "/a?b c"):
            with pytest.raises(RequestRefusedError):
                await door.fetch("http://s", target)
        with pytest.raises(ValueError, match="method must be a name in upper case, not 'get'"):
            await door.fetch("http://s", method="get")
        with pytest.raises(ValueError, match="registry must be given for the service 'users'"):
            await door.fetch("users")
        with pytest.raises(ValueError, match="to must be a base URL"):
            await door.fetch("ftp://s")
    with pytest.raises(ClosedError):
        await door.fetch("http://s")


async def test_an_answer_that_is_too_large_is_none():
    answer = Answer(200, (), [b"x" * 10] * 100)
    async with gateway(answering(answer), limits=Limits(max_body=25)) as door:
        with pytest.raises(UpstreamError, match="larger than 25 bytes"):
            await door.fetch("http://s")
    assert (answer.read, answer.closed) == (3, 1)


def test_a_call_has_the_total_timeout_of_the_defaults():
    async def scenario() -> None:
        async def handler(outgoing):
            await sleep(10)
            return Answer(200, (), b"late")

        for total, late in [(5.0, True), (None, False)]:
            policy = RoutePolicy(timeouts=Timeouts(total=total))
            async with gateway(handler, defaults=policy) as door:
                if late:
                    with pytest.raises(TimeoutExceededError):
                        await door.fetch("http://s")
                else:
                    assert (await door.fetch("http://s")).body == b"late"

    simulate(scenario)


async def test_targets_that_are_remembered_are_bounded():
    async with gateway(answering(Answer())) as door:
        for n in range(300):
            await door.fetch(f"http://s{n}")
        assert len(door.statistics().endpoints) == 256
