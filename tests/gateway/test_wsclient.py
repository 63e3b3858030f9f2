"""WebSockets end to end: a client, a server of ASGI, the gateway, each transport, a service."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from aiopatterns.core.errors import UpstreamError
from aiopatterns.gateway import (
    AiohttpTransport,
    APIKeyAuth,
    FastTransport,
    Gateway,
    Outgoing,
    Route,
    RoutePolicy,
    Timeouts,
    Transport,
)
from aiopatterns.gateway.door import door as bounded
from aiopatterns.gateway.wsclient import MAX_MESSAGE
from tests.gateway.services import Service, Visit, answering

pytestmark = pytest.mark.real

Maker = Callable[[], Transport]
Handler = Callable[[ServerConnection], Awaitable[None]]


@pytest.fixture(params=[AiohttpTransport, FastTransport], ids=["aiohttp", "fast"])
def make(request: pytest.FixtureRequest) -> Maker:
    maker: Maker = request.param
    return maker


async def echo(visit: ServerConnection) -> None:
    async for message in visit:
        await visit.send(message)


@asynccontextmanager
async def service(handler: Handler = echo, **options: Any) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, close_timeout=0.2, **options) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def door(gateway: Gateway) -> AsyncIterator[str]:
    """The gateway behind uvicorn and its own protocol of HTTP, in this loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        gateway,
        http=bounded(gateway.limits),
        log_level="error",
        lifespan="on",
        timeout_graceful_shutdown=1,
        ws="websockets-sansio",
    )
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listener.close()


@asynccontextmanager
async def joined(make: Maker, handler: Handler = echo, **options: Any) -> AsyncIterator[str]:
    """A client's way to a service, through the gateway; its URL."""
    async with service(handler, **options) as url:
        gateway = Gateway([Route("/", to=url)], transport=make())
        async with door(gateway) as address:
            yield address
        assert gateway.statistics().in_flight == 0


def handshake(url: str, **changes: Any) -> Outgoing:
    port = int(url.rpartition(":")[2])
    fields: dict[str, Any] = {"method": b"GET", "host": "127.0.0.1", "port": port, "tls": False}
    fields |= {"target": b"/", "headers": [(b"host", b"shop.test")]}
    return Outgoing(**fields | changes)


async def test_messages_of_both_kinds_come_back(make: Maker) -> None:
    async with joined(make) as url, connect(url) as client:
        for message in ("hello", b"\0\1", "", b"", "x" * 100_000, b"y" * 1_000_000):
            await client.send(message)
            assert await client.recv() == message


async def test_what_a_client_says_of_itself_arrives(make: Maker) -> None:
    seen: list[Any] = []

    async def note(visit: ServerConnection) -> None:
        seen.append(visit.request)
        await visit.send("hello")

    async with joined(make, note, subprotocols=["v2", "v1"]) as url:
        headers = {"X-Own": "1", "X-User-Id": "root", "Origin": "https://shop.test"}
        protocols: Any = ["v1", "v2"]
        async with connect(
            url + "/a%2Fb?q=1", subprotocols=protocols, additional_headers=headers
        ) as client:
            assert client.subprotocol in {"v1", "v2"}
            assert client.response is not None
            assert client.response.headers["x-request-id"]
            assert await client.recv() == "hello"
    (request,) = seen
    assert request.path == "/a%2Fb?q=1"
    assert request.headers["x-own"] == "1"
    assert request.headers["origin"] == "https://shop.test"
    assert request.headers["x-forwarded-for"] == "127.0.0.1"
    assert "x-user-id" not in request.headers
    assert len(request.headers.get_all("sec-websocket-key")) == 1


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (4321, "own")])
async def test_a_client_closes_with_a_code(make: Maker, code: int, reason: str) -> None:
    parted: asyncio.Future[tuple[Any, Any]] = asyncio.get_running_loop().create_future()

    async def part(visit: ServerConnection) -> None:
        await visit.wait_closed()
        parted.set_result((visit.close_code, visit.close_reason))

    async with joined(make, part) as url:
        async with connect(url) as client:
            await client.close(code, reason)
        assert await asyncio.wait_for(parted, 5) == (code, reason)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1012, "restart"), (4321, "own")])
async def test_a_service_closes_with_a_code(make: Maker, code: int, reason: str) -> None:
    async def part(visit: ServerConnection) -> None:
        await visit.close(code, reason)

    async with joined(make, part) as url, connect(url) as client:
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (code, reason)


async def test_a_client_that_breaks_off_closes_the_service(make: Maker) -> None:
    parted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def part(visit: ServerConnection) -> None:
        await visit.wait_closed()
        parted.set_result(visit.close_code)

    async with joined(make, part) as url:
        async with connect(url) as client:
            client.transport.abort()
        # Not every server tells a broken connection from one that was closed without a code.
        assert await asyncio.wait_for(parted, 5) in {1000, 1001}


