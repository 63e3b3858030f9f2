"""Requests as the cache looks at them, and the answers it gives."""

from __future__ import annotations

import pytest

from aiopatterns.gateway.body import Body
from aiopatterns.gateway.cacheanswer import HIT, KEPT, Ask, given, kept_headers, related
from aiopatterns.gateway.cachecontrol import fields_of
from aiopatterns.gateway.cacherules import terms
from aiopatterns.gateway.cachestock import Stored
from aiopatterns.gateway.policy import Identity
from aiopatterns.gateway.request import Request, Response
from aiopatterns.gateway.routing import Route


def ask(method: str = "GET", **headers: bytes) -> Request:
    named = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    request = Request(method, b"/api/page", b"q=1", [(b"host", b"shop:81"), *named])
    request.host = "shop"
    request.body = Body(None, 0)
    request.route = Route("/api", to="http://shop")
    return request


async def forward(_: Request) -> Response:
    return Response(200)


def headerless(_: bytes) -> bytes | None:
    return None


def stored(status: int = 200) -> Stored:
    headers = [(b"cache-control", b"max-age=60"), (b"etag", b'"1"'), (b"content-type", b"x")]
    found = terms(status, fields_of(headers), asked={}, personal=False, now=0.0, delay=0.0)
    assert found is not None
    address = ("http", b"shop", b"/", b"")
    return Stored(address, status, headers, b"page", terms=found, came_at=0.0, header=headerless)


def test_what_a_request_asks_for():
    plain = Ask(ask(cache_control=b"max-age=5"), forward)
    assert plain.address == ("http", b"shop:81", b"/api/page", b"q=1")
    assert plain.asked == {b"max-age": 5}
    assert not plain.personal
    assert not plain.apart
    assert not plain.conditional


def test_the_host_that_a_trusted_proxy_tells_is_the_one_that_counts():
    request = ask(x_forwarded_host=b"public")
    assert Ask(request, forward).address[1] == b"shop:81"
    request.trusted = True
    assert Ask(request, forward).address[1] == b"public"


def test_who_says_who_he_is():
    assert Ask(ask(authorization=b"x"), forward).personal
    request = ask()
    request.identity = Identity("ann", {}, "key")
    assert Ask(request, forward).personal


@pytest.mark.parametrize("name", [b"range", b"if-range", b"if-match", b"if-unmodified-since"])
def test_requests_apart(name):
    request = ask().with_headers([(b"host", b"shop"), (name, b"x")])
    assert Ask(request, forward).apart


def test_the_question_whether_it_still_holds():
    request = ask(if_none_match=b'"mine"', if_modified_since=b"x", accept=b"a")
    about = Ask(request, forward).about(stored())
    assert about.headers == [(b"host", b"shop:81"), (b"accept", b"a"), (b"if-none-match", b'"1"')]
    assert about.route is request.route
    assert Ask(request, forward).about(None) is request
    assert Ask(request, forward).conditional


def test_answers_from_stock():
    whole = given(stored(), ask(), 7.9, HIT)
    assert (whole.status, whole.body) == (200, b"page")
    assert whole.headers[-2:] == [(b"age", b"7"), HIT]
    head = given(stored(), ask("HEAD"), 0.0, KEPT)
    assert (head.status, head.body) == (200, b"")
    same = given(stored(), ask(if_none_match=b'"1"'), 0.0, HIT)
    assert (same.status, same.body) == (304, b"")
    assert [name for name, _ in same.headers] == [
        b"cache-control",
        b"etag",
        b"age",
        b"cache-status",
    ]
    assert given(stored(), ask(if_none_match=b'"2"'), 0.0, HIT).status == 200
    assert given(stored(404), ask(if_none_match=b'"1"'), 0.0, HIT).status == 404


def test_headers_as_they_are_kept():
    headers = [
        (b"connection", b"x-hop"),
        (b"x-hop", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"age", b"4"),
        (b"content-length", b"9"),
        (b"x-request-id", b"first"),
        (b"date", b"today"),
        (b"etag", b'"1"'),
    ]
    kept = [(b"date", b"today"), (b"etag", b'"1"')]
    assert kept_headers(Response(200, headers), b"page") == [*kept, (b"content-length", b"4")]
    assert kept_headers(Response(204, headers), b"") == kept


def test_what_a_change_is_about():
    own = ("http", b"shop:81", b"/api/page", b"q=1")
    assert [*related(ask("POST"), None)] == [own]
    response = Response(201, [(b"content-location", b"http://shop:81/api/x?y=2"), (b"a", b"/b")])
    assert [*related(ask("POST"), response)] == [own, ("http", b"shop:81", b"/api/x", b"y=2")]
    request = ask("POST")
    request.route = Route("/api", to="http://shop", strip_prefix=True)
    found = [*related(request, Response(201, [(b"location", b"/x")]))]
    assert [path for _, _, path, _ in found] == [b"/api/page", b"/x", b"/api/x"]
