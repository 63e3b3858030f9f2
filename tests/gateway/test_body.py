"""A request's body: read as it is needed, bounded, never cut off unseen."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.core.errors import RequestRefusedError
from aiopatterns.gateway.body import Body, ClientGoneError


class Messages:
    """A server that hands on these chunks; None for a client that goes away."""

    def __init__(self, *chunks: bytes | None) -> None:
        self.left = list(chunks)
        self.asked = 0

    async def __call__(self) -> dict[str, Any]:
        self.asked += 1
        chunk = self.left.pop(0)
        if chunk is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": bool(self.left)}


async def test_an_empty_body_is_known_to_be_empty():
    body = Body(None, 10)
    assert body.empty
    assert body.ended
    assert not body.started
    assert [chunk async for chunk in body] == []
    assert await body.buffer() == b""


@pytest.mark.promise("gateway-streams")
async def test_nothing_is_read_before_somebody_asks():
    receive = Messages(b"one", b"", b"two", b"")
    body = Body(receive, 10)
    told = []
    body.settled = lambda: told.append(receive.asked)
    assert not body.empty
    assert not body.started
    assert receive.asked == 0
    assert await anext(body) == b"one"
    assert body.started
    assert not body.ended
    assert receive.asked == 1
    assert await anext(body) == b"two"
    assert [chunk async for chunk in body] == []
    assert body.ended
    assert told == [4]
    assert [chunk async for chunk in body] == []


async def test_a_message_without_fields_is_the_end():
    async def receive():
        return {"type": "http.request"}

    assert await Body(receive, 10).buffer() == b""


@pytest.mark.promise("gateway-sizes")
async def test_the_bound_is_counted_while_streaming():
    body = Body(Messages(b"12345", b"67890", b"1"), 10)
    assert await anext(body) == b"12345"
    assert await anext(body) == b"67890"
    with pytest.raises(RequestRefusedError) as caught:
        await anext(body)
    assert caught.value.status == 413
    assert caught.value.headers == ((b"connection", b"close"),)


async def test_a_function_may_want_less():
    assert await Body(Messages(b"12345", b"678"), 10).buffer(8) == b"12345678"
    with pytest.raises(RequestRefusedError, match="413"):
        await Body(Messages(b"12345", b"6789"), 10).buffer(8)
    with pytest.raises(RequestRefusedError, match="413"):
        await Body(Messages(b"12345", b"678901"), 10).buffer(100)


@pytest.mark.promise("gateway-framing")
@pytest.mark.parametrize("chunks", [(b"1234",), (b"1234", b""), (b"123456",), (b"12345", b"6")])
async def test_a_body_is_as_long_as_it_said(chunks):
    with pytest.raises(RequestRefusedError) as caught:
        await Body(Messages(*chunks), 10, 5).buffer()
    assert caught.value.status in {400, 413}
    assert await Body(Messages(b"12", b"345"), 10, 5).buffer() == b"12345"


async def test_a_client_that_goes_away_is_no_end():
    body = Body(Messages(b"123", None), 10)
    assert await anext(body) == b"123"
    with pytest.raises(ClientGoneError):
        await anext(body)
    assert not body.ended
