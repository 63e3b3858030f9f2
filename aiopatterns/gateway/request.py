"""What goes through the gateway's stages: one request, and the answer to it.

Names of headers are lower-case bytes, values are bytes as they came: nothing is decoded that need
not be. What a client may not say at all was refused before a :class:`Request` is made.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from copy import copy
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, final

from aiopatterns.core.codec import JSON

if TYPE_CHECKING:
    from collections.abc import Iterable

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

    Attributes:
        method: In upper case.
        path: Decoded once, and safe: no dot segments in any encoding, no backslash, no NUL.
        raw_path: As sent.
        query: As sent, without the question mark.
        host: Lower-case, without a port.
        scheme: ``"http"`` or ``"https"``.
        headers: As sent, names in lower case.
        client: Address of the client, trusted proxies considered: the key of its limits.
        correlation_id: What joins all that is done for it.
        route: The route it takes.
        body: What the client sends.
        identity: Who sends it, once that was verified.
    """

    __slots__ = (
        "_index",
        "body",
        "client",
        "correlation_id",
        "headers",
        "host",
        "identity",
        "method",
        "path",
        "query",
        "raw_path",
        "route",
        "scheme",
    )

    body: Body
    route: Route

    def __init__(
        self, method: str, raw_path: bytes, query: bytes, headers: Headers, *, scheme: str = "http"
    ) -> None:
        self.method: str = method
        self.raw_path: bytes = raw_path
        self.path: str = raw_path.decode()
        self.query: bytes = query
        self.headers: Headers = headers
        self._index: dict[bytes, bytes] = dict(reversed(headers))  # the first of a name stays
        self.scheme: str = scheme
        self.host: str = ""
        self.client: str = ""
        self.correlation_id: str = ""
        self.identity: Identity | None = None

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a header, or None."""
        return self._index.get(name)

    def header_list(self, name: bytes) -> bytes | None:
        """Return all values of a header, joined by ``b", "``, or None."""
        if name not in self._index:
            return None
        return b", ".join([value for each, value in self.headers if each == name])

    def with_headers(self, headers: Headers) -> Request:
        """Return the same request with other headers."""
        other = copy(self)
        other.headers = headers
        other._index = dict(reversed(headers))
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
