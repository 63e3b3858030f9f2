"""The stages of a route in their order, and how their errors become answers."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from aiopatterns.core.errors import (
    CircuitOpenError,
    ClosedError,
    NoEndpointError,
    RequestRefusedError,
    TimeoutExceededError,
)
from aiopatterns.core.rate import Rate
from aiopatterns.gateway.app import Gateway
from aiopatterns.gateway.auth import APIKeyAuth
from aiopatterns.gateway.plan import answer_to, is_failure
from aiopatterns.gateway.policy import HttpCache, Identity, RoutePolicy
from aiopatterns.gateway.request import Request, Response
from aiopatterns.gateway.routing import Route
from tests.gateway.memory import Answer, MemoryTransport, answering, ask, failing

KEY = (b"x-api-key", b"secret-key")
FRESH = [(b"cache-control", b"public, max-age=60")]


class Slow:
    """Authentication that always has to look."""

    name = "Slow"
    header = b"authorization"

    def recall(self, request: Request) -> Identity | None:
        return None

    async def verify(self, request: Request) -> Identity:
        if request.header(b"authorization") is None:
            raise RequestRefusedError("who are you", status=401)
        return Identity("ann", {}, "jwt")


async def served(route: Route, *asked: dict[str, Any], answers: Any = None):
    transport = MemoryTransport(answering(*(answers or [Answer(200, FRESH, b"hello")])))
    async with Gateway([route], transport=transport) as door:
        replies = [await ask(door, each.pop("method", "GET"), "/", **each) for each in asked]
    return replies, transport


@pytest.mark.parametrize(
    "auth", [APIKeyAuth({"ann": "secret-key"}), Slow()], ids=["known", "looked at"]
)
@pytest.mark.parametrize("rate", [None, Rate(100)], ids=["free", "limited"])
async def test_who_it_is_comes_first(auth, rate):
    route = Route("/", to="http://s", auth=auth, policy=RoutePolicy(rate_limit=rate))
    replies, transport = await served(
        route, {}, {"headers": [KEY, (b"authorization", b"x"), (b"x-user-id", b"admin")]}
    )
    assert [each.status for each in replies] == [401, 200]
    assert b"ratelimit-remaining" not in replies[0].headers
    assert (b"ratelimit-remaining" in replies[1].headers) == (rate is not None)
    assert len(transport.sent) == 1
    assert [v for n, v in transport.sent[0].headers if n == b"x-user-id"] == [b"ann"]


async def test_who_asks_too_often_gets_nothing_not_even_from_the_cache():
    policy = RoutePolicy(rate_limit=Rate(2, per=3600), cache=HttpCache())
    replies, transport = await served(Route("/", to="http://s", policy=policy), {}, {}, {})
    assert [each.status for each in replies] == [200, 200, 429]
    assert b"retry-after" in replies[2].headers
    assert len(transport.sent) == 1
    assert b"age" in replies[1].headers
    assert replies[1].headers[b"ratelimit-remaining"] == b"0"


async def test_answers_from_the_cache_are_cleaned_like_others():
    answers = [
        Answer(200, [*FRESH, (b"connection", b"x-hop"), (b"x-hop", b"1"), (b"server", b"s")], b"hi")
    ]
    route = Route("/", to="http://s", policy=RoutePolicy(cache=HttpCache()))
    replies, _ = await served(route, {}, {"headers": [(b"x-request-id", b"two")]}, answers=answers)
    for reply in replies:
        assert reply.body == b"hi"
        assert not {b"connection", b"x-hop", b"server", b"date"} & set(reply.headers)
        assert len(reply.pairs) == len(reply.headers)
    assert replies[1].headers[b"x-request-id"] == b"two"


async def test_a_change_by_another_route_forgets_what_is_kept():
    transport = MemoryTransport(
        answering(Answer(200, FRESH, b"old"), Answer(204), Answer(200, FRESH, b"new"))
    )
    routes = [
        Route("/", to="http://s", methods=["GET"], policy=RoutePolicy(cache=HttpCache())),
        Route("/", to="http://s"),
    ]
    async with Gateway(routes, transport=transport) as door:
        assert (await ask(door)).body == b"old"
        assert (await ask(door)).body == b"old"
        assert (await ask(door, "POST")).status == 204
        assert (await ask(door)).body == b"new"
        assert door.statistics().caches["/"].hits == 1


@pytest.mark.promise("gateway-functions")
async def test_a_function_answers():
    async def mapping(request: Request) -> Any:
        return {
            "path": request.path,
            "client": request.client,
            "body": (await request.body.buffer()).decode(),
        }

    async def response(request: Request) -> Response:
        return Response(201, [(b"connection", b"close"), (b"x", b"y")], b"made")

    replies, _ = await served(Route("/", to=mapping), {"method": "POST", "body": [b"a", b"b"]})
    assert json.loads(replies[0].body) == {"path": "/", "client": "9.9.9.9", "body": "ab"}
    assert replies[0].headers[b"content-type"] == b"application/json"
    replies, _ = await served(Route("/", to=response), {}, {"method": "HEAD"})
    assert [(each.status, each.body) for each in replies] == [(201, b"made"), (201, b"")]
    assert replies[0].pairs[0] == (b"x", b"y")
    assert b"connection" not in replies[0].headers


@pytest.mark.promise("gateway-statuses")
@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (RequestRefusedError("no", status=418, headers=[(b"a", b"b")]), 418, {b"a": b"b"}),
        (RequestRefusedError(status=403), 403, {}),
        (failing("connect"), 502, {}),
        (failing("closed", sent=True), 502, {}),
        (failing("invalid", sent=True), 502, {}),
        (failing("timeout", sent=True), 504, {}),
        (TimeoutExceededError(timeout=1), 504, {}),
        (CircuitOpenError(name="10.0.0.7:80", retry_after=4.2), 503, {b"retry-after": b"5"}),
        (CircuitOpenError(name="10.0.0.7:80", retry_after=0.0), 503, {b"retry-after": b"1"}),
        (CircuitOpenError(name="x", retry_after=math.inf), 503, {b"retry-after": b"1"}),
        (CircuitOpenError(name="x", retry_after=1e9), 503, {b"retry-after": b"3600"}),
        (
            NoEndpointError("all 3 at 10.0.0.7 are excluded", name="users"),
            503,
            {b"retry-after": b"1"},
        ),
        (ClosedError("Transport 'x' is not open"), 503, {b"retry-after": b"1"}),
        (ValueError("10.0.0.7"), 500, {}),
        (TimeoutError("10.0.0.7"), 500, {}),
    ],
    ids=range(15),
)
async def test_errors_become_answers_that_tell_nothing(error, status, headers):
    response = answer_to(error)
    assert response.status == status
    assert headers.items() <= dict(response.headers).items()
    assert isinstance(response.body, bytes)
    for secret in (b"10.0.0.7", b"users", b"there", b"Transport"):
        assert secret not in response.body
    assert is_failure(error) == (status == 500)

    async def broken(request: Request) -> Any:
        raise error

    replies, _ = await served(Route("/", to=broken), {})
    assert replies[0].status == status
