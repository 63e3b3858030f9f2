"""The transport over aiohttp's client: the default, with everything that client knows.

aiohttp keeps the connections, speaks TLS and the proxies of DNS; this file turns off what a proxy
must not do (cookies, redirects, decompression, headers of its own) and turns its errors into ours.

Guarantees: those of :mod:`aiopatterns.gateway.transport`. The client sends a request again by
itself when a connection that it had kept turns out to be closed, and the method is idempotent.

Non-guarantees: values of headers that are not UTF-8 are sent as the UTF-8 of their Latin-1
reading; the other transport sends them byte by byte.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, final

from anyio import current_time, move_on_after

from aiopatterns.core.errors import UpstreamError
from aiopatterns.core.validate import count, positive
from aiopatterns.gateway.aioclient import address, explained, hold, open_session, require, words
from aiopatterns.gateway.transport import Transport, TransportStatistics
from aiopatterns.gateway.upload import Upload
from aiopatterns.gateway.wsclient import dial

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Sequence

    from aiohttp import ClientResponse, ClientSession
    from anyio.abc import TaskGroup

    from aiopatterns.gateway.policy import Timeouts
    from aiopatterns.gateway.request import Headers
    from aiopatterns.gateway.transport import Incoming, Outgoing, UpstreamSocket

__all__ = ["AiohttpTransport"]

_CONNECTIONS: Final = 1024
_KEEP_ALIVE: Final = 30.0
# Bytes of one header, and of a body that is held for its reader.
_OK: Final = 200
_HEADER: Final = 32 * 1024
_HELD: Final = 64 * 1024
# The client reads values leniently; these octets would let one header become two.
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


@final
class AiohttpTransport(Transport):
    """Sends requests by aiohttp's client.

    Args:
        max_connections: Connections to one endpoint at most; a request that gets none within the
            connect timeout is a timeout.
        keep_alive: Seconds that an idle connection is kept.
        tls: How ``https`` endpoints are verified; by default by the system's authorities.
        name: How statistics and errors call it.

    Raises:
        ImportError: aiohttp is not installed.
    """

    __slots__ = ("_connections", "_failed", "_keep_alive", "_requests", "_session", "_tls")

    def __init__(
        self,
        *,
        max_connections: int = _CONNECTIONS,
        keep_alive: float = _KEEP_ALIVE,
        tls: ssl.SSLContext | None = None,
        name: str = "transport",
    ) -> None:
        require("aiohttp")
        super().__init__(name)
        self._connections = count("max_connections", max_connections)
        self._keep_alive = positive("keep_alive", keep_alive)
        self._tls = tls
        self._session: ClientSession | None = None
        self._requests = 0
        self._failed = 0

    def statistics(self) -> TransportStatistics:
        """Return this transport's figures."""
        return TransportStatistics(requests=self._requests, failed=self._failed)

    async def send(self, outgoing: Outgoing, timeouts: Timeouts) -> Incoming:
        """Send a request; see :class:`~aiopatterns.gateway.transport.Transport`."""
        if self._session is None:
            raise self._unopened()
        self._requests += 1
        try:
            return await _exchange(self._session, outgoing, timeouts)
        except UpstreamError:
            self._failed += 1
            raise

    async def websocket(
        self, outgoing: Outgoing, subprotocols: Sequence[str], timeouts: Timeouts
    ) -> UpstreamSocket:
        """Open a WebSocket; see :class:`~aiopatterns.gateway.transport.Transport`."""
        if self._session is None:
            raise self._unopened()
        return await dial(self._session, outgoing, subprotocols, timeouts)

    async def _start(self, tasks: TaskGroup) -> None:
        self._session = open_session(self._connections, self._keep_alive, self._tls)
        await tasks.start(hold, self._session)

    def _settle(self) -> None:
        self._session = None


@final
class _Answer:
    """An answer of aiohttp's client, as an :class:`~aiopatterns.gateway.transport.Incoming`."""

    __slots__ = ("_endpoint", "_idle", "_response", "_upload", "headers", "status")

    def __init__(
        self, response: ClientResponse, endpoint: str, upload: Upload | None, *, idle: float
    ) -> None:
        self._response = response
        self._endpoint = endpoint
        self._upload = upload
        self._idle = idle
        self.status: int = response.status
        self.headers: Headers = [(name.lower(), value) for name, value in response.raw_headers]

    def whole(self) -> bytes | None:
        """Return the body if all of it is here."""
        content = self._response.content
        if not content.is_eof() or content.exception() is not None:
            return None
        return content.read_nowait(-1)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return this answer."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next chunk."""
        content = self._response.content
        try:
            chunk = content.read_nowait(-1)
            if not chunk and not content.at_eof():
                chunk = await self._wait()
        except UpstreamError:
            self._response.close()
            raise
        except Exception as error:
            self._response.close()
            if self._upload is not None and self._upload.failure is not None:
                raise self._upload.failure from None
            raise explained(error, self._endpoint) from error
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def _wait(self) -> bytes:
        with move_on_after(self._idle):
            return await self._response.content.readany()
        raise UpstreamError(
            f"{self._endpoint}: nothing of the body came for {self._idle:g} s",
            name=self._endpoint,
            kind="timeout",
            sent=True,
        )

    async def aclose(self) -> None:
        """Give the connection back if all was read, else close it."""
        if not self._response.content.at_eof():
            self._response.close()


async def _exchange(session: ClientSession, outgoing: Outgoing, timeouts: Timeouts) -> _Answer:
    endpoint = outgoing.endpoint
    upload: Upload | None = None
    body = outgoing.body
    # Cancels by itself only what has a head that is late; connecting has its own bound.
    with move_on_after(timeouts.connect + timeouts.first_byte) as waiting:
        if body is not None and not isinstance(body, bytes):

            def moved() -> None:
                waiting.deadline = current_time() + timeouts.first_byte

            body = upload = Upload(body, outgoing.length, moved=moved)
        try:
            response = await _ask(session, outgoing, body, timeouts)
        except Exception as error:
            if upload is not None and upload.failure is not None:
                raise upload.failure from None
            raise explained(error, endpoint) from error
        return _checked(response, endpoint, upload, timeouts.idle)
    raise UpstreamError(
        f"{endpoint}: no answer within {timeouts.first_byte:g} s",
        name=endpoint,
        kind="timeout",
        sent=True,
    )


async def _ask(
    session: ClientSession, outgoing: Outgoing, body: bytes | Upload | None, timeouts: Timeouts
) -> ClientResponse:
    from aiohttp import ClientTimeout

    headers = words(outgoing.headers)
    if outgoing.length is not None and isinstance(body, Upload):
        headers["Content-Length"] = str(outgoing.length)
    return await session.request(
        outgoing.method.decode(),
        address(outgoing),
        headers=headers,
        data=body,
        allow_redirects=False,
        timeout=ClientTimeout(connect=timeouts.connect, sock_connect=timeouts.connect),
    )


def _checked(
    response: ClientResponse, endpoint: str, upload: Upload | None, idle: float
) -> _Answer:
    """Return the answer, unless it has framing or octets that could become two answers."""
    answer = _Answer(response, endpoint, upload, idle=idle)
    codings = [value for name, value in answer.headers if name == b"transfer-encoding"]
    broken = response.status < _OK or (codings and codings != [b"chunked"])
    if broken or _CONTROLS.search(b" ".join([value for _, value in answer.headers])):
        response.close()
        raise UpstreamError(
            f"{endpoint}: the answer breaks the rules of HTTP",
            name=endpoint,
            kind="invalid",
            sent=True,
        )
    return answer
