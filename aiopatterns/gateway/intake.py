"""Intake: what a client may say at all, decided before anything is done for it.

::

    scope --- sizes --- framing --- names and values --- host --- path ---> Request
               414        400             400             400      400
               431        413, 501

An ASGI server has parsed the request, but servers differ in what they let through, so nothing that
could be read in two ways by the next one gets further: two lengths, a length beside a transfer
coding, control characters, two hosts, paths with dots.

Guarantees: what is refused has cost no I/O. A refusal of the framing or of a size closes the
connection, for nobody knows where the next request on it would begin.

Complexity: O(bytes of the head), all loops over bytes in C.
"""

from __future__ import annotations

import re
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final
from urllib.parse import quote

from aiopatterns.core.context import new_id
from aiopatterns.core.errors import RequestRefusedError
from aiopatterns.gateway.body import Body
from aiopatterns.gateway.headers import without_underscores
from aiopatterns.gateway.paths import check_query, checked_path
from aiopatterns.gateway.proxies import TrustedProxies
from aiopatterns.gateway.request import Request

if TYPE_CHECKING:
    from aiopatterns.gateway.policy import Limits
    from aiopatterns.gateway.request import Headers, Message, Receive

__all__ = ["Intake"]

_TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_CONTROLS: Final = bytes([*range(9), *range(10, 32), 127])
_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_METHOD: Final = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
# Methods that are no requests for a resource behind a gateway.
_UNSERVED: Final = frozenset({"CONNECT", "TRACE"})
_HOST: Final = re.compile(
    r"([a-z0-9_](?:[a-z0-9_.-]{0,253}[a-z0-9_])?|\[[0-9a-f:.]+\])\.?(?::\d{1,5})?"
)
_REQUEST_ID: Final = re.compile(rb"[\w.:/+=@-]{1,128}")
_DIGITS: Final = re.compile(rb"\d{1,19}")
# Headers of which two would be two requests, or two truths.
_SINGLE: Final = (b"content-length", b"host", b"transfer-encoding")
# Bytes that a header has besides its name and value.
_FRAME: Final = 4
_CLOSE: Final = ((b"connection", b"close"),)
_HOSTS_KEPT: Final = 1024
_SCHEMES: Final = MappingProxyType({"http": "http", "https": "https", "ws": "http", "wss": "https"})
# Versions in which a body is announced by a header.
_FRAMED: Final = frozenset({"1.", "0."})


@final
class Intake:
    """Makes requests of ASGI scopes, or refuses them.

    Args:
        limits: Sizes, and who is believed.
    """

    __slots__ = ("_limits", "_proxies")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._proxies = TrustedProxies(limits.trusted_proxies)

    def take(self, scope: Message) -> Request:
        """Return the request of an ``http`` or ``websocket`` scope, without its body.

        Raises:
            RequestRefusedError: It may not be taken.
        """
        limits = self._limits
        raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        query: bytes = scope["query_string"]
        if len(raw) + len(query) > limits.max_target:
            raise RequestRefusedError("the target is too long", status=414, headers=_CLOSE)
        method: str = scope.get("method", "GET")  # a WebSocket has none
        if method not in _METHODS:
            _check_method(method)
        headers = _checked_headers([*scope["headers"]], limits.max_headers)
        if query:
            check_query(query)
        request = Request(method, raw, query, headers, path=checked_path(raw))
        if len(request.index) != len(headers):
            _check_repeated(headers)
        if b"" in request.index:
            raise _nameless()
        self._locate(request, scope)
        return request

    def body(self, request: Request, scope: Message, receive: Receive) -> Body:
        """Return the body of a request; nothing of it is read.

        Raises:
            RequestRefusedError: It is too large, or framed in a way that is not understood.
        """
        header, limit = request.index.get, self._limits.max_body
        coding, length = header(b"transfer-encoding"), header(b"content-length")
        if coding is None and length is None:
            # Before HTTP/2 a body without either cannot be.
            return Body(None if scope["http_version"][:2] in _FRAMED else receive, limit)
        if coding is not None:
            _check_coding(coding, length, scope["http_version"])
            return Body(receive, limit)
        size = _size(length or b"")
        if size > limit:
            raise RequestRefusedError("the body is too large", status=413, headers=_CLOSE)
        return Body(receive if size else None, limit, size)

    def _locate(self, request: Request, scope: Message) -> None:
        """Find out where the request comes from, and what it is for."""
        known = request.index.get
        host = _host(known(b"host", b""))
        if host is None:
            msg = "the host is missing, or is none"
            raise RequestRefusedError(msg, status=400, headers=_CLOSE)
        request.host = host
        request.scheme = _SCHEMES.get(scope["scheme"], "http")
        peer = scope.get("client")
        request.peer = request.client = peer[0] if peer else "unknown"
        if self._proxies and self._proxies.trusts(request.peer):
            request.trusted = True
            chain = request.header_list(b"x-forwarded-for")
            request.client = self._proxies.client(request.peer, chain)
            told = known(b"x-forwarded-proto", b"").decode("latin-1")
            request.scheme = told if told in {"http", "https"} else request.scheme
        wanted = known(b"x-request-id")
        if wanted is not None and _REQUEST_ID.fullmatch(wanted):
            request.correlation_id = wanted.decode()
        else:
            request.correlation_id = new_id()


def _checked_headers(headers: Headers, most: int) -> Headers:
    """Return the headers that may be looked at."""
    names = b"".join([name for name, _ in headers])
    values = b"".join([value for _, value in headers])
    if len(names) + len(values) + _FRAME * len(headers) > most:
        raise RequestRefusedError("the headers are too long", status=431, headers=_CLOSE)
    if names.translate(None, _TOKEN):
        raise _nameless()
    if len(values.translate(None, _CONTROLS)) != len(values):
        raise RequestRefusedError("a header has no valid value", status=400, headers=_CLOSE)
    return without_underscores(headers) if b"_" in names else headers


def _nameless() -> RequestRefusedError:
    return RequestRefusedError("a header has no valid name", status=400, headers=_CLOSE)


def _check_repeated(headers: Headers) -> None:
    """Refuse two of a header of which there is one."""
    seen = [name for name, _ in headers if name in _SINGLE]
    if len(seen) != len(set(seen)):
        raise RequestRefusedError("a header is there twice", status=400, headers=_CLOSE)


def _check_method(method: str) -> None:
    if not _METHOD.fullmatch(method):
        raise RequestRefusedError("the method is none", status=400, headers=_CLOSE)
    if method in _UNSERVED:
        raise RequestRefusedError("this method is not served", status=501, headers=_CLOSE)


def _check_coding(coding: bytes, length: bytes | None, version: str) -> None:
    if length is not None or version == "1.0":
        msg = "a length, or an old version, and a transfer coding contradict each other"
        raise RequestRefusedError(msg, status=400, headers=_CLOSE)
    if coding.lower() != b"chunked":
        msg = "this transfer coding is not understood"
        raise RequestRefusedError(msg, status=501, headers=_CLOSE)


def _size(length: bytes) -> int:
    if not _DIGITS.fullmatch(length):
        raise RequestRefusedError("the length is none", status=400, headers=_CLOSE)
    return int(length)


@lru_cache(_HOSTS_KEPT)
def _host(value: bytes) -> str | None:
    """Return the name in a ``Host`` header, or None if there is none."""
    match = _HOST.fullmatch(value.decode("latin-1").lower())
    return None if match is None else match[1]
