"""aiohttp applications: owners that live as long as the application does, and what stands around it.

::

    app = web.Application(middlewares=[correlation_middleware, rate_limit_middleware(limiter)])
    app.cleanup_ctx.append(cleanup_ctx(jobs, Worker(jobs)))     opened in order, closed in reverse
    app.on_response_prepare.append(add_request_id)              also on streams and WebSockets
    app.add_routes(health_routes(checker))                      /live, /ready, /startup

    JOBS = app_key(jobs)
    app[JOBS] = jobs                                            handlers: request.app[JOBS]

An owner must be left by the task that has entered it, but aiohttp starts an application in one task
and may clean it up in another, as test clients do. So the owners live in a task of their own::

    startup   --> [ task: async with owners: wait ] --> up, or the error of the one that failed
    cleanup   --> told to leave, and awaited        --> the error of one that failed meanwhile

If a background task of an owner fails, the application must not go on as if nothing had happened:
the task that started it is cancelled, as a task group would, which ends ``web.run_app`` with that
error.

asyncio is used here, as aiohttp itself does: a task that outlives the call which starts it is what
its two halves of a context need.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from aiopatterns.contrib.web import (
    PAGES,
    REQUEST_ID,
    ask,
    checked_checker,
    checked_limiter,
    checked_owners,
    health_page,
    limit_headers,
    refusal,
    request_id,
)
from aiopatterns.core.context import bind_correlation, correlation_id
from aiopatterns.core.tracing import Request as Served
from aiopatterns.core.tracing import tracer
from aiopatterns.core.validate import optional_function

try:
    from aiohttp import web
except ImportError:
    raise ImportError(
        "aiopatterns.contrib.aiohttp needs aiohttp: pip install 'aiopatterns[aiohttp]'"
    ) from None

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from aiohttp.typedefs import Handler, Middleware

    from aiopatterns.cluster.health import HealthChecker
    from aiopatterns.cluster.healthcheck import HealthKind
    from aiopatterns.contrib.web import ClientLimiter


__all__ = [
    "add_request_id",
    "app_key",
    "cleanup_ctx",
    "correlation_middleware",
    "health_routes",
    "rate_limit_middleware",
    "tracing_middleware",
]

T = TypeVar("T")

# What a client without an address, as on a Unix socket, counts as.
_NOBODY: Final = "-"


def cleanup_ctx(
    *owners: AbstractAsyncContextManager[Any],
) -> Callable[[web.Application], AsyncGenerator[None]]:
    """Return a cleanup context that opens ``owners`` in order and closes them in reverse.

    Args:
        owners: Queues, workers, caches and other owners, backends, or any async context managers
            that can be entered again.

    Returns:
        What ``app.cleanup_ctx`` takes. aiohttp closes it after the last request has been answered,
        so that owners drain when nobody uses them any more.

    Raises:
        TypeError: One of them is no async context manager.

    Cancellation: of the startup, ends what was opened; of the cleanup, abandons instead of
    draining. Nothing is left behind either way.

    Example::

        app.cleanup_ctx.append(cleanup_ctx(jobs, Worker(jobs)))
    """
    checked_owners(owners)

    async def entered(app: web.Application) -> AsyncGenerator[None]:
        del app
        home = _Home(owners)
        await home.open()
        yield
        await home.close()

    return entered


def app_key(owner: T) -> web.AppKey[T]:
    """Return a typed key under which an application keeps ``owner``, or what stands in for it.

    Args:
        owner: A queue, or anything else that handlers use; its name, if it has one, names the key.

    Example::

        JOBS = app_key(jobs)
        app[JOBS] = jobs


        async def create(request: web.Request) -> web.Response:
            handle = await request.app[JOBS].enqueue(...)
    """
    kind = type(owner)
    name = getattr(owner, "name", None)
    return web.AppKey(name if isinstance(name, str) else kind.__name__, kind)


def health_routes(checker: HealthChecker, *, prefix: str = "") -> list[web.RouteDef]:
    """Return the routes ``/live``, ``/ready`` and ``/startup``.

    They answer 200 or 503 at once, from the last results, with the report as JSON.

    Args:
        checker: Opened by whoever owns it, such as :func:`cleanup_ctx`; while it is closed, nothing
            is known, which is no for readiness and startup.
        prefix: Stands before each path, as in ``"/health"``.

    Raises:
        TypeError: It is no HealthChecker.

    Example::

        app.add_routes(health_routes(checker))
    """
    checked_checker(checker)
    return [web.get(f"{prefix}{path}", _page(checker, kind)) for path, kind in PAGES.items()]


@web.middleware
async def correlation_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Bind a correlation id around each request, and send it back as ``X-Request-ID``.

    What the handler does for the request, logs, jobs and messages, carries the id. One that the
    caller sent is taken over if it has at most 128 visible characters. A response that the handler
    itself has begun, such as a stream, gets the header by :func:`add_request_id`.

    Example::

        app = web.Application(middlewares=[correlation_middleware])
    """
    identity = request_id(request.headers.get(REQUEST_ID))
    with bind_correlation(identity):
        try:
            response = await handler(request)
        except web.HTTPException as error:
            error.headers[REQUEST_ID] = identity
            raise
    if not response.prepared:
        response.headers[REQUEST_ID] = identity
    return response


