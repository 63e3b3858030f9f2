"""Requests as the cache looks at them, and answers as it gives them.

A client that has an answer already and asks whether it still holds gets a 304 from here, and a
``HEAD`` the head of the answer to a ``GET``. Each answer says how old it is (``Age``) and where it
comes from (``Cache-Status``).

Source: RFC 9111 sections 4 and 5.1, RFC 9110 section 15.4.5 (304), RFC 9211 (Cache-Status).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final
from urllib.parse import urlsplit

from aiopatterns.gateway.cachecontrol import directives
from aiopatterns.gateway.cacherules import conditions, unchanged
from aiopatterns.gateway.headers import from_service, original_host
from aiopatterns.gateway.request import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from aiopatterns.gateway.cachecontrol import Directives
    from aiopatterns.gateway.cachestock import Address, Stored
    from aiopatterns.gateway.request import Headers, Request

__all__ = [
    "BRIDGED",
    "COLLAPSED",
    "CONDITIONS",
    "CONFIRMED",
    "HIT",
    "KEPT",
    "STALE",
    "Ask",
    "given",
    "kept_headers",
    "related",
]

#: Where an answer comes from: from stock.
HIT: Final = (b"cache-status", b"aiopatterns; hit")
#: From stock, and it is renewed meanwhile.
STALE: Final = (b"cache-status", b"aiopatterns; hit; detail=stale-while-revalidate")
#: From stock, for the service has failed.
BRIDGED: Final = (b"cache-status", b"aiopatterns; hit; detail=stale-if-error")
#: From the service, which said that what is in stock still holds.
CONFIRMED: Final = (b"cache-status", b"aiopatterns; fwd=stale; fwd-status=304; stored")
#: From the service, and kept.
KEPT: Final = (b"cache-status", b"aiopatterns; fwd=miss; stored")
#: From the service, which was asked by another request.
COLLAPSED: Final = (b"cache-status", b"aiopatterns; fwd=miss; collapsed")

_OK: Final = 200
_NOT_MODIFIED: Final = 304
_NO_CONTENT: Final = 204
#: Headers by which a client asks whether what it has still holds.
CONDITIONS: Final = frozenset({b"if-modified-since", b"if-none-match"})
# Requests with these are not answered from stock.
_APART: Final = frozenset({b"if-match", b"if-range", b"if-unmodified-since", b"range"})
# What a 304 says.
_OF_304: Final = frozenset(
    {b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary"}
)
# What is told anew with each answer.
_TOLD: Final = frozenset({b"age", b"content-length", b"x-request-id"})
_NOTHING: Final[Mapping[bytes, int]] = MappingProxyType({})


@final
class Ask:
    """A request that may be answered from stock.

    Args:
        request: The request, a ``GET`` or ``HEAD``.
        forward: Sends a request to the service.

    Attributes:
        address: What it asks for.
        asked: The directives of its Cache-Control.
        personal: Whether its sender says who he is.
    """

    __slots__ = ("address", "asked", "forward", "personal", "request")

    def __init__(self, request: Request, forward: Callable[[Request], Awaitable[Response]]) -> None:
        index = request.index
        self.request: Request = request
        self.forward: Callable[[Request], Awaitable[Response]] = forward
        self.address: Address = _address(request, request.raw_path, request.query)
        self.personal: bool = request.identity is not None or b"authorization" in index
        self.asked: Directives = _NOTHING
        if b"cache-control" in index:
            self.asked = directives(request.header_list(b"cache-control"))

    @property
    def apart(self) -> bool:
        """Whether it has nothing to do with what is in stock."""
        return (
            not self.request.body.empty
            or not _APART.isdisjoint(self.request.index)
            or b"no-store" in self.asked
        )

    @property
    def conditional(self) -> bool:
        """Whether the client has an answer already, and asks whether it still holds."""
        return not CONDITIONS.isdisjoint(self.request.index)

    def about(self, kept: Stored | None) -> Request:
        """Return the request that asks the service whether what is in stock still holds.

        Args:
            kept: What is in stock; None to ask as the client does.
        """
        if kept is None:
            return self.request
        others = [each for each in self.request.headers if each[0] not in CONDITIONS]
        return self.request.with_headers(others + conditions(kept.terms))


def given(kept: Stored, request: Request, now: float, status: tuple[bytes, bytes]) -> Response:
    """Return the answer to a request by what is in stock.

    Args:
        kept: What is in stock.
        request: A ``GET`` or ``HEAD``.
        now: Monotonic seconds.
        status: Where it comes from.
    """
    told = [(b"age", b"%d" % kept.age(now)), status]
    asks = kept.status == _OK and not CONDITIONS.isdisjoint(request.index)
    if asks and unchanged(kept.terms, request.header_list):
        said = [each for each in kept.headers if each[0] in _OF_304]
        return Response(_NOT_MODIFIED, said + told)
    return Response(
        kept.status, kept.headers + told, b"" if request.method == "HEAD" else kept.body
    )


def kept_headers(response: Response, body: bytes) -> Headers:
    """Return the header fields of an answer as they are kept.

    Args:
        response: The answer.
        body: Its body.
    """
    headers = [each for each in from_service(response.headers) if each[0] not in _TOLD]
    if response.status != _NO_CONTENT:
        headers.append((b"content-length", b"%d" % len(body)))
    return headers


def related(request: Request, response: Response | None) -> Iterator[Address]:
    """Iterate over the addresses that a request has changed.

    That is its own, and what its answer says that it is about. The service may not know the prefix
    that was stripped, so that is tried too.

    Args:
        request: One of an unsafe method.
        response: Its answer, if there was one.
    """
    yield _address(request, request.raw_path, request.query)
    for name, value in [] if response is None else response.headers:
        if name in {b"location", b"content-location"}:
            path, query = _within(request, value)
            yield _address(request, path, query)
            if request.route.strip_prefix:
                yield _address(request, request.route.path.rstrip("/").encode() + path, query)


def _address(request: Request, path: bytes, query: bytes) -> Address:
    return request.scheme, original_host(request), path, query


def _within(request: Request, reference: bytes) -> tuple[bytes, bytes]:
    """Return path and query of a reference; the path is empty if it is to another host."""
    try:
        parts = urlsplit(reference)
    except ValueError:
        return b"", b""
    if parts.netloc not in {b"", original_host(request)} or parts.path[:1] != b"/":
        return b"", b""
    return parts.path, parts.query
