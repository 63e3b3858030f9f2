"""What of a request goes on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from aiopatterns.gateway.framing import framed
from aiopatterns.gateway.transport import Outgoing


def outgoing(**changes: Any) -> Outgoing:
    fields: dict[str, Any] = {
        "method": b"GET",
        "host": "127.0.0.1",
        "port": 80,
        "tls": False,
        "target": b"/a?b=c",
        "headers": [(b"host", b"shop.test"), (b"x-a", b"1")],
    }
    return Outgoing(**fields | changes)


async def chunks() -> AsyncIterator[bytes]:
    yield b"never read"


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, b"\r\n\r\n"),
        ({"method": b"POST"}, b"\r\ncontent-length: 0\r\n\r\n"),
        ({"method": b"PUT", "body": b"xyz", "length": 9}, b"\r\ncontent-length: 3\r\n\r\nxyz"),
        ({"body": b""}, b"\r\ncontent-length: 0\r\n\r\n"),
        ({"method": b"PATCH", "body": chunks(), "length": 7}, b"\r\ncontent-length: 7\r\n\r\n"),
        ({"method": b"POST", "body": chunks()}, b"\r\ntransfer-encoding: chunked\r\n\r\n"),
    ],
)
def test_a_body_is_framed_by_what_is_known_of_it(changes: dict[str, Any], end: bytes) -> None:
    request = outgoing(**changes)
    head = request.method + b" /a?b=c HTTP/1.1\r\nhost: shop.test\r\nx-a: 1"
    assert framed(request) == head + end


@pytest.mark.parametrize(
    "changes",
    [
        {"target": b"/a b"},
        {"target": b""},
        {"target": b"/a\r\nx: y"},
        {"target": "/é".encode()},
        {"headers": [(b"host", b"a\r\nx: y")]},
        {"headers": [(b"host", b"a\nx: y")]},
        {"headers": [(b"host", b"a"), (b"x", b"y\r")]},
        {"headers": [(b"x\r\ny", b"z"), (b"host", b"a")]},
    ],
)
def test_a_head_that_could_be_two_does_not_leave(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a request's head may have no line break"):
        framed(outgoing(**changes))
