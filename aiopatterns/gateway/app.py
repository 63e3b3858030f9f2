"""The gateway: an ASGI application that lets requests through to services, and keeps the rest out.

::

    client --- ASGI server --- Gateway
                                  |  intake       is it a request at all, and not too large     4xx
                                  |  router       host, longest prefix, method             404, 405
                                  |  plan         auth, rate limit, cache             401, 403, 429
                                  |  proxy        attempts within the total timeout             504
                                  |  upstream     endpoint, circuit, bulkhead              502, 503
                                  '- transport    connections, timeouts            502, 504

Each of these is a file, which says what it promises. What this one adds:

Guarantees:

* Every request gets exactly one answer, or is cut off after its answer was begun; ``statistics()``
  counts each once.
* A client that goes away ends what is done for it, and its connection to the service is closed.
* Another set of routes takes the place of the one in force in one step: no request sees half of
  both, none is lost, and one that cannot be used changes nothing.
* Leaving normally waits for the requests under way; new ones get 503 and a closed connection.

Not guaranteed: what the ASGI server decides before. It parses requests and refuses those it cannot;
run it without proxy headers of its own (``uvicorn --no-proxy-headers``), or it believes peers that the
gateway does not trust.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, final
from urllib.parse import urlsplit

from anyio import Lock

from aiopatterns.cluster.registry import ServiceRegistry
from aiopatterns.core.clock import monotonic
from aiopatterns.core.context import (
    pop_correlation,
    pop_deadline,
    push_correlation,
    push_deadline,
)
from aiopatterns.core.errors import RequestRefusedError, UpstreamError
from aiopatterns.core.httptrace import serving
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.tracing import NO_SPAN
from aiopatterns.core.validate import choice, instance, text
from aiopatterns.gateway.assembly import Assembly
from aiopatterns.gateway.body import Body, ClientGoneError
from aiopatterns.gateway.calling import call, own_request
from aiopatterns.gateway.events import GatewayAnswered, GatewayFailed, GatewayReloaded
from aiopatterns.gateway.exchange import Exchange
from aiopatterns.gateway.headers import to_client
from aiopatterns.gateway.intake import Intake
from aiopatterns.gateway.jwks import KeyDirectory
from aiopatterns.gateway.ledger import Ledger
from aiopatterns.gateway.lifespan import live
from aiopatterns.gateway.plan import answer_to, is_failure
from aiopatterns.gateway.policy import Limits, RoutePolicy
from aiopatterns.gateway.request import Response
from aiopatterns.gateway.routing import Route, Router
from aiopatterns.gateway.transport import Transport
from aiopatterns.gateway.websocket import Relay, refuse

if TYPE_CHECKING:
    from os import PathLike

    from anyio.abc import TaskGroup

    from aiopatterns.core.tracing import Span
    from aiopatterns.gateway.assembly import Table
    from aiopatterns.gateway.config import GatewayConfig
    from aiopatterns.gateway.ledger import GatewayStatistics
    from aiopatterns.gateway.plan import Plan
    from aiopatterns.gateway.request import Headers, Message, Receive, Request, Send

__all__ = ["Gateway"]

_TRANSPORTS: Final = ("aiohttp", "fast")
_FOUND: Final = 200
_GONE: Final = 499
_CLOSE: Final = ((b"connection", b"close"),)
_NOT_NOW: Final = ((b"retry-after", b"1"), (b"connection", b"close"))


@final
class Gateway(Owner):
    """An ASGI application over services.

    Args:
        routes: Where requests go.
        registry: Where services are found, for routes to services. Opened with the gateway if it is
            not open.
        defaults: What may happen to requests of routes without a policy of their own.
        limits: How much a client may send, and which peers are trusted proxies.
        transport: ``"aiohttp"``, ``"fast"``, or one of your own, opened with the gateway.
        name: How statistics, events and errors call it.

    Raises:
        ValueError: Two routes are for the same requests, or a route needs a registry.
        TypeError: A value is of another type.
        ImportError: The extra ``gateway`` is not installed.

    An ASGI server opens and closes it by the lifespan protocol; ``async with`` does the same.

    Example::

        registry = ServiceRegistry("redis://localhost")
        gateway = Gateway([Route("/api/users", to="users", strip_prefix=True)], registry=registry)
        # $ uvicorn --no-proxy-headers shop:gateway
    """

    __slots__ = (
        "_assembly",
        "_defaults",
        "_intake",
        "_ledger",
        "_limits",
        "_registry",
        "_reloading",
        "_routes",
        "_table",
        "_transport",
    )

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
        super().__init__(text("name", name))
        if registry is not None:
            instance("registry", registry, ServiceRegistry, "None or a ServiceRegistry")
        self._registry = registry
        self._routes = self._checked(routes)
        self._defaults = RoutePolicy() if defaults is None else defaults
        instance("defaults", self._defaults, RoutePolicy, "None or a RoutePolicy")
        self._limits = Limits() if limits is None else limits
        instance("limits", self._limits, Limits, "None or Limits")
        self._intake = Intake(self._limits)
        self._transport = _transport(transport)
        self._ledger = Ledger()
        self._assembly: Assembly | None = None
        self._table: Table | None = None
        self._reloading = Lock()

    def __repr__(self) -> str:
        return f"Gateway({len(self._routes)} routes, transport={self._transport!r})"

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection.

        Raises:
            ClosedError: The gateway is not open.
        """
        if scope["type"] != "http":
            await self._serve_other(scope, receive, send)
            return
        table, ledger = self._table, self._ledger
        if table is None and self._group is None:
            raise self._unopened()
        exchange, span = Exchange(receive, send), serving(scope)
        span.__enter__()
        ledger.begin()
        if table is not None:
            table.in_flight += 1
        try:
            await self._serve(table, scope, exchange)
        except BaseException as error:
            if not exchange.interrupt.took(error):
                raise
            await _excuse(exchange)
        else:
            exchange.interrupt.took(None)
        finally:
            exchange.close()
            if table is not None:
                table.leave()
            ledger.end(exchange.status or _GONE, complete=exchange.done or not exchange.status)
            _note(span, exchange)
            span.__exit__(None, None, None)
            if listening():
                emit(_answered(self.name, scope, exchange))

    @staticmethod
    def from_toml(path: str | PathLike[str]) -> Gateway:
        """Return the gateway that a file describes; see :func:`~aiopatterns.gateway.load_config`.

        Raises:
            ConfigError: Something is wrong with it; it holds all that is.
            OSError: The file cannot be read.
        """
        from aiopatterns.gateway.config import load_config

        return Gateway.of(load_config(path))

    @staticmethod
    def of(config: GatewayConfig) -> Gateway:
        """Return the gateway of a file that was read."""
        return Gateway(
            config.routes,
            registry=config.registry,
            defaults=config.defaults,
            limits=config.limits,
            transport=config.transport,
            name=config.name,
        )

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes in force."""
        return self._routes

    @property
    def limits(self) -> Limits:
        """How much a client may send."""
        return self._limits

    async def fetch(
        self,
        to: str,
        target: str = "/",
        *,
        method: str = "GET",
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        on_behalf_of: Request | None = None,
    ) -> Response:
        """Ask a service, as routes that are functions do: by the balancer, circuits and retries.

        Args:
            to: Name of a service, or a base URL.
            target: Path and query, encoded.
            method: In upper case.
            headers: Names in lower case.
            body: The body.
            on_behalf_of: The request that this is part of: its correlation, trace and identity go
                with it.

        Returns:
            The answer, whatever its status, with its whole body, which is at most as large as the
            gateway's ``max_body``.

        Raises:
            UpstreamError: There is no answer, or a larger one.
            RejectedError: No endpoint may be asked.
            TimeoutExceededError: The total timeout of the gateway's defaults is over.
            ClosedError: The gateway is not open.

        Example::

            async def page(request: Request) -> dict[str, object]:
                ask = partial(gateway.fetch, on_behalf_of=request)
                found = await scatter_gather(
                    {
                        "user": partial(ask, "users", "/users/7"),
                        "orders": partial(ask, "orders", "/orders?user=7"),
                    }
                )
                return {name: json.loads(each.content) for name, each in found.values.items()}
        """
        if self._assembly is None:
            raise self._unopened()
        proxy = await self._assembly.proxy(to, self._defaults)
        request = own_request(method, target, headers, body, on_behalf_of)
        return await call(proxy, request, self._defaults.timeouts.total, self._limits.max_body)

    async def reload(
        self,
        routes: Iterable[Route] | GatewayConfig,
        *,
        defaults: RoutePolicy | None = None,
    ) -> None:
        """Put other routes in force, in one step; requests under way end by those they began with.

        What stays the same goes on with what it knows: circuits, limits, kept answers.

        Args:
            routes: All routes that there are to be, or what a file says, with its limits.
            defaults: For routes without a policy; None for those in force.

        Raises:
            ValueError: As for the constructor; the routes in force stay.
            ClosedError: The gateway is not open.

        Cancellation: before the step, which changes nothing then.
        """
        tasks, limits = self._open_group(), self._limits
        if not isinstance(routes, Iterable):
            limits, defaults, routes = routes.limits, routes.defaults, routes.routes
        checked = self._checked(routes)
        defaults = self._defaults if defaults is None else defaults
        async with self._reloading:
            assembly, old = self._assembly, self._table
            if assembly is None or old is None:
                raise self._unopened()
            table = await assembly.build(checked, defaults, old)
            self._table, self._routes, self._defaults = table, checked, defaults
            self._limits, self._intake = limits, Intake(limits)
        tasks.start_soon(assembly.retire, old)
        if listening():
            emit(GatewayReloaded(self.name, len(checked)))

    def statistics(self) -> GatewayStatistics:
        """Return what it did, and what is known of the endpoints."""
        upstreams = () if self._assembly is None else self._assembly.upstreams
        caches = () if self._table is None else self._table.caches.items()
        return self._ledger.statistics(
            upstreams, {path: store.statistics() for (path, _), store in caches}
        )

    # -- serving -------------------------------------------------------------------------------

    async def _serve(self, table: Table | None, scope: Message, exchange: Exchange) -> None:
        """Answer a request, or leave without."""
        try:
            plan, request = self._admitted(table, scope, exchange)
            correlation = push_correlation(request.correlation_id)
            deadline = push_deadline(exchange.ends)
            try:
                response = await plan.run(request)
            finally:
                pop_deadline(deadline)
                pop_correlation(correlation)
            headers = to_client(response.headers, request.correlation_id)
        except ClientGoneError:
            return
        except Exception as error:
            response = self._answer_to(error, exchange)
            headers = _own_headers(response, exchange)
        try:
            await exchange.reply(response, headers)
        except (ClientGoneError, OSError, UpstreamError):
            return  # the answer is cut off where it is

    def _admitted(
        self, table: Table | None, scope: Message, exchange: Exchange
    ) -> tuple[Plan, Request]:
        """Return a request, its body still to be read, and what it goes through."""
        exchange.request = request = self._intake.take(scope)
        if table is None:
            raise RequestRefusedError("the gateway is closing", status=503, headers=_NOT_NOW)
        exchange.plan = plan = table.router.match(request.host, request.path, request.method)
        request.route = plan.route
        request.body = body = self._intake.body(request, scope, exchange.receive)
        exchange.limit(plan.bells)
        if body.empty:
            exchange.watch()
        else:
            body.settled = exchange.watch
        return plan, request

    def _answer_to(self, error: Exception, exchange: Exchange) -> Response:
        """Return what the client gets for an error, and tell of one that should not have been."""
        if is_failure(error):
            request, plan = exchange.request, exchange.plan
            route = "" if plan is None else plan.route.path
            log = logging.getLogger("aiopatterns")
            log.error("%s: a request of route %r failed", self.name, route, exc_info=error)
            if listening():
                known = "" if request is None else request.correlation_id
                emit(GatewayFailed(self.name, route, error, known))
        return answer_to(error)

    async def _serve_other(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve what is no HTTP request."""
        kind = scope["type"]
        if kind == "lifespan":
            await live(self, receive, send)
        elif kind == "websocket":
            await self._websocket(scope, receive, send)
        else:
            msg = f"an ASGI gateway serves http, websocket and lifespan, not {kind!r}"
            raise ValueError(msg)

    async def _websocket(self, scope: Message, receive: Receive, send: Send) -> None:
        """Join a client and a service by WebSockets; its route's timeouts bound only the beginning."""
        if self._group is None:
            raise self._unopened()
        await receive()
        known = ""
        try:
            if self._table is None:
                raise RequestRefusedError("the gateway is closing", status=503, headers=_NOT_NOW)
            request = self._intake.take(scope)
            known = request.correlation_id
            plan = self._table.router.match(request.host, request.path, request.method)
            request.route, request.body = plan.route, Body(None, 0)
            headers = await plan.admit(request)
            if plan.proxy is None:
                raise RequestRefusedError("no service takes WebSockets here", status=404)
            socket, site = await plan.proxy.socket(request, scope.get("subprotocols") or ())
        except Exception as error:
            response = answer_to(error)
            await refuse(scope, send, response, to_client(response.headers, known))
            if is_failure(error):
                raise
            return
        self._ledger.sockets += 1
        try:
            await Relay(receive, send, socket).run(to_client(headers, known))
        finally:
            site.release()

    # -- opening and closing -------------------------------------------------------------------

    async def _start(self, tasks: TaskGroup) -> None:
        keys = KeyDirectory(self._fetched)
        assembly = Assembly(
            tasks, self._transport, self._registry, keys, count_retry=self._ledger.retried
        )
        await assembly.open()
        self._assembly = assembly  # first, for what is built may fetch key sets at once
        self._table = await assembly.build(self._routes, self._defaults, None)

    async def _drain(self) -> None:
        self._table = None
        assert self._assembly is not None, "it was opened"
        await self._assembly.close()

    def _settle(self) -> None:
        self._table = self._assembly = None

    def _checked(self, routes: Iterable[Route]) -> tuple[Route, ...]:
        """Return routes that can be put in force together."""
        found = tuple(routes)
        for each in found:
            instance("routes", each, Route, "Routes")
            if self._registry is None and isinstance(each.to, str) and "://" not in each.to:
                msg = f"registry must be given for the service {each.to!r} to be found"
                raise ValueError(msg)
        Router((each, None) for each in found)  # which refuses two for the same requests
        return found

    async def _fetched(self, url: str) -> bytes:
        """Return what stands at an address, for key sets."""
        parts = urlsplit(url)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        response = await self.fetch(f"{parts.scheme}://{parts.netloc}", target)
        if response.status != _FOUND:
            msg = f"{url.partition('?')[0]} answered {response.status}"
            raise UpstreamError(msg, name=url, kind="invalid", sent=True)
        assert isinstance(response.body, bytes)
        return response.body


