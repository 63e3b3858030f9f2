"""Request smuggling, octet by octet: what can be read in two ways is refused, and its connection ends.

Each vector goes over a socket of its own through uvicorn and the gateway, by both transports, to a
service that records what it sees: at most one request for each, and never the one hidden inside.
"""

from __future__ import annotations

import pytest

from aiopatterns.gateway.app import Gateway
from aiopatterns.gateway.routing import Route
from tests.gateway.front import TRANSPORTS, served, statuses
from tests.gateway.services import OK, Service, answering

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /open HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"

# Refused with 400, connection closed, nothing after it looked at.
REFUSED = {
    "length and chunks": POST
    + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
    "chunks and length": CHUNKED + b"Content-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + HIDDEN,
    "chunks and no length": CHUNKED + b"Content-Length: 0\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 30\r\n\r\n" + HIDDEN,
    "two equal lengths": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab" + HIDDEN,
    "a list of lengths": POST + b"Content-Length: 2, 2\r\n\r\nab" + HIDDEN,
    "a length with a sign": POST + b"Content-Length: +2\r\n\r\nab" + HIDDEN,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + HIDDEN,
    "a hexadecimal length": POST + b"Content-Length: 0x2\r\n\r\nab" + HIDDEN,
    "a length with a point": POST + b"Content-Length: 2.0\r\n\r\nab" + HIDDEN,
    "a length in words": POST + b"Content-Length: two\r\n\r\nab" + HIDDEN,
    "an empty length": POST + b"Content-Length: \r\n\r\n" + HIDDEN,
    "a length with an underscore": POST + b"Content-Length: 1_0\r\n\r\n" + HIDDEN,
    "a length with a gap": POST + b"Content-Length: 1 0\r\n\r\n" + HIDDEN,
    "a length beyond 64 bits": POST + b"Content-Length: 18446744073709551618\r\n\r\nab" + HIDDEN,
    "a blank before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a tab before the colon": POST + b"Content-Length\t: 2\r\n\r\nab" + HIDDEN,
    "a folded header": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a folded first header": b"POST / HTTP/1.1\r\n Host: a\r\n\r\n" + HIDDEN,
    "a blank before a name": POST + b" Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a bare LF after a header": POST
    + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + HIDDEN,
    "a bare LF as the end": POST + b"Content-Length: 2\n\nab" + HIDDEN,
    "a bare CR in a value": POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a NUL in a value": POST + b"X: \x00\r\n\r\n" + HIDDEN,
    "a NUL in a name": POST + b"Content\x00-Length: 2\r\n\r\nab" + HIDDEN,
    "a control in a coding": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a coding that is not the last": POST + b"Transfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n",
    "a coding that looks like it": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n" + HIDDEN,
    "a quoted coding": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + HIDDEN,
    "an empty coding": POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunks twice": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunks, then none": CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunks before 1.1": CHUNKED.replace(b"1.1", b"1.0") + b"\r\n0\r\n\r\n" + HIDDEN,
    "a chunk's size with a sign": CHUNKED + b"\r\n+1\r\na\r\n0\r\n\r\n" + HIDDEN,
    "a chunk's size with 0x": CHUNKED + b"\r\n0x1\r\na\r\n0\r\n\r\n" + HIDDEN,
    "a chunk's size that is none": CHUNKED + b"\r\nz\r\na\r\n0\r\n\r\n" + HIDDEN,
    "a chunk's size of 17 digits": CHUNKED + b"\r\n10000000000000001\r\na\r\n0\r\n\r\n" + HIDDEN,
    "a chunk's size before a LF": CHUNKED + b"\r\n1\na\r\n0\r\n\r\n" + HIDDEN,
    "a chunk that is longer": CHUNKED + b"\r\n1\r\nab\r\n0\r\n\r\n" + HIDDEN,
    "a chunk without an end": CHUNKED + b"\r\n1\r\na0\r\n\r\n" + HIDDEN,
    "a chunk with a LF in its extension": CHUNKED + b"\r\n1;x\ny\r\na\r\n0\r\n\r\n" + HIDDEN,
    "a chunk with a blank after its size": CHUNKED + b"\r\n1 \r\na\r\n0\r\n\r\n" + HIDDEN,
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + HIDDEN,
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a host with a user": b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "a host elsewhere": b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN,
    "HTTP/0.9": b"GET /\r\n\r\n" + HIDDEN,
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n" + HIDDEN,
    "HTTP/2 from the start": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "a tunnel": b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + HIDDEN,
    "a method in lower case": b"get / HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN,
    "a target with a blank": b"GET /a HTTP/1.1 /b HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN,
    "a target with a tab": b"GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN,
    "a line break in a target": b"GET /a\r\nX: HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN,
    "a WebSocket with a body": POST.replace(b"POST", b"GET")
    + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 33\r\n\r\n"
    + HIDDEN,
}
# Understood, but not served: 501, and the connection closed.
UNSERVED = {
    "chunks of something": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a trace": b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN,
}
# Answered once; what is hidden behind is no request, or one that is read in one way only.
ONCE = {
    "a request in a body": POST + b"Connection: close\r\nContent-Length: 33\r\n\r\n" + HIDDEN,
    "a request in a chunk": CHUNKED
    + b"Connection: close\r\n\r\n21\r\n"
    + HIDDEN
    + b"\r\n0\r\n\r\n",
    "a request in a trailer": CHUNKED + b"Connection: close\r\n\r\n0\r\nX: " + HIDDEN + b"\r\n",
    "a length named as a hop": POST + b"Connection: close, content-length\r\n"
    b"Content-Length: 33\r\n\r\n" + HIDDEN,
    "what comes after the last": POST + b"Connection: close\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "another protocol": POST
    + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n"
    + HIDDEN,
    "a length with an underscore in its name": POST + b"Connection: close\r\n"
    b"Content_Length: 33\r\nContent-Length: 33\r\n\r\n" + HIDDEN,
}