async def test_a_service_that_breaks_off_closes_the_client(make: Maker) -> None:
    async def part(visit: ServerConnection) -> None:
        visit.transport.abort()

    async with joined(make, part) as url, connect(url) as client:
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1011


async def test_a_service_that_sends_too_much_closes_both(make: Maker) -> None:
    async def part(visit: ServerConnection) -> None:
        await visit.send(bytes(MAX_MESSAGE + 1))
        await visit.wait_closed()

    async with joined(make, part) as url, connect(url, max_size=None) as client:
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009


async def test_a_slow_client_slows_the_service_down(make: Maker) -> None:
    sent = 0
    enough = False

    async def flood(visit: ServerConnection) -> None:
        nonlocal sent
        while not enough:
            await visit.send(bytes(65536))
            sent += 65536

    async with joined(make, flood) as url:
        async with connect(url, max_queue=1, compression=None) as client:
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.1)
            assert sent < 64 * 1024 * 1024
            enough = True
            got = sum([len(message) async for message in client])
        assert got == sent


async def test_a_handshake_that_is_refused_says_why(make: Maker) -> None:
    async with service() as url:
        routes = [
            Route("/closed", to=url, auth=APIKeyAuth({"shop": "k" * 32})),
            Route("/plain", to=_page),
        ]
        async with door(Gateway(routes, transport=make())) as address:
            for path, status in (("/closed", 401), ("/plain", 404), ("/none", 404)):
                with pytest.raises(InvalidStatus) as caught:
                    await connect(address + path)
                assert caught.value.response.status_code == status
            async with connect(
                address + "/closed", additional_headers={"X-API-Key": "k" * 32}
            ) as client:
                await client.send("hello")
                assert await client.recv() == "hello"


async def _page(request: object) -> dict[str, Any]:
    return {}


async def test_a_service_that_is_not_there_or_no_websocket(make: Maker) -> None:
    async with Service(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")) as plain:
        async with Service(answering(b"")) as gone:
            pass
        routes = [
            Route("/plain", to=f"http://127.0.0.1:{plain.port}"),
            Route("/gone", to=f"http://127.0.0.1:{gone.port}"),
        ]
        async with door(Gateway(routes, transport=make())) as address:
            for path in ("/plain", "/gone"):
                with pytest.raises(InvalidStatus) as caught:
                    await connect(address + path)
                assert caught.value.response.status_code == 502


async def test_a_service_that_does_not_answer_the_handshake(make: Maker) -> None:
    async def silent(visit: Visit) -> None:
        await visit.head()
        await visit.ended()

    policy = RoutePolicy(timeouts=Timeouts(connect=0.1, first_byte=0.1))
    async with Service(silent) as upstream:
        route = Route("/", to=f"http://127.0.0.1:{upstream.port}", policy=policy)
        async with door(Gateway([route], transport=make())) as address:
            with pytest.raises(InvalidStatus) as caught:
                await connect(address)
            assert caught.value.response.status_code == 504


async def test_a_service_that_answers_no_ping_is_closed(make: Maker) -> None:
    async def deaf(visit: ServerConnection) -> None:
        visit.transport.pause_reading()
        await visit.wait_closed()

    async with service(deaf) as url, make() as transport:
        timeouts = Timeouts(idle=0.3)
        upstream = await transport.websocket(handshake(url), [], timeouts)
        assert await upstream.receive() is None
        assert upstream.closed[0] == 1006
        await upstream.close()


async def test_sending_to_a_service_that_has_closed_is_an_error(make: Maker) -> None:
    async def part(visit: ServerConnection) -> None:
        await visit.close()

    async with service(part) as url, make() as transport:
        upstream = await transport.websocket(handshake(url), [], Timeouts())
        assert upstream.subprotocol is None
        assert await upstream.receive() is None
        assert upstream.closed == (1000, "")
        for message in ("late", b"late"):
            with pytest.raises(UpstreamError) as caught:
                await upstream.send(message)
            assert caught.value.kind == "closed"
        await upstream.close()


async def test_a_gateway_that_closes_closes_its_websockets(make: Maker) -> None:
    async with service() as url:
        async with door(Gateway([Route("/", to=url)], transport=make())) as address:
            client = await connect(address)
            await client.send("hello")
            assert await client.recv() == "hello"
        await asyncio.wait_for(client.wait_closed(), 5)


@pytest.mark.promise("gateway-sizes")
async def test_a_client_that_sends_too_much_closes_both(make: Maker) -> None:
    parted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def part(visit: ServerConnection) -> None:
        await visit.wait_closed()
        parted.set_result(visit.close_code)

    async with joined(make, part) as url, connect(url) as client:
        await client.send(bytes(MAX_MESSAGE + 1))
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
        assert await asyncio.wait_for(parted, 5) == 1009
