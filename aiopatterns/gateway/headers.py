"""Headers: what may pass the gateway, in either direction, and what it adds.

::

    towards the service
      dropped             Connection and all that it names, Keep-Alive, Proxy-*, TE, Trailer,
                          Transfer-Encoding, Upgrade, Content-Length (the body is framed anew),
                          Expect (the server has seen to it), Forwarded, X-Real-IP, and names
                          with an underscore, for many servers the same as a hyphen
      dropped, then set   Host, X-Forwarded-For, -Proto, -Host, -Prefix, Via, traceparent,
                          X-Request-ID, X-User-Id
    towards the client
      dropped             the hop-by-hop ones, and Date and Server, which the ASGI server sets
      set                 X-Request-ID

Everything else passes as it came, in its order.

A peer that is no trusted proxy is not believed about ``X-Forwarded-*``: the service sees the address
that the connection came from. The list of a trusted one is continued.

Source: RFC 9110 section 7.6 (Connection, Via), W3C Trace Context.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from aiopatterns.core.clock import rng
from aiopatterns.core.tracing import traceparent

if TYPE_CHECKING:
    from aiopatterns.gateway.request import Headers, Request

__all__ = [
    "continued_trace",
    "from_service",
    "original_host",
    "to_client",
    "to_service",
    "without_underscores",
]

_HOP: Final = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_TO_SERVICE: Final = _HOP | {
    b"content-length",
    b"expect",
    b"forwarded",
    b"host",
    b"traceparent",
    b"tracestate",
    b"via",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-forwarded-proto",
    b"x-original-url",
    b"x-real-ip",
    b"x-request-id",
    b"x-rewrite-url",
    b"x-user-id",
}
_TO_CLIENT: Final = _HOP | {b"date", b"server", b"x-request-id"}
# What nobody makes disappear by naming it in a Connection header.
_END_TO_END: Final = frozenset(
    {
        b"authorization",
        b"cache-control",
        b"content-length",
        b"content-type",
        b"cookie",
        b"set-cookie",
        b"vary",
    }
)
_VIA: Final = b"1.1 aiopatterns"
_TRACE: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?"
)


def to_service(request: Request, host: bytes, prefix: bytes | None) -> Headers:
    """Return the headers that a service gets.

    Args:
        request: What the client sent.
        host: The ``Host`` of the service.
        prefix: What was stripped from the path, if anything.

    Complexity: O(headers).
    """
    known = request.index.get
    dropped = _dropped(request.header_list(b"connection"), _TO_SERVICE)
    kept = [each for each in request.headers if each[0] not in dropped]
    via, trace = request.header_list(b"via"), known(b"traceparent")
    continued = None if trace is None else continued_trace(trace)
    ours = traceparent()
    kept += (
        (b"host", host),
        (b"x-forwarded-for", _chain(request)),
        (b"x-forwarded-proto", request.scheme.encode()),
        (b"x-forwarded-host", original_host(request)),
        (b"via", _VIA if via is None else via + b", " + _VIA),
        (b"traceparent", ours.encode() if ours else continued or _fresh_trace()),
        (b"x-request-id", request.correlation_id.encode()),
    )
    if continued is not None and (state := request.header_list(b"tracestate")) is not None:
        kept.append((b"tracestate", state))
    if prefix:
        kept.append((b"x-forwarded-prefix", prefix))
    if request.identity is not None:
        kept.append((b"x-user-id", _subject(request.identity.subject)))
    return kept


def to_client(headers: Headers, request_id: str) -> Headers:
    """Return the headers of an answer as the client gets them.

    Args:
        headers: As the service sent them.
        request_id: Goes out as ``X-Request-ID``.

    Complexity: O(headers).
    """
    dropped = _dropped(_connection(headers), _TO_CLIENT)
    kept = [each for each in headers if each[0] not in dropped]
    kept.append((b"x-request-id", request_id.encode()))
    return kept


def from_service(headers: Headers) -> Headers:
    """Return the headers of an answer without the hop-by-hop ones, to be kept or used again."""
    dropped = _dropped(_connection(headers), _HOP)
    return [each for each in headers if each[0] not in dropped]


def without_underscores(headers: Headers) -> Headers:
    """Return the headers that no server can take for others."""
    return [each for each in headers if b"_" not in each[0]]


def continued_trace(received: bytes) -> bytes | None:
    """Return a ``traceparent`` that continues the one received; None if that is none.

    The gateway is a span of its own: it keeps the trace and its flags, and sends a fresh parent.
    """
    match = _TRACE.fullmatch(received)
    if match is None:
        return None
    return b"00-%b-%016x-%b" % (match[1], rng().getrandbits(64) or 1, match[2])


def _fresh_trace() -> bytes:
    """Return the ``traceparent`` of a trace that begins here, and is not sampled."""
    bits = rng().getrandbits
    return b"00-%032x-%016x-00" % (bits(128) or 1, bits(64) or 1)


def _connection(headers: Headers) -> bytes | None:
    found = [value for name, value in headers if name == b"connection"]
    return b",".join(found) if found else None


def _dropped(connection: bytes | None, dropped: frozenset[bytes]) -> frozenset[bytes]:
    """Return ``dropped`` and the names that a ``Connection`` header holds."""
    if connection is None or connection == b"keep-alive":
        return dropped
    named = {each.strip().lower() for each in connection.split(b",")}
    return dropped | (named - _END_TO_END)


def _chain(request: Request) -> bytes:
    """Return the addresses on the way, that of the peer last."""
    peer = request.peer.encode()
    if not request.trusted:
        return peer
    before = request.header_list(b"x-forwarded-for")
    return peer if before is None else before + b", " + peer


def original_host(request: Request) -> bytes:
    """Return the host that the client asked for."""
    told = request.header(b"x-forwarded-host") if request.trusted else None
    return told or request.header(b"host") or b""


def _subject(subject: str) -> bytes:
    """Return a subject as the value of a header; what is no printable ASCII is percent-encoded."""
    if subject.isascii() and subject.isprintable():
        return subject.encode()
    return quote(subject, safe="@:/ ").encode()
