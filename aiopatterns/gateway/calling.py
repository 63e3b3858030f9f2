"""Calls of the gateway's own: of routes that are functions, and for key sets.

They go the way of forwarded requests from the balancer on, so a function that asks three services has
their circuits, retries and timeouts without a word about them. What a call is part of goes with it:
the correlation id, the trace, and who the client is.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from aiopatterns.core.context import correlation_id, new_id
from aiopatterns.core.errors import UpstreamError
from aiopatterns.gateway.body import Body
from aiopatterns.gateway.headers import from_service
from aiopatterns.gateway.paths import check_query, checked_path
from aiopatterns.gateway.request import Request
from aiopatterns.resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiopatterns.gateway.proxy import Proxy
    from aiopatterns.gateway.request import Message, Response

__all__ = ["call", "own_request"]

_METHOD: Final = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
# What goes with a call from the request that it is part of.
_PASSED_ON: Final = (
    b"traceparent",
    b"tracestate",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"host",
)


def own_request(
    method: str,
    target: str,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
    whole: Request | None,
) -> Request:
    """Return a request of the gateway's own.

    Args:
        method: In upper case.
        target: Path and query, encoded.
        headers: Names in lower case.
        body: The body.
        whole: The request that this is part of, if there is one.

    Raises:
        ValueError: ``method`` is none.
        RequestRefusedError: ``target`` may not be forwarded.
    """
    if not _METHOD.fullmatch(method):
        msg = f"method must be a name in upper case, not {method!r}"
        raise ValueError(msg)
    path, _, query = target.partition("?")
    raw, asked = path.encode(), query.encode()
    check_query(asked)
    given = [*headers]
    if whole is not None:
        names = {name for name, _ in given}
        given += [each for each in whole.headers if each[0] in _PASSED_ON and each[0] not in names]
    request = Request(method, raw, asked, given, path=checked_path(raw))
    request.body = _held(body)
    if whole is None:
        request.correlation_id = correlation_id() or new_id()
        request.peer = request.client = "unknown"
        return request
    request.correlation_id, request.identity = whole.correlation_id, whole.identity
    request.scheme, request.peer, request.client = whole.scheme, whole.peer, whole.client
    request.trusted = whole.trusted
    return request


async def call(proxy: Proxy, request: Request, total: float | None, most: int) -> Response:
    """Send a request and return the answer with its whole body.

    Args:
        proxy: Where it goes.
        request: The request.
        total: Seconds that it may take; None for any time.
        most: Bytes of the body at most.

    Raises:
        UpstreamError: There is no answer, or a larger one.
        RejectedError: No endpoint may be asked.
        TimeoutExceededError: It took too long.

    Cancellation: the connection is closed.
    """
    with nullcontext() if total is None else Timeout(total).scope():
        response = await proxy.forward(request)
        response.headers = from_service(response.headers)
        if not isinstance(response.body, bytes):
            response.body = await _gathered(response, proxy.target, most)
    return response


async def _gathered(response: Response, name: str, most: int) -> bytes:
    """Return the whole body of an answer; it is closed in any case."""
    chunks, size = list[bytes](), 0
    assert not isinstance(response.body, bytes)
    try:
        async for chunk in response.body:
            chunks.append(chunk)
            size += len(chunk)
            if size > most:
                msg = f"{name}: the answer is larger than {most} bytes"
                raise UpstreamError(msg, name=name, kind="invalid", sent=True)
    finally:
        await response.aclose()
    return b"".join(chunks)


def _held(body: bytes) -> Body:
    """Return a body that is here already."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    return Body(receive if body else None, len(body), len(body))