def check(octets: bytes, wanted: int, name: str) -> None:
    """One answer, and an end."""
    found = statuses(octets)
    assert found[:1] == [wanted], f"{name}: {found}"
    assert set(found[1:]) <= {400}, f"{name}: {found}"
    assert b"connection: close" in octets.lower(), name


@pytest.mark.promise("gateway-framing")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_can_be_read_in_two_ways_reaches_no_service(transport: str):
    assert len(REFUSED) >= 25
    async with Service(answering(OK)) as service:
        gateway = Gateway([Route("/", to=f"http://127.0.0.1:{service.port}")], transport=transport)
        async with served(gateway) as front:
            for status, vectors in ((400, REFUSED), (501, UNSERVED), (200, ONCE)):
                for name, octets in vectors.items():
                    check(await front.ask(octets), status, name)
    # Of a broken body a service may see the beginning, but nothing that looks like an end.
    begun = sum(name.startswith("a chunk") for name in REFUSED)
    assert len(service.bodies) == len(ONCE)
    assert len(service.heads) <= len(ONCE) + begun
    for head in service.heads:
        assert head.startswith(b"POST /open HTTP/1.1\r\n")
        lower = head.lower()
        assert lower.count(b"content-length") + lower.count(b"transfer-encoding") == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_a_service_gets_is_framed_anew(transport: str):
    body = b"a" * 20 + b"GET /hidden HTTP/1.1\r\n\r\n"
    sent = CHUNKED + b"X-Kept: 1\r\n\r\n14;ext=1\r\n" + body[:20] + b"\r\n18\r\n" + body[20:]
    async with Service(answering(OK)) as service:
        gateway = Gateway([Route("/", to=f"http://127.0.0.1:{service.port}")], transport=transport)
        async with served(gateway) as front:
            client = await front.connect(sent + b"\r\n0\r\nX-Trailer: 1\r\nX-User-Id: root\r\n\r\n")
            assert (await client.answer())[::2] == (200, b"hello")
        assert service.bodies == [body]
        head = service.heads[0].lower()
        assert b"\r\nx-kept: 1\r\n" in head
        assert not [each for each in (b"trailer", b"x-user-id", b"ext") if each in head]
