from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import anyio
import pytest
from aiohttp import (
    ClientConnectorError,
    ClientOSError,
    ClientPayloadError,
    ClientResponseError,
    ConnectionTimeoutError,
    RequestInfo,
    ServerDisconnectedError,
    SocketTimeoutError,
)
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from aiopatterns.gateway import AiohttpTransport, FastTransport, aioclient
from aiopatterns.gateway.aioclient import address, explained, hold, open_session, require, words
from aiopatterns.gateway.transport import Outgoing
from tests.gateway.services import Service, answering

SERVICE = URL("http://service")
KEY = ConnectionKey("service", 80, False, True, None, None, None)  # as the client makes it
ASKED = RequestInfo(SERVICE, "GET", CIMultiDictProxy(CIMultiDict[str]()), SERVICE)


def outgoing(**changes: Any) -> Outgoing:
    fields: dict[str, Any] = {"method": b"GET", "host": "127.0.0.1", "port": 8080, "tls": False}
    fields |= {"target": b"/", "headers": [(b"host", b"shop.test")]}
    return Outgoing(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "http://127.0.0.1:8080/"),
        ({"tls": True, "port": 8443, "host": "::1"}, "https://[::1]:8443/"),
        ({"target": b"/a%2Fb/../c//%c3%a9?q=%20&r=+#"}, "http://127.0.0.1:8080/a%2Fb/../c//%c3%a9"),
    ],
)
def test_a_target_is_not_touched(changes: dict[str, Any], url: str):
    found = str(address(outgoing(**changes)))
    assert found.startswith(url)


def test_headers_keep_their_order_their_octets_and_their_number():
    given = [(b"x-b", b"1"), (b"x-a", "é".encode()), (b"x-b", b"\xff"), (b"X-B", b"3")]
    assert list(words(given).items()) == [
        ("x-b", "1"),
        ("x-a", "é"),
        ("x-b", "ÿ"),
        ("X-B", "3"),
    ]


@pytest.mark.parametrize(
    ("error", "kind", "sent"),
    [
        (ClientConnectorError(KEY, OSError("refused")), "connect", False),
        (ConnectionTimeoutError(), "timeout", False),
        (SocketTimeoutError(), "closed", True),
        (ClientResponseError(ASKED, ()), "invalid", True),
        (ClientPayloadError("cut"), "closed", True),
        (ServerDisconnectedError(), "closed", True),
        (ClientOSError("reset"), "closed", True),
    ],
)
def test_what_errors_of_the_client_mean(error: Exception, kind: str, sent: bool):
    meant = explained(error, "service:80")
    assert (meant.kind, meant.sent, meant.name) == (kind, sent, "service:80")
    assert "service:80: " in str(meant)


@pytest.mark.parametrize("maker", [AiohttpTransport, FastTransport])
def test_without_the_extra_one_line_says_what_to_install(
    maker: type[AiohttpTransport | FastTransport], monkeypatch: pytest.MonkeyPatch
):
    nothing: dict[str, object] = {}
    monkeypatch.setattr(aioclient, "find_spec", nothing.get)
    with pytest.raises(ImportError) as caught:
        maker()
    assert "pip install 'aiopatterns[gateway]'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.name in {"aiohttp", "httptools"}


def test_what_is_there_is_not_asked_for():
    assert find_spec("aiohttp")
    require("aiohttp")


@pytest.mark.real
async def test_a_session_adds_nothing_follows_nothing_and_keeps_nothing():
    page = (
        b"HTTP/1.1 302 Found\r\nlocation: /next\r\nset-cookie: a=b\r\n"
        b"content-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello"
    )
    session = open_session(4, 30.0, None)
    async with Service(answering(page)) as service, anyio.create_task_group() as tasks:
        await tasks.start(hold, session)
        for _ in range(2):
            url = address(outgoing(port=service.port))
            headers = words([(b"host", b"shop.test")])
            async with session.get(url, headers=headers, allow_redirects=False) as answer:
                assert answer.status == 302
                assert await answer.read() == b"hello"  # as it came, not unpacked
        assert service.heads == [b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n"] * 2
        tasks.cancel_scope.cancel()
    assert session.closed
