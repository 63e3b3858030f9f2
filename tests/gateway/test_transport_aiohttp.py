"""What the transport over aiohttp alone does; what all do stands in test_transport.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from aiopatterns.gateway.aioresponse import StrictResponse
from aiopatterns.gateway.policy import Timeouts
from aiopatterns.gateway.transport import Outgoing, TransportStatistics
from aiopatterns.gateway.transport_aiohttp import AiohttpTransport
from tests.gateway.services import OK, Service, Visit, answering

pytestmark = pytest.mark.real

HEAD = b"HTTP/1.1 200 OK\r\n"


def outgoing(service: Service, **changes: Any) -> Outgoing:
    fields: dict[str, Any] = {"method": b"GET", "host": "127.0.0.1", "port": service.port}
    fields |= {"tls": False, "target": b"/", "headers": [(b"host", b"shop.test")]}
    return Outgoing(**fields | changes)


async def test_octets_that_are_no_utf8_go_as_that_of_their_latin1_reading():
    async with Service(answering(OK)) as service, AiohttpTransport() as transport:
        headers = [(b"host", b"shop.test"), (b"x-raw", b"\xff"), (b"x-text", "é".encode())]
        incoming = await transport.send(outgoing(service, headers=headers), Timeouts())
        await incoming.aclose()
        assert b"x-raw: \xc3\xbf\r\n" in service.heads[0]
        assert "x-text: é\r\n".encode() in service.heads[0]


async def test_it_does_not_tell_what_the_client_keeps_to_itself():
    async with Service(answering(OK)) as service, AiohttpTransport() as transport:
        incoming = await transport.send(outgoing(service), Timeouts())
        await incoming.aclose()
        assert transport.statistics() == TransportStatistics(requests=1, failed=0)


async def test_cookies_redirects_and_codings_pass_through():
    answer = (
        b"HTTP/1.1 302 Found\r\nlocation: /next\r\nset-cookie: a=b\r\n"
        b"content-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello"
    )
    async with Service(answering(answer)) as service, AiohttpTransport() as transport:
        for _ in range(2):
            incoming = await transport.send(outgoing(service), Timeouts())
            assert incoming.status == 302
            assert (b"set-cookie", b"a=b") in incoming.headers
            assert b"".join([chunk async for chunk in incoming]) == b"hello"
        assert b"cookie" not in service.heads[1]


async def test_a_body_that_breaks_just_as_the_head_comes_keeps_its_error(
    monkeypatch: pytest.MonkeyPatch,
):
    headed = asyncio.Event()
    start = StrictResponse.start

    async def slow(self: StrictResponse, connection: Any) -> StrictResponse:
        await start(self, connection)
        headed.set()
        await anyio.sleep(0.01)  # the body breaks before anybody has the answer
        return self

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        await headed.wait()
        raise LookupError("the client has gone")

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(HEAD + b"content-length: 9\r\n\r\nhello")
        await visit.ended()

    monkeypatch.setattr(StrictResponse, "start", slow)
    async with Service(script) as service, AiohttpTransport() as transport:
        request = outgoing(service, method=b"POST", body=broken(), length=9)
        with pytest.raises(LookupError, match="the client has gone"):
            incoming = await transport.send(request, Timeouts())
            async for _ in incoming:
                pass
        await service.closed()
