"""The transport over aiohttp's client: the default, with everything that client knows.

aiohttp keeps the connections, speaks TLS and the proxies of DNS; this file turns off what a proxy
must not do (cookies, redirects, decompression, headers of its own) and turns its errors into ours.

Guarantees: those of :mod:`aiopatterns.gateway.transport`. The client sends a request again by
itself when a connection that it had kept turns out to be closed, and the method is idempotent.

Non-guarantees: values of headers that are not UTF-8 are sent as the UTF-8 of their Latin-1
reading; the other transport sends them byte by byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast, final

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

    from aiohttp import ClientSession
    from anyio.abc import TaskGroup

    from aiopatterns.gateway.aioresponse import StrictResponse
    from aiopatterns.gateway.policy import Timeouts
    from aiopatterns.gateway.request import Headers
    from aiopatterns.gateway.transport import Incoming, Outgoing, UpstreamSocket

__all__ = ["AiohttpTransport"]

_CONNECTIONS: Final = 1024
_KEEP_ALIVE: Final = 30.0


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

    __slots__ = ("_endpoint", "_idle", "_response", "_upload", "_watched", "headers", "status")

    def __init__(
        self, response: StrictResponse, endpoint: str, upload: Upload | None, *, idle: float
    ) -> None:
        self._response = response
        self._endpoint = endpoint
        self._upload = upload
        self._idle = idle
        self._watched = False
        self.status: int = response.status
        self.headers: Headers = [(name.lower(), value) for name, value in response.raw_headers]
        if upload is not None:
            upload.broke = response.content.set_exception

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
        except Exception as error:
            self._response.destroy()
            raise _meaning(error, self._endpoint, self._upload) from error.__cause__
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Give the connection back if all was read, else close it."""
        if not self._response.content.is_eof():
            self._response.close()

    async def _wait(self) -> bytes:
        if not self._watched:
            self._watched = True
            self._response.watch()
        if self._upload is not None and self._upload.failure is not None:
            raise self._upload.failure
        with move_on_after(self._idle):
            return await self._response.content.readany()
        message = f"{self._endpoint}: nothing of the body came for {self._idle:g} s"
        raise UpstreamError(message, name=self._endpoint, kind="timeout", sent=True)


async def _exchange(session: ClientSession, outgoing: Outgoing, timeouts: Timeouts) -> _Answer:
    endpoint, body = outgoing.endpoint, outgoing.body
    upload: Upload | None = None
    # Connecting has its own bound inside; this one is for a head that is late.
    with move_on_after(timeouts.connect + timeouts.first_byte) as waiting:
        if body is not None and not isinstance(body, bytes):

            def moved() -> None:
                waiting.deadline = current_time() + timeouts.first_byte

            body = upload = Upload(body, outgoing.length, moved=moved)
        try:
            response = await _ask(session, outgoing, body, timeouts)
        except Exception as error:
            raise _meaning(error, endpoint, upload) from error
        if not response.regular:
            response.destroy()
            message = f"{endpoint}: the answer breaks the rules of HTTP"
            raise UpstreamError(message, name=endpoint, kind="invalid", sent=True)
        return _Answer(response, endpoint, upload, idle=timeouts.idle)
    message = f"{endpoint}: no answer within {timeouts.first_byte:g} s"
    raise UpstreamError(message, name=endpoint, kind="timeout", sent=True)


async def _ask(
    session: ClientSession, outgoing: Outgoing, body: bytes | Upload | None, timeouts: Timeouts
) -> StrictResponse:
    from aiohttp import ClientTimeout

    headers = words(outgoing.headers)
    if outgoing.length is not None and isinstance(body, Upload):
        headers["Content-Length"] = str(outgoing.length)
    response = await session.request(
        outgoing.method.decode(),
        address(outgoing),
        headers=headers,
        data=body,
        allow_redirects=False,
        timeout=ClientTimeout(connect=timeouts.connect, sock_connect=timeouts.connect),
    )
    # The session was told to make these.
    return cast("StrictResponse", response)


def _meaning(error: Exception, endpoint: str, upload: Upload | None) -> Exception:
    """Return the error to raise: the client's own, or what one of aiohttp's means."""
    if upload is not None and upload.failure is not None:
        return upload.failure
    return error if isinstance(error, UpstreamError) else explained(error, endpoint)
