"""The proxy: a request goes to a service, again if that is safe, and its answer comes back.

A request is sent again only if nobody can tell that it was sent twice:

==========================================  ============================================
what happened                               sent again
==========================================  ============================================
nothing was sent (refused connection, ...)  any method, if its body is still there
no answer, or a broken one                  ``GET HEAD OPTIONS PUT DELETE``, or a request with
                                            an ``Idempotency-Key``, if its body is still there
the answer's head was there                 never, but for ``Retry(on_result=...)``
==========================================  ============================================

A body is still there if there is none, or none of it was read, or all of it is held: that of an
idempotent request of up to 64 KiB is read before the first attempt. How often, and how many
in all, is what the route's ``Retry`` and its budget say. Another attempt goes to another endpoint, if
there is one.

Guarantees: bodies are streamed in both directions, each read no faster than the other side takes it,
and never held as a whole but for the above. What the service gets is framed anew.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, final
from urllib.parse import quote

from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import UpstreamError
from aiopatterns.core.tracing import Request as Call
from aiopatterns.core.tracing import tracer
from aiopatterns.gateway.headers import to_service
from aiopatterns.gateway.paths import after_segments
from aiopatterns.gateway.request import Response
from aiopatterns.gateway.site import Held
from aiopatterns.gateway.transport import Outgoing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiopatterns.core.tracing import Tracer
    from aiopatterns.gateway.body import Body
    from aiopatterns.gateway.policy import RoutePolicy
    from aiopatterns.gateway.request import Request
    from aiopatterns.gateway.routing import Route
    from aiopatterns.gateway.site import Site
    from aiopatterns.gateway.transport import Incoming, Transport, UpstreamSocket
    from aiopatterns.gateway.upstream import Upstream
    from aiopatterns.resilience.retry import Retry

__all__ = ["Proxy"]

_IDEMPOTENT: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT"})
_HELD: Final = 64 * 1024
# Answers that have no body, whatever they say about its length.
_BODILESS: Final = frozenset({204, 205, 304})


# Endpoints that are asked for one WebSocket.
_HANDSHAKES: Final = 3
_SWITCHED: Final = 101


@final
class _Upgraded:
    """A WebSocket as the answer to its handshake."""

    __slots__ = ("socket", "status")

    def __init__(self, socket: UpstreamSocket) -> None:
        self.socket: UpstreamSocket = socket
        self.status: int = _SWITCHED


@final
class Proxy:
    """Forwards the requests of one route.

    Args:
        route: The route.
        policy: What may happen to its requests.
        upstream: Where they go.
        transport: How they get there.
        count_retry: Called for each attempt that is not the first.
    """

    __slots__ = (
        "_count_retry",
        "_prefix",
        "_retry",
        "_strip",
        "_timeouts",
        "_transport",
        "_upstream",
    )

    def __init__(
        self,
        route: Route,
        policy: RoutePolicy,
        *,
        upstream: Upstream,
        transport: Transport,
        count_retry: Callable[[], object],
    ) -> None:
        self._upstream = upstream
        self._transport = transport
        self._timeouts = policy.timeouts
        self._retry = policy.retry
        self._strip = len(route.segments) if route.strip_prefix else 0
        self._prefix = quote(route.path).encode() if self._strip else None
        self._count_retry = count_retry

    @property
    def target(self) -> str:
        """The service, or the base URL."""
        return self._upstream.target

    def forward(self, request: Request) -> Awaitable[Response]:
        """Return what to await for the service's answer, headers as they came.

        Raises:
            UpstreamError: There is no answer, after all attempts.
            RejectedError: No endpoint may be asked.
            RequestRefusedError: The client's body is refused while it is read.
            ClientGoneError: The client has gone.

        Cancellation: the connection is closed, unless it had an answer of which all was read.
        """
        body, retry = request.body, self._retry
        payload = None if body.empty else body
        if retry is None:
            return self._once(request, payload)
        if payload is not None and _is_held(request, body):
            return self._buffered(retry, request)
        return self._tried(retry, request, payload)

    async def socket(
        self, request: Request, subprotocols: Sequence[str]
    ) -> tuple[UpstreamSocket, Site]:
        """Open a WebSocket to the service, at another endpoint if one cannot be reached.

        Returns:
            The WebSocket, and where it goes: there a place is held, to be released at its end.

        Raises:
            UpstreamError: There is none to be had.
            RejectedError: No endpoint may be asked.

        Cancellation: nothing is left open.
        """

        async def connect(site: Site) -> _Upgraded:
            outgoing = self._outgoing(request, None, site)
            socket = await self._transport.websocket(outgoing, subprotocols, self._timeouts)
            return _Upgraded(socket)

        tried: list[str] = []
        while True:
            try:
                upgraded, site = await self._upstream.attempt(connect, tried)
            except UpstreamError as error:
                if error.sent or self._upstream.balancer is None or len(tried) >= _HANDSHAKES:
                    raise
            else:
                return upgraded.socket, site

    async def _once(self, request: Request, payload: Body | None) -> Response:
        incoming, site = await self._upstream.attempt(partial(self._send, request, payload), [])
        return _response(incoming, site)

    async def _buffered(self, retry: Retry, request: Request) -> Response:
        return await self._tried(retry, request, await request.body.buffer())

    async def _tried(
        self, retry: Retry, request: Request, payload: bytes | Body | None
    ) -> Response:
        """Send a request, again if that is safe and the policy allows it."""
        send = partial(self._send, request, payload)
        tried: list[str] = []
        began, attempt = monotonic(), 1
        retry.begin()
        while True:
            try:
                incoming, site = await self._upstream.attempt(send, tried)
            except UpstreamError as error:
                delay = None
                if _may_repeat(request, payload, sent=error.sent):
                    delay = retry.after_error(attempt, error, monotonic() - began)
                else:
                    retry.finish(attempt)
                if delay is None:
                    raise
            except BaseException:
                retry.finish(attempt)
                raise
            else:
                delay = None
                if _may_repeat(request, payload, sent=True):
                    delay = retry.after_result(attempt, incoming, monotonic() - began)
                else:
                    retry.finish(attempt)
                if delay is None:
                    return _response(incoming, site)
                await _discarded(incoming, site)
            await retry.pause(attempt, delay)
            self._count_retry()
            attempt += 1

    def _send(
        self, request: Request, payload: bytes | Body | None, site: Site
    ) -> Awaitable[Incoming]:
        """Send a request to one endpoint."""
        if (found := tracer()) is not None:
            return self._traced(found, request, payload, site)
        return self._transport.send(self._outgoing(request, payload, site), self._timeouts)

    async def _traced(
        self, found: Tracer, request: Request, payload: bytes | Body | None, site: Site
    ) -> Incoming:
        """Send a request to one endpoint, in a span that the endpoint goes on from."""
        scheme = "https" if site.tls else "http"
        step = Call("client", request.method, request.path, scheme, site.host, site.port)
        with found.start(step) as span:
            incoming = await self._transport.send(
                self._outgoing(request, payload, site), self._timeouts
            )
            span.note("status", incoming.status)
            return incoming

    def _outgoing(self, request: Request, payload: bytes | Body | None, site: Site) -> Outgoing:
        path = request.raw_path
        if self._strip:
            path = after_segments(path, self._strip)
        target = site.base + path if site.base else path
        return Outgoing(
            request.method.encode(),
            site.host,
            site.port,
            site.tls,
            target + b"?" + request.query if request.query else target,
            to_service(request, site.shown, self._prefix),
            payload,
            len(payload) if isinstance(payload, bytes) else request.body.length,
        )


def _is_held(request: Request, body: Body) -> bool:
    """Whether the body is read before the first attempt."""
    return body.length is not None and body.length <= _HELD and _is_idempotent(request)


def _is_idempotent(request: Request) -> bool:
    return request.method in _IDEMPOTENT or request.header(b"idempotency-key") is not None


def _may_repeat(request: Request, payload: bytes | Body | None, *, sent: bool) -> bool:
    """Whether nobody can tell that a request is sent again."""
    if payload is not None and not isinstance(payload, bytes) and payload.started:
        return False
    return not sent or _is_idempotent(request)


def _response(incoming: Incoming, site: Site) -> Response:
    """Return the answer for the stages; small ones are whole, and hold nothing."""
    headers = incoming.headers
    if incoming.status in _BODILESS:
        headers = [each for each in headers if each[0] != b"content-length"]
    whole = incoming.whole()
    if whole is not None:
        site.release()
        return Response(incoming.status, headers, whole)
    held = incoming if site.bulkhead is None else Held(incoming, site)
    return Response(incoming.status, headers, held)


async def _discarded(incoming: Incoming, site: Site) -> None:
    """Let go of an answer that is not wanted."""
    site.release()
    if incoming.whole() is None:
        await incoming.aclose()
