"""What goes through the gateway's stages: one request, and the answer to it.

Names of headers are lower-case bytes, values are bytes as they came: nothing is decoded that need
not be. What a client may not say at all was refused before a :class:`Request` is made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from copy import copy
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, final

from aiopatterns.core.codec import JSON

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from aiopatterns.gateway.body import Body
    from aiopatterns.gateway.policy import Identity
    from aiopatterns.gateway.routing import Route

__all__ = ["Chunks", "Headers", "Message", "Receive", "Request", "Response", "Send"]

Headers: TypeAlias = list[tuple[bytes, bytes]]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_JSON: Final = (b"content-type", b"application/json")
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_PROBLEM: Final = (b"content-type", b"application/problem+json")


class Chunks(Protocol):
    """A body that is streamed: an async iterator of bytes that can be closed at any time."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body."""
        ...

    async def aclose(self) -> None:
        """Give up what is behind it; harmless if done already."""
        ...


@final
class Request:
    """One request, as the stages see it.

    Args:
        method: In upper case.
        raw_path: The path as sent.
        query: As sent, without the question mark.
        headers: As sent, names in lower case.
        path: Decoded once, and safe: no dot segments in any encoding, no backslash, no control
            character. A slash within a segment stays ``%2F``.

    Attributes:
        index: The first value of each header.
        host: Lower-case, without a port.
        scheme: ``"http"`` or ``"https"``.
        peer: Address that the connection came from.
        trusted: Whether that is a trusted proxy.
        client: Address of the client, trusted proxies considered: the key of its limits.
        correlation_id: What joins all that is done for it.
        identity: Who sends it, once that was verified.
        route: The route it takes.
        body: What the client sends.
    """

    __slots__ = (
        "body",
        "client",
        "correlation_id",
        "headers",
        "host",
        "identity",
        "index",
        "method",
        "path",
        "peer",
        "query",
        "raw_path",
        "route",
        "scheme",
        "trusted",
    )

    body: Body
    correlation_id: str
    route: Route

    def __init__(
        self,
        method: str,
        raw_path: bytes,
        query: bytes,
        headers: Headers,
        *,
        path: str | None = None,
    ) -> None:
        self.method: str = method
        self.raw_path: bytes = raw_path
        self.query: bytes = query
        self.headers: Headers = headers
        self.path: str = raw_path.decode() if path is None else path
        self.index: dict[bytes, bytes] = dict(reversed(headers))  # so the first of a name stays
        self.host: str = ""
        self.scheme: str = "http"
        self.peer: str = ""
        self.trusted: bool = False
        self.client: str = ""
        self.identity: Identity | None = None

    def __repr__(self) -> str:
        return f"Request({self.method!r}, {self.path!r})"

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a header, or None."""
        return self.index.get(name)

    def header_list(self, name: bytes) -> bytes | None:
        """Return all values of a header, joined by ``b", "``, or None."""
        if name not in self.index:
            return None
        return b", ".join([value for each, value in self.headers if each == name])

    def with_headers(self, headers: Headers) -> Request:
        """Return the same request with other headers."""
        other = copy(self)
        other.headers = headers
        other.index = dict(reversed(headers))
        return other


@final
class Response:
    """An answer: a status, headers, and a body that is whole or streamed.

    Args:
        status: 200 to 599.
        headers: Names in lower case.
        body: Bytes, or chunks that come as they are taken.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        status: int,
        headers: Headers | None = None,
        body: bytes | Chunks = b"",
    ) -> None:
        self.status: int = status
        self.headers: Headers = [] if headers is None else headers
        self.body: bytes | Chunks = body

    @property
    def content(self) -> bytes:
        """The body, if it is whole, as those of ``Gateway.fetch`` are.

        Raises:
            TypeError: It is streamed.
        """
        if isinstance(self.body, bytes):
            return self.body
        msg = "the body is streamed; iterate over .body"
        raise TypeError(msg)

    async def aclose(self) -> None:
        """Give up what is behind a streamed body; harmless if done already."""
        if not isinstance(self.body, bytes):
            await self.body.aclose()

    @staticmethod
    def json(value: object, status: int = 200) -> Response:
        """Return ``value`` as JSON."""
        return _whole(status, _JSON, JSON.encode(value))

    @staticmethod
    def text(value: str, status: int = 200) -> Response:
        """Return ``value`` as plain text."""
        return _whole(status, _TEXT, value.encode())

    @staticmethod
    def error(status: int, reason: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> Response:
        """Return an error by RFC 9457, which says no more than ``reason``.

        Args:
            status: 400 to 599.
            reason: One line for the client.
            headers: More headers.
        """
        value = {"title": reason, "status": status}
        response = _whole(status, _PROBLEM, JSON.encode(value))
        response.headers.extend(headers)
        return response


def _whole(status: int, kind: tuple[bytes, bytes], body: bytes) -> Response:
    return Response(status, [kind, (b"content-length", b"%d" % len(body))], body)
