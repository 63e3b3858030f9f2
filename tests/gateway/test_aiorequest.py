from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aiopatterns.gateway.aioclient import open_session, words
from tests.gateway.services import OK, Service, answering

pytestmark = pytest.mark.real

HOST = [(b"host", b"shop.test")]


async def chunks() -> AsyncIterator[bytes]:
    yield b"hello"


async def asked(method: str, headers: list[tuple[bytes, bytes]], body: object) -> bytes:
    async with Service(answering(OK)) as service, open_session(4, 30.0, None) as session:
        url = f"http://127.0.0.1:{service.port}/"
        async with session.request(method, url, headers=words(headers), data=body) as answer:
            assert answer.status == 200
        return service.heads[0]


@pytest.mark.parametrize(
    ("method", "body", "framing"),
    [
        ("GET", None, b""),
        ("GET", b"hello", b"Content-Length: 5\r\n"),
        ("DELETE", None, b"Content-Length: 0\r\n"),
        ("POST", None, b"Content-Length: 0\r\n"),
        ("PATCH", b"hello", b"Content-Length: 5\r\n"),
    ],
)
async def test_the_client_adds_its_framing_alone(method: str, body: object, framing: bytes):
    head = await asked(method, HOST, body)
    assert head == f"{method} / HTTP/1.1\r\nhost: shop.test\r\n".encode() + framing + b"\r\n"


async def test_nor_to_a_body_that_is_streamed():
    head = await asked("POST", HOST, chunks())
    assert head == b"POST / HTTP/1.1\r\nhost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_what_is_given_is_sent():
    given = [*HOST, (b"user-agent", b"me"), (b"accept", b"a/b"), (b"content-type", b"x/y")]
    head = await asked("PUT", given, b"hello")
    assert b"user-agent: me\r\naccept: a/b\r\ncontent-type: x/y\r\n" in head
