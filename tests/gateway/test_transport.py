"""What every transport promises: one body of tests for both."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import anyio
import pytest
import trustme

from aiopatterns.core.errors import ClosedError, RequestRefusedError, UpstreamError
from aiopatterns.gateway.policy import Timeouts
from aiopatterns.gateway.transport import Incoming, Outgoing, Transport, TransportStatistics
from aiopatterns.gateway.transport_aiohttp import AiohttpTransport
from aiopatterns.gateway.transport_fast import FastTransport
from tests.gateway.services import OK, Service, Visit, answering, once

pytestmark = pytest.mark.real

Maker = Callable[..., Transport]
SHORT = Timeouts(connect=0.2, first_byte=0.2, idle=0.2)


@pytest.fixture(params=[AiohttpTransport, FastTransport], ids=["aiohttp", "fast"])
def make(request: pytest.FixtureRequest) -> Maker:
    maker: Maker = request.param
    return maker


def outgoing(service: Service | int, **changes: Any) -> Outgoing:
    port = service if isinstance(service, int) else service.port
    fields: dict[str, Any] = {
        "method": b"GET",
        "host": "127.0.0.1",
        "port": port,
        "tls": False,
        "target": b"/",
        "headers": [(b"host", b"shop.test")],
    }
    return Outgoing(**fields | changes)


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer-One: 1\r\n\r\n"
)


async def read(incoming: Incoming) -> bytes:
    whole = incoming.whole()
    if whole is None:
        whole = b"".join([chunk async for chunk in incoming])
    await incoming.aclose()
    return whole


async def got(transport: Transport, request: Outgoing, timeouts: Timeouts | None = None) -> bytes:
    return await read(await transport.send(request, timeouts or Timeouts()))


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


# --------------------------------------------------------------------------- what goes, what comes


async def test_a_request_arrives_as_it_was_given_and_so_does_its_answer(make: Maker) -> None:
    answer = b"HTTP/1.1 201 Made\r\nContent-Length: 2\r\nX-One: 1\r\nx-one: 2\r\n\r\nok"
    async with Service(answering(answer)) as service, make() as transport:
        headers = [(b"host", b"shop.test"), (b"x-b", b"1"), (b"x-a", "é".encode()), (b"x-b", b"2")]
        request = outgoing(service, target=b"/a%2Fb/%c3%a9?q=%20&r", headers=headers)
        incoming = await transport.send(request, Timeouts())
        assert incoming.status == 201
        assert (b"x-one", b"1") in incoming.headers
        assert (b"x-one", b"2") in incoming.headers
        assert await read(incoming) == b"ok"
        head = service.heads[0]
        assert head.startswith(b"GET /a%2Fb/%c3%a9?q=%20&r HTTP/1.1\r\n")
        assert "host: shop.test\r\nx-b: 1\r\nx-a: é\r\nx-b: 2\r\n".encode() in head
        assert head.count(b":") == len(headers)  # nothing was added
        assert transport.statistics() == TransportStatistics(
            requests=1,
            failed=0,
            connections=1 if make is FastTransport else None,
            idle=1 if make is FastTransport else None,
        )


@pytest.mark.parametrize(
    ("method", "body", "length", "framing"),
    [
        (b"GET", None, None, None),
        (b"POST", None, None, b"content-length: 0"),
        (b"POST", b"", 0, b"content-length: 0"),
        (b"PUT", b"hello", 5, b"content-length: 5"),
        (b"POST", (b"he", b"", b"llo"), 5, b"content-length: 5"),
        (b"POST", (b"he", b"", b"llo"), None, b"transfer-encoding: chunked"),
        (b"DELETE", (), None, b"transfer-encoding: chunked"),
        (b"POST", b"x" * 300_000, 300_000, b"content-length: 300000"),
    ],
)
async def test_a_body_is_framed_anew(
    make: Maker,
    method: bytes,
    body: bytes | tuple[bytes, ...] | None,
    length: int | None,
    framing: bytes | None,
) -> None:
    async with Service(answering(OK)) as service, make() as transport:
        for _ in range(2):
            given = chunks(*body) if isinstance(body, tuple) else body
            request = outgoing(service, method=method, body=given, length=length)
            assert await got(transport, request) == b"hello"
        whole = b"".join(body) if isinstance(body, tuple) else body or b""
        assert service.bodies == [whole, whole]
        found = service.heads[0].lower()
        named = found.count(b"content-length") + found.count(b"transfer-encoding")
        assert named == (0 if framing is None else 1)
        assert framing is None or framing in found
        assert service.visits == 1  # the connection was used again


@pytest.mark.parametrize(
    ("method", "answer", "body"),
    [
        (b"GET", OK, b"hello"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: x\r\n\r\n", b""),
        (b"HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", b""),
        (b"HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\na", b"a"),
        (b"GET", CHUNKED, b"hello"),
        (b"GET", b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"hello"),
        (b"GET", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 3 + OK, b"hello"),
    ],
)
async def test_answers_that_keep_the_connection(
    make: Maker, method: bytes, answer: bytes, body: bytes
) -> None:
    async with Service(answering(answer)) as service, make() as transport:
        for _ in range(3):
            incoming = await transport.send(outgoing(service, method=method), Timeouts())
            assert incoming.status >= 200
            assert not [each for each in incoming.headers if each[0] == b"link"]
            assert await read(incoming) == body
        assert service.visits == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
    ],
)
async def test_answers_that_end_the_connection(make: Maker, answer: bytes) -> None:
    async with Service(once(answer)) as service, make() as transport:
        for _ in range(2):
            assert await got(transport, outgoing(service)) == b"hello"
        assert service.visits == 2


async def test_a_head_that_comes_octet_by_octet(make: Maker) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        for octet in OK:
            await visit.send(bytes([octet]))
            await asyncio.sleep(0)
        await visit.ended()

    async with Service(script) as service, make() as transport:
        assert await got(transport, outgoing(service)) == b"hello"


# ------------------------------------------------------------------------------- answers refused

HEAD = b"HTTP/1.1 200 OK\r\n"
INVALID = {
    "two lengths": HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "a length twice": HEAD + b"content-length: 5, 5\r\n\r\nhello",
    "a length and chunks": HEAD
    + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": HEAD
    + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "a length with a sign": HEAD + b"content-length: +5\r\n\r\nhello",
    "a length below zero": HEAD + b"content-length: -5\r\n\r\nhello",
    "a length beyond all": HEAD + b"content-length: 99999999999999999999999\r\n\r\nhello",
    "another coding": HEAD + b"transfer-encoding: gzip\r\n\r\nhello",
    "a coding more": HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a coding before": HEAD
    + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "an unknown coding": HEAD + b"transfer-encoding: xchunked\r\n\r\nhello",
    "a blank before the colon": HEAD + b"content-length : 5\r\n\r\nhello",
    "a NUL": HEAD + b"x-a: a\0b\r\ncontent-length: 5\r\n\r\nhello",
    "a bare CR": HEAD + b"x-a: a\rb\r\ncontent-length: 5\r\n\r\nhello",
    "no name": HEAD + b": a\r\ncontent-length: 5\r\n\r\nhello",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a status too low": b"HTTP/1.1 099 Low\r\ncontent-length: 5\r\n\r\nhello",
    "a switch of protocols": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "too large a head": HEAD + b"x-a: " + b"a" * 100_000 + b"\r\ncontent-length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("answer", INVALID.values(), ids=list(INVALID))
async def test_an_answer_that_breaks_the_rules_is_no_answer(make: Maker, answer: bytes) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.send(answer)
        await visit.ended()

    async with Service(script) as service, make() as transport:
        with pytest.raises(UpstreamError, match=f"127.0.0.1:{service.port}") as caught:
            await got(transport, outgoing(service))
        assert (caught.value.kind, caught.value.sent) == ("invalid", True)
        assert caught.value.name == f"127.0.0.1:{service.port}"
        await service.closed()  # the connection is not used again


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"content-length: 9\r\n\r\nhello",
        HEAD + b"transfer-encoding: chunked\r\n\r\n9\r\nhello",
        HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ],
)
async def test_a_body_that_is_cut_off_never_looks_whole(make: Maker, answer: bytes) -> None:
    async with Service(once(answer)) as service, make() as transport:
        incoming = await transport.send(outgoing(service), Timeouts())
        assert incoming.whole() is None
        with pytest.raises(UpstreamError) as caught:
            await read(incoming)
        assert (caught.value.kind, caught.value.sent) == ("closed", True)
        await incoming.aclose()


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"f" * 20 + b"\r\n"])
async def test_a_broken_chunk_ends_the_body_by_an_error(make: Maker, chunk: bytes) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.send(HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n")
        await asyncio.sleep(0.01)
        await visit.send(chunk)
        await visit.ended()

    async with Service(script) as service, make() as transport:
        incoming = await transport.send(outgoing(service), Timeouts())
        with pytest.raises(UpstreamError):
            await read(incoming)
        await service.closed()


async def test_what_comes_after_an_answer_is_never_the_answer_to_the_next_request(
    make: Maker,
) -> None:
    evil = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
    for answer in (OK + evil, OK + b"HTT"):
        async with Service(answering(answer, OK)) as service, make() as transport:
            for _ in range(2):
                assert await got(transport, outgoing(service)) == b"hello"
            assert service.visits == 2 or not answer.endswith(b"evil")


async def test_what_comes_unasked_is_never_the_answer_to_the_next_request(make: Maker) -> None:
    evil = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.send(OK)
        if visit.service.visits == 1:
            await asyncio.sleep(0.02)
            await visit.send(evil)
        await visit.ended()

    async with Service(script) as service, make() as transport:
        assert await got(transport, outgoing(service)) == b"hello"
        await asyncio.sleep(0.05)
        assert await got(transport, outgoing(service)) == b"hello"
        assert service.visits == 2


# ------------------------------------------------------------------------- nobody, late, or gone


async def test_nobody_answers(make: Maker) -> None:
    async with Service(answering(OK)) as service:
        pass
    async with make() as transport:
        with pytest.raises(UpstreamError) as caught:
            await got(transport, outgoing(service))
        assert (caught.value.kind, caught.value.sent) == ("connect", False)
        figures = transport.statistics()
        assert isinstance(figures, TransportStatistics)
        assert (figures.requests, figures.failed) == (1, 1)


async def test_a_name_that_does_not_exist(make: Maker) -> None:
    async with make() as transport:
        with pytest.raises(UpstreamError) as caught:
            await got(transport, outgoing(80, host="no-such-host.invalid"))
        assert (caught.value.kind, caught.value.sent) == ("connect", False)


async def test_a_service_that_closes_without_an_answer(make: Maker) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()

    async with Service(script) as service, make() as transport:
        with pytest.raises(UpstreamError) as caught:
            await got(transport, outgoing(service, method=b"POST"))
        assert (caught.value.kind, caught.value.sent) == ("closed", True)


async def test_a_service_that_says_nothing(make: Maker) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.ended()

    async with Service(script) as service, make() as transport:
        with pytest.raises(UpstreamError) as caught:
            await got(transport, outgoing(service), SHORT)
        assert (caught.value.kind, caught.value.sent) == ("timeout", True)
        await service.closed()


async def test_a_body_that_stops(make: Maker) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.send(HEAD + b"content-length: 9\r\n\r\nhello")
        await visit.ended()

    async with Service(script) as service, make() as transport:
        incoming = await transport.send(outgoing(service), SHORT)
        with pytest.raises(UpstreamError) as caught:
            await read(incoming)
        assert (caught.value.kind, caught.value.sent) == ("timeout", True)
        await service.closed()


async def test_a_connection_that_is_not_to_be_had(make: Maker) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.send(HEAD + b"content-length: 9\r\n\r\nhello")
        await visit.ended()

    async with Service(script) as service, make(max_connections=1) as transport:
        incoming = await transport.send(outgoing(service), Timeouts())
        with pytest.raises(UpstreamError) as caught:
            await got(transport, outgoing(service), SHORT)
        assert (caught.value.kind, caught.value.sent) == ("timeout", False)
        await incoming.aclose()
        again = await transport.send(outgoing(service), Timeouts())
        assert again.status == 200
        await again.aclose()


async def test_a_request_waits_for_a_connection_that_comes_free(make: Maker) -> None:
    async with Service(answering(OK)) as service, make(max_connections=2) as transport:
        bodies: list[bytes] = []

        async def ask() -> None:
            bodies.append(await got(transport, outgoing(service)))

        async with anyio.create_task_group() as asking:
            for _ in range(20):
                asking.start_soon(ask)
        assert bodies == [b"hello"] * 20
        assert service.visits <= 2


async def test_an_idle_connection_is_closed_in_time(make: Maker) -> None:
    async with Service(answering(OK)) as service, make(keep_alive=0.05) as transport:
        assert await got(transport, outgoing(service)) == b"hello"
        await service.closed()


# ------------------------------------------------------------------------------ used once too often


async def test_a_kept_connection_that_was_closed_costs_nothing(make: Maker) -> None:
    async with Service(once(OK)) as service, make() as transport:
        for _ in range(3):
            assert await got(transport, outgoing(service)) == b"hello"
            await asyncio.sleep(0.01)
        assert service.visits == 3


@pytest.mark.parametrize(
    ("method", "body", "again"),
    [(b"GET", None, True), (b"PUT", b"x", True), (b"POST", b"x", False), (b"PATCH", None, False)],
)
async def test_a_connection_closed_under_a_request(
    make: Maker, method: bytes, body: bytes | None, again: bool
) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.send(OK)
        await visit.head()  # and no answer

    async with Service(script) as service, make() as transport:
        request = outgoing(service, method=method, body=body)
        assert await got(transport, request) == b"hello"
        if again:
            assert await got(transport, request) == b"hello"
            return
        with pytest.raises(UpstreamError) as caught:
            await got(transport, request)
        assert (caught.value.kind, caught.value.sent) == ("closed", True)
        assert len(service.heads) == 2


# ----------------------------------------------------------------------------------- cancellation


async def test_cancelled_while_it_waits_the_connection_is_closed(make: Maker) -> None:
    asked = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.request()
        asked.set()
        await visit.ended()

    async with Service(script) as service, make() as transport:
        task = asyncio.ensure_future(got(transport, outgoing(service)))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await service.closed()


async def test_cancelled_in_the_body_the_connection_is_closed(make: Maker) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.send(HEAD + b"content-length: 9\r\n\r\nhello")
        await visit.ended()

    async with Service(script) as service, make() as transport:
        incoming = await transport.send(outgoing(service), Timeouts())
        with anyio.move_on_after(0.02):
            await read(incoming)
        await incoming.aclose()
        await service.closed()


async def test_given_up_in_the_body_the_connection_is_closed(make: Maker) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.send(HEAD + b"content-length: 9\r\n\r\nhello")
        await visit.ended()

    async with Service(script) as service, make() as transport:
        incoming = await transport.send(outgoing(service), Timeouts())
        assert await anext(aiter(incoming)) == b"hello"
        await incoming.aclose()
        await incoming.aclose()
        await service.closed()


async def test_cancelled_while_it_connects_nothing_is_left(make: Maker) -> None:
    async with Service(answering(OK)) as service, make() as transport:
        task = asyncio.ensure_future(got(transport, outgoing(service)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await got(transport, outgoing(service)) == b"hello"


async def test_a_transport_is_open_inside_its_block_only(make: Maker) -> None:
    transport = make(name="out")
    assert transport.name == "out"
    async with Service(answering(OK)) as service:
        for use in (
            partial(transport.send, outgoing(service), Timeouts()),
            partial(transport.websocket, outgoing(service), [], Timeouts()),
        ):
            with pytest.raises(ClosedError):
                await use()
        for _ in range(2):
            async with transport:
                assert await got(transport, outgoing(service)) == b"hello"
        with pytest.raises(ClosedError):
            await transport.send(outgoing(service), Timeouts())
        await service.closed(2)


async def test_a_transport_that_ends_takes_its_answers_with_it(make: Maker) -> None:
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.send(HEAD + b"content-length: 9\r\n\r\nhello")
        await visit.ended()

    async with Service(script) as service:
        async with make() as transport:
            incoming = await transport.send(outgoing(service), Timeouts())
        with pytest.raises(UpstreamError):
            await read(incoming)
        await incoming.aclose()
        await service.closed()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"max_connections": 0}, ValueError),
        ({"max_connections": 1.5}, TypeError),
        ({"keep_alive": 0}, ValueError),
        ({"name": ""}, ValueError),
    ],
)
def test_bad_arguments_are_named(
    make: Maker, change: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(change))):
        make(**change)


# ------------------------------------------------------------------------------------ backpressure


async def test_an_answer_is_read_no_faster_than_it_is_taken(make: Maker) -> None:
    sent = 0

    async def script(visit: Visit) -> None:
        nonlocal sent
        await visit.request()
        await visit.send(HEAD + b"\r\n")
        visit.writer.transport.set_write_buffer_limits(0)
        while True:
            await visit.send(b"x" * 65536)
            sent += 65536

    async with Service(script) as service, make() as transport:
        incoming = await transport.send(outgoing(service), Timeouts())
        before = -1
        while sent != before:  # until the service can send no more
            before = sent
            await asyncio.sleep(0.05)
        assert sent < 16 * 1024 * 1024  # what the kernel holds, and little more
        taken = 0
        async for chunk in incoming:
            taken += len(chunk)
            if taken > before + 1024 * 1024:
                break
        await incoming.aclose()
        assert sent > before


async def test_a_body_is_read_no_faster_than_the_service_takes_it(make: Maker) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 65536
            yield b"x" * 65536

    async def script(visit: Visit) -> None:
        await visit.head()
        await asyncio.sleep(30)

    async with Service(script) as service, make() as transport:
        request = outgoing(service, method=b"POST", body=endless())
        with pytest.raises(UpstreamError) as caught:
            await got(transport, request, SHORT)
        assert caught.value.kind == "timeout"
        assert given < 16 * 1024 * 1024


# --------------------------------------------------------------------- answers before the body's end


async def test_an_answer_may_come_before_the_body_has_ended(make: Maker) -> None:
    closed = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        try:
            yield b"x"
            await asyncio.sleep(30)
        finally:
            closed.set()

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 413 Too much\r\ncontent-length: 2\r\n\r\nno")
        await visit.ended()

    async with Service(script) as service, make() as transport:
        request = outgoing(service, method=b"POST", body=stuck())
        incoming = await transport.send(request, Timeouts())
        assert incoming.status == 413
        assert await read(incoming) == b"no"
        await asyncio.wait_for(closed.wait(), 5)
        await service.closed()  # half a request was sent: nothing else may follow


async def test_both_directions_flow_at_once(make: Maker) -> None:
    part = b"x" * 65536
    count = 64

    async def body() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield part

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        while size := int(await visit.reader.readuntil(b"\r\n"), 16):
            data = await visit.reader.readexactly(size)
            await visit.reader.readexactly(2)
            await visit.send(b"%x\r\n%b\r\n" % (len(data), data))
        await visit.send(b"0\r\n\r\n")

    async with Service(script) as service, make() as transport:
        incoming = await transport.send(outgoing(service, method=b"POST", body=body()), Timeouts())
        assert len(await read(incoming)) == count * len(part)


# ------------------------------------------------------------------------------ bodies that break


async def test_a_body_that_breaks_keeps_its_error(make: Maker) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise LookupError("the client has gone")

    async def script(visit: Visit) -> None:
        with pytest.raises(asyncio.IncompleteReadError):
            await visit.request()
        raise EOFError

    async with Service(script) as service, make() as transport:
        request = outgoing(service, method=b"POST", body=broken(), length=9)
        with pytest.raises(LookupError, match="the client has gone"):
            await got(transport, request)
        await service.closed()
        assert service.bodies == []


async def test_a_body_that_breaks_after_the_head_has_come(make: Maker) -> None:
    go = asyncio.Event()

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        await go.wait()
        raise LookupError("the client has gone")

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(HEAD + b"content-length: 9\r\n\r\nhello")
        await visit.ended()

    async with Service(script) as service, make() as transport:
        request = outgoing(service, method=b"POST", body=broken(), length=9)
        incoming = await transport.send(request, Timeouts())
        go.set()
        with pytest.raises(LookupError, match="the client has gone"):
            await read(incoming)
        await incoming.aclose()
        await service.closed()


@pytest.mark.parametrize("parts", [(b"four",), (b"123456", b"7890")])
async def test_a_body_of_another_length_never_looks_whole(
    make: Maker, parts: tuple[bytes, ...]
) -> None:
    async with Service(answering(OK)) as service, make() as transport:
        request = outgoing(service, method=b"POST", body=chunks(*parts), length=9)
        with pytest.raises(RequestRefusedError) as caught:
            await got(transport, request)
        assert caught.value.status == 400
        await service.closed()
        assert service.bodies == []


# --------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(serving)
    asking = ssl.create_default_context()
    authority.configure_trust(asking)
    return serving, asking


async def test_tls_is_spoken_and_verified(make: Maker, authority: trustme.CA) -> None:
    serving, asking = contexts(authority, "127.0.0.1")
    async with Service(answering(OK), tls=serving) as service, make(tls=asking) as transport:
        for _ in range(2):
            assert await got(transport, outgoing(service, tls=True)) == b"hello"
        assert service.visits == 1


async def test_a_certificate_of_another_name_is_refused(make: Maker, authority: trustme.CA) -> None:
    serving, asking = contexts(authority, "elsewhere.test")
    async with Service(answering(OK), tls=serving) as service, make(tls=asking) as transport:
        with pytest.raises(UpstreamError) as caught:
            await got(transport, outgoing(service, tls=True))
        assert (caught.value.kind, caught.value.sent) == ("connect", False)
        assert service.heads == []


async def test_an_unknown_authority_is_refused(make: Maker, authority: trustme.CA) -> None:
    serving, _ = contexts(authority, "127.0.0.1")
    async with Service(answering(OK), tls=serving) as service, make() as transport:
        with pytest.raises(UpstreamError) as caught:
            await got(transport, outgoing(service, tls=True))
        assert (caught.value.kind, caught.value.sent) == ("connect", False)
