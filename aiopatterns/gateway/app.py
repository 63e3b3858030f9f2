"""The gateway (thin)."""

from __future__ import annotations

from typing import TYPE_CHECKING, final
from urllib.parse import urlsplit

from aiopatterns.core.errors import UpstreamError
from aiopatterns.core.lifecycle import Owner
from aiopatterns.gateway.body import Body
from aiopatterns.gateway.policy import Limits, RoutePolicy
from aiopatterns.gateway.request import Request, Response
from aiopatterns.gateway.transport import Outgoing, Transport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anyio.abc import TaskGroup

    from aiopatterns.cluster.registry import ServiceRegistry
    from aiopatterns.gateway.request import Message, Receive, Send
    from aiopatterns.gateway.routing import Route

__all__ = ["Gateway"]


@final
class Gateway(Owner):
    """An ASGI app over services."""

    __slots__ = ("_defaults", "_limits", "_registry", "_routes", "_transport")

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        registry: ServiceRegistry | None = None,
        defaults: RoutePolicy | None = None,
        limits: Limits | None = None,
        transport: str | Transport = "aiohttp",
        name: str = "gateway",
    ) -> None:
        super().__init__(name)
        self._routes = list(routes)
        self._registry = registry
        self._defaults = defaults or RoutePolicy()
        self._limits = limits or Limits()
        self._transport = make_transport(transport)

    def statistics(self) -> object:
        return None

    async def _start(self, tasks: TaskGroup) -> None:
        await self._transport.__aenter__()

    async def _drain(self) -> None:
        await self._transport.__aexit__(None, None, None)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        response = await self._answer(scope, receive)
        start = {"type": "http.response.start", "status": response.status}
        await send(start | {"headers": response.headers})
        if isinstance(response.body, bytes):
            await send({"type": "http.response.body", "body": response.body})
            return
        async for chunk in response.body:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        await response.aclose()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Message, receive: Receive) -> Response:
        path, headers = scope["raw_path"], [*scope["headers"]]
        request = Request(scope["method"], path, scope["query_string"], headers)
        request.body = Body(None, 0)
        route = next((each for each in self._routes if request.path.startswith(each.path)), None)
        if route is None or not isinstance(route.to, str):
            return Response.error(404, "no route")
        request.route = route
        url = urlsplit(route.to)
        outgoing = Outgoing(
            request.method.encode(),
            url.hostname or "",
            url.port or 80,
            tls=False,
            target=path + (b"?" + request.query if request.query else b""),
            headers=[each for each in headers if each[0] not in {b"connection"}],
        )
        policy = route.policy or self._defaults
        try:
            incoming = await self._transport.send(outgoing, policy.timeouts)
        except UpstreamError:
            return Response.error(502, "the service gave no answer")
        body = incoming.whole()
        kept = [each for each in incoming.headers if each[0] not in {b"connection"}]
        return Response(incoming.status, kept, incoming if body is None else body)


def make_transport(kind: str | Transport) -> Transport:
    """Return the transport of that name."""
    if isinstance(kind, Transport):
        return kind
    if kind == "fast":
        from aiopatterns.gateway.transport_fast import FastTransport

        return FastTransport()
    from aiopatterns.gateway.transport_aiohttp import AiohttpTransport

    return AiohttpTransport()
