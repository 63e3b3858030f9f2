"""The door: heads have a deadline and a length, nothing is left open, nothing is read twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiopatterns.gateway.door import PIPELINED, door
from aiopatterns.gateway.policy import Limits
from tests.gateway.front import served, statuses

pytestmark = [pytest.mark.real, pytest.mark.timeout(30)]

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
SMALL = Limits(max_headers=2048, max_target=1024)


class App:
    """Reads a body and answers with it; waits if it has to."""

    def __init__(self, *, reads: bool = True, body: bytes | None = None) -> None:
        self.reads = reads
        self.body = body
        self.scopes: list[dict[str, Any]] = []
        self.gone = 0
        self.go = asyncio.Event()
        self.go.set()
        self.came = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.scopes.append(scope)
        self.came.set()
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
            return
        body, more = b"", self.reads
        await self.go.wait()
        while more:
            message = await receive()
            if message["type"] != "http.request":
                self.gone += 1
                return
            body += message["body"]
            more = message["more_body"]
        body = body if self.body is None else self.body
        head = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})


async def test_a_request_passes_and_its_connection_serves_the_next_one():
    app = App()
    async with served(app) as front:
        client = await front.connect(GET + POST + b"3;x=y\r\nabc\r\n0\r\n\r\n")
        assert (await client.answer())[::2] == (200, b"")
        assert (await client.answer())[::2] == (200, b"abc")
        await client.send(GET)
        assert (await client.answer())[0] == 200
    assert len(app.scopes) == 3


async def test_trailers_are_no_headers():
    app = App()
    async with served(app) as front:
        client = await front.connect(POST + b"1\r\na\r\n0\r\nAuthorization: x\r\nHost: b\r\n\r\n")
        assert (await client.answer())[::2] == (200, b"a")
    assert app.scopes[0]["headers"] == [(b"host", b"a"), (b"transfer-encoding", b"chunked")]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 8000, 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000, 431),
        (b"GET /" + b"x" * 8000, 414),
        (b"GET /\r\n\r\n", 400),
        (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://[/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ],
)
async def test_what_is_too_long_or_for_somebody_else_is_refused(sent: bytes, status: int):
    async with served(App(), limits=SMALL) as front:
        octets = await front.ask(sent)
        assert statuses(octets) == [status]
        assert b"connection: close" in octets


@pytest.mark.parametrize("more", [b"1;x=", b"0\r\nX: "])
async def test_what_is_between_the_bytes_of_a_body_is_bounded(more: bytes):
    app = App()
    async with served(app, limits=SMALL) as front:
        client = await front.connect(POST)
        await app.came.wait()
        await client.send(more + b"x" * 8000)
        assert statuses(await client.rest()) == [400]


async def test_an_address_of_the_same_host_is_a_target():
    app = App()
    async with served(app) as front:
        client = await front.connect(b"GET http://A:80/x HTTP/1.1\r\nHost: a:80\r\n\r\n")
        assert (await client.answer())[0] == 200
    assert app.scopes[0]["raw_path"] == b"/x"


async def test_what_is_broken_is_answered_after_what_came_before():
    app = App()
    app.go.clear()
    async with served(app) as front:
        client = await front.connect(GET + GET + b"GET / HTTP/1.1\r\nHost : a\r\n\r\n" + GET)
        await app.came.wait()
        await client.send(GET)  # which nobody looks at
        app.go.set()
        assert statuses(await client.rest()) == [200, 200, 400]
    assert len(app.scopes) == 2


async def test_a_broken_body_ends_its_request_and_no_other():
    app = App()
    app.go.clear()
    async with served(app) as front:
        client = await front.connect(GET + POST + b"zz\r\n")
        await app.came.wait()
        app.go.set()
        assert statuses(await client.rest()) == [200, 400]
        assert statuses(await front.ask(POST + b"zz\r\n")) == [400]
    assert [each["method"] for each in app.scopes] == ["GET", "POST"]


async def test_a_body_that_breaks_after_its_answer_closes_the_connection():
    async with served(App(reads=False)) as front:
        client = await front.connect(POST)
        assert (await client.answer())[0] == 200
        await client.send(b"zz\r\n")
        assert await client.rest() == b""


async def test_a_client_has_only_so_many_requests_under_way():
    app = App()
    async with served(app) as front:
        assert statuses(await front.ask(GET * 500)) == [200] * PIPELINED + [400]
    assert len(app.scopes) == PIPELINED


@pytest.mark.parametrize(
    ("sent", "drop", "status"),
    [
        (b"", b"", []),
        (b"", b"\r\n", []),
        (b"GET / HTTP/1.1\r\nHo", b"x", [408]),
        (b"GET /", b"x", [408]),
        (GET + b"GET", b"", [200, 408]),
        (GET, b"\r\n", [200]),
        (b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX", b"x", [408]),
    ],
)
async def test_a_head_comes_in_time_or_its_connection_ends(
    sent: bytes, drop: bytes, status: list[int]
):
    async with served(App(), patience=0.2) as front:
        client = await front.connect(sent)
        rest = asyncio.ensure_future(client.rest())
        while not rest.done():
            await client.send(drop)  # slowly, but for ever
            await asyncio.sleep(0.04)
        assert statuses(await rest) == status


async def test_what_is_left_of_a_body_comes_in_time_too():
    async with served(App(reads=False), patience=0.3) as front:
        client = await front.connect(POST)
        assert (await client.answer())[0] == 200
        rest = asyncio.ensure_future(client.rest())
        while not rest.done():
            await client.send(b"1\r\na\r\n")
            await asyncio.sleep(0.04)
        assert await rest == b""


async def test_a_connection_that_is_kept_waits_as_long_as_uvicorn_says():
    async with served(App(), patience=0.1, timeout_keep_alive=60) as front:
        client = await front.connect(GET)
        assert (await client.answer())[0] == 200
        await asyncio.sleep(0.4)
        await client.send(GET)
        assert (await client.answer())[0] == 200


async def test_a_client_that_takes_nothing_does_not_keep_its_connection():
    app = App(body=b"x" * 20_000_000)
    async with served(app, patience=0.3) as front:
        await front.connect(GET.replace(b"Host", b"Connection: close\r\nHost"))
        await app.came.wait()
        while front.server.server_state.connections:
            await asyncio.sleep(0.05)


async def test_a_client_that_takes_nothing_for_long_is_cut_off_while_it_is_answered():
    class Endless(App):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await super().__call__(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while not self.gone:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                self.gone = not front.server.server_state.connections

    async with served(Endless(), patience=0.05) as front:
        await front.connect(GET)
        async with asyncio.timeout(5):
            await asyncio.sleep(0.1)
            while front.server.server_state.connections:
                await asyncio.sleep(0.05)


async def test_another_protocol_is_not_spoken_but_the_request_is_served():
    ask = b"Host: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    app = App()
    async with served(app) as front:
        octets = await front.ask(b"GET / HTTP/1.1\r\n" + ask + GET)
        assert statuses(octets) == [200]
        assert b"connection: close" in octets
    assert len(app.scopes) == 1


@pytest.mark.parametrize(
    ("before", "more", "after", "status"),
    [
        (b"", b"", b"", [403]),
        (GET, b"", b"", [200, 400]),
        (b"", b"", GET, [400]),
        (b"", b"Content-Length: 5\r\n", b"hello", [400]),
        (b"", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", [400]),
    ],
)
async def test_a_websocket_begins_on_a_quiet_connection(
    before: bytes, more: bytes, after: bytes, status: list[int]
):
    async with served(App(), patience=0.2) as front:
        assert statuses(await front.ask(before + WEBSOCKET + more + b"\r\n" + after)) == status


async def test_a_websocket_is_no_head_that_is_late():
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await App()(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        await send({"type": "websocket.send", "text": message["text"]})
        await receive()

    async with served(echo, patience=0.1) as front:
        client = await front.connect(WEBSOCKET + b"\r\n")
        assert (await client.answer())[0] == 101
        await asyncio.sleep(0.4)
        await client.send(b"\x81\x82\x00\x00\x00\x00hi")
        assert await client.reader.readexactly(4) == b"\x81\x02hi"
        await client.send(b"\x88\x82\x00\x00\x00\x00\x03\xe8")
        await client.rest()


def test_patience_is_checked():
    with pytest.raises(ValueError, match="patience must be a finite number > 0"):
        door(Limits(), patience=0)
