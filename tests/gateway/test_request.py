"""Requests and answers as stages see them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aiopatterns.gateway.request import Request, Response
from tests.gateway.memory import Answer


def test_headers_of_a_request():
    made = Request(
        "GET", b"/caf%C3%A9", b"q=1", [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")], path="/café"
    )
    assert (made.method, made.path, made.raw_path, made.query) == (
        "GET",
        "/café",
        b"/caf%C3%A9",
        b"q=1",
    )
    assert made.header(b"a") == b"1"
    assert made.header(b"c") is None
    assert made.header_list(b"a") == b"1, 3"
    assert made.header_list(b"b") == b"2"
    assert made.header_list(b"c") is None
    assert repr(made) == "Request('GET', '/café')"
    assert Request("GET", b"/a", b"", []).path == "/a"


def test_the_same_request_with_other_headers():
    made = Request("GET", b"/", b"", [(b"a", b"1")])
    made.client = "9.9.9.9"
    other = made.with_headers([(b"b", b"2")])
    assert (other.header(b"a"), other.header(b"b")) == (None, b"2")
    assert (made.header(b"a"), made.header(b"b")) == (b"1", None)
    assert other.client == "9.9.9.9"


def value(response: Response) -> Any:
    return json.loads(response.content)


async def test_answers_that_are_made():
    made = Response.json({"a": [1, "é"]}, 201)
    assert (made.status, value(made)) == (201, {"a": [1, "é"]})
    assert dict(made.headers) == {b"content-type": b"application/json", b"content-length": b"14"}
    text = Response.text("hé")
    assert (text.status, text.body) == (200, "hé".encode())
    assert dict(text.headers)[b"content-length"] == b"3"
    bare = Response(204)
    assert (bare.headers, bare.body) == ([], b"")
    await bare.aclose()


@pytest.mark.promise("gateway-statuses")
def test_an_error_says_no_more_than_its_reason():
    made = Response.error(404, "there is nothing here", [(b"allow", b"GET")])
    assert value(made) == {"title": "there is nothing here", "status": 404}
    assert dict(made.headers)[b"content-type"] == b"application/problem+json"
    assert made.headers[-1] == (b"allow", b"GET")


async def test_a_streamed_answer_is_closed():
    answer = Answer(200, (), [b"a"])
    with pytest.raises(TypeError, match="the body is streamed"):
        _ = Response(200, [], answer).content
    assert Response(200, [], b"a").content == b"a"
    await Response(200, [], answer).aclose()
    assert answer.closed == 1
