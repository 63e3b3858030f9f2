"""The span of an HTTP request that an ASGI application serves.

::

    scope (method, path, headers) --> serving(scope) --> span of kind server, in the trace of the
                                                         traceparent that was received

The gateway and :mod:`aiopatterns.contrib.asgi` begin their spans here, so both read a request alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiopatterns.core.tracing import NO_SPAN, Request, tracer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.core.tracing import Span

__all__ = ["serving"]


def serving(scope: Mapping[str, Any]) -> Span:
    """Begin the span of the request of an ASGI scope; :data:`NO_SPAN` if nobody traces.

    Args:
        scope: Of type ``http``.
    """
    found = tracer()
    if found is None:
        return NO_SPAN
    origin: bytes | None = next((v for name, v in scope["headers"] if name == b"traceparent"), None)
    host, port = scope.get("server") or ("", None)
    step = Request(
        "server",
        scope["method"],
        scope["path"],
        scope.get("scheme", "http"),
        host,
        port,
        None if origin is None else origin.decode("latin-1"),
    )
    return found.start(step)