def _transport(kind: str | Transport) -> Transport:
    """Return the transport of that name, or the one that was given."""
    if isinstance(kind, Transport):
        return kind
    if choice("transport", kind, _TRANSPORTS) == "fast":
        from aiopatterns.gateway.transport_fast import FastTransport

        return FastTransport()
    from aiopatterns.gateway.transport_aiohttp import AiohttpTransport

    return AiohttpTransport()


async def _excuse(exchange: Exchange) -> None:
    """Answer in the place of work that was cancelled, if there is somebody to answer."""
    if exchange.status or exchange.reason == "gone":
        return
    if exchange.reason == "total":
        response = Response.error(504, "the service did not answer in time")
    else:
        response = Response.error(408, "the client sent nothing for too long", _CLOSE)
    await exchange.reply(response, _own_headers(response, exchange))


def _own_headers(response: Response, exchange: Exchange) -> Headers:
    """Return the headers of an answer of the gateway's own as the client gets them."""
    if exchange.request is not None:
        response.headers.append((b"x-request-id", exchange.request.correlation_id.encode()))
    return response.headers


def _note(span: Span, exchange: Exchange) -> None:
    """Add to a span how its request has ended."""
    if span is not NO_SPAN:
        span.note("status", exchange.status or _GONE)
        if exchange.plan is not None:
            span.note("route", exchange.plan.route.path)


def _answered(gateway: str, scope: Message, exchange: Exchange) -> GatewayAnswered:
    """Return the event of a request that has ended."""
    request, plan = exchange.request, exchange.plan
    return GatewayAnswered(
        gateway=gateway,
        route="" if plan is None else plan.route.path,
        method=scope["method"],
        path=scope["path"],
        client="" if request is None else request.client,
        status=exchange.status or _GONE,
        seconds=monotonic() - exchange.began,
        complete=exchange.done,
        correlation_id="" if request is None else request.correlation_id,
    )