@web.middleware
async def tracing_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Begin the span of each request, in the trace of the ``traceparent`` that came with it.

    What the handler does for the request, jobs, messages and calls of services, is traced inside
    of it. Until a tracer is installed, as by :func:`aiopatterns.contrib.opentelemetry.instrument`,
    requests pass as they are.

    Example::

        app = web.Application(middlewares=[tracing_middleware, correlation_middleware])
    """
    found = tracer()
    if found is None:
        return await handler(request)
    origin = request.headers.get("traceparent")
    step = Served("server", request.method, request.path, request.scheme, origin=origin)
    with found.start(step) as span:
        resource = request.match_info.route.resource
        if resource is not None:
            span.note("route", resource.canonical)
        try:
            response = await handler(request)
        except web.HTTPException as error:  # an answer, not an error of the handler
            span.note("status", error.status)
            span.end()
            raise
        span.note("status", response.status)
        return response


async def add_request_id(request: web.Request, response: web.StreamResponse) -> None:
    """Add ``X-Request-ID`` to streams and WebSockets; needs :func:`correlation_middleware`.

    Example::

        app.on_response_prepare.append(add_request_id)
    """
    del request
    identity = correlation_id()  # bound as long as the handler runs
    if identity is not None:
        response.headers[REQUEST_ID] = identity


def rate_limit_middleware(
    limiter: ClientLimiter, *, key: Callable[[web.Request], str | None] | None = None
) -> Middleware:
    """Return a middleware that refuses clients that have used up their limit with 429.

    Both answers tell how the client stands, in ``RateLimit-Remaining`` and ``RateLimit-Reset``; the
    refusal says in ``Retry-After`` when to come again.

    Args:
        limiter: A ``TokenBucket``, ``GCRA`` or ``SlidingWindow`` for this process, or a
            ``SharedRateLimit`` for all.
        key: Whose limit a request counts against: a function of the request; None lets it pass
            uncounted. By default ``request.remote``.

    Raises:
        TypeError: ``limiter`` is no limiter, or ``key`` no function.

    Example::

        limit = rate_limit_middleware(TokenBucket(Rate(10), burst=50))
        app = web.Application(middlewares=[limit])
    """
    checked_limiter(limiter)
    whose = optional_function("key", key) or _address

    @web.middleware
    async def limited(request: web.Request, handler: Handler) -> web.StreamResponse:
        client = whose(request)
        if client is None:
            return await handler(request)
        grant = await ask(limiter, client)
        if not grant.allowed:
            status, headers, body = refusal(grant)
            return web.Response(status=status, headers=headers, body=body)
        response = await handler(request)
        if not response.prepared:
            response.headers.update(limit_headers(grant))
        return response

    return limited


@final
class _Home:
    """The task in which the owners of an application live."""

    __slots__ = ("_leave", "_owners", "_starter", "_task", "_up")

    def __init__(self, owners: tuple[AbstractAsyncContextManager[Any], ...]) -> None:
        self._owners = owners
        self._up = asyncio.Event()  # all are open, or one of them is not
        self._leave = asyncio.Event()
        self._starter: asyncio.Task[Any] | None = None
        self._task = asyncio.create_task(self._live(), name="aiopatterns owners")
        self._task.add_done_callback(self._ended)

    async def open(self) -> None:
        """Wait until all are open."""
        try:
            await self._up.wait()
        except asyncio.CancelledError:
            self._task.cancel()
            await asyncio.wait({self._task})
            raise
        if self._task.done():
            await self._task
        self._starter = asyncio.current_task()

    async def close(self) -> None:
        """Let them drain, and wait for it."""
        self._leave.set()
        await self._task

    async def _live(self) -> None:
        async with AsyncExitStack() as stack:
            for each in self._owners:
                await stack.enter_async_context(each)
            self._up.set()
            await self._leave.wait()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """End the application with its owners, unless it is the one that ends."""
        del task
        self._up.set()
        if self._starter is not None and not self._leave.is_set():
            self._starter.cancel()


def _address(request: web.Request) -> str:
    return request.remote or _NOBODY


def _page(checker: HealthChecker, kind: HealthKind) -> Handler:
    async def page(request: web.Request) -> web.Response:
        del request
        status, headers, body = health_page(checker, kind)
        return web.Response(status=status, headers=headers, body=body)

    return page
