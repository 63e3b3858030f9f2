"""ASGI applications: owners that live as long as the application does, and what stands around it.

FastAPI, Starlette and every ASGI server have a *lifespan*: an async context manager around all
requests. Owners are that already, so nothing is needed but to enter several in order. The
middlewares are plain ASGI: they add no task and no queue to a request, and streams, WebSockets and
the disconnect of a client pass them as they are::

    app = FastAPI(lifespan=lifespan(jobs, Worker(jobs)))        opened in order, closed in reverse
    app.mount("/health", health_routes(checker))                /live, /ready, /startup
    app.add_middleware(RateLimitMiddleware, limiter=limiter)    429, Retry-After
    app.add_middleware(CorrelationMiddleware)                   X-Request-ID
    app.add_middleware(TracingMiddleware)                       traceparent, outermost


    @app.post("/thumbnails")
    async def create(jobs: Annotated[JobQueue, Depends(provide(jobs))]) -> ...

Not guaranteed: that a server ends when a background task of an owner fails. The lifespan then
raises, of which servers take notice only when they end; a readiness check shows it before.

No framework is imported here.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, final

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
from aiopatterns.core.context import bind_correlation
from aiopatterns.core.httptrace import serving
from aiopatterns.core.tracing import NO_SPAN
from aiopatterns.core.validate import function, optional_function

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
    from contextlib import AbstractAsyncContextManager

    from aiopatterns.cluster.health import HealthChecker
    from aiopatterns.contrib.web import ClientLimiter, Page

    Scope: TypeAlias = MutableMapping[str, Any]
    Message: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]
    ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = [
    "CorrelationMiddleware",
    "RateLimitMiddleware",
    "TracingMiddleware",
    "health_routes",
    "lifespan",
    "provide",
]

T = TypeVar("T")

_REQUEST_ID: Final = REQUEST_ID.lower().encode()
# The messages that begin an answer, and so carry its headers.
_BEGINNINGS: Final = frozenset(
    {"http.response.start", "websocket.accept", "websocket.http.response.start"}
)
# What a client without an address, as on a Unix socket, counts as.
_NOBODY: Final = "-"
# "Try again later", of the WebSocket close code registry.
_TRY_AGAIN: Final = 1013
_METHODS: Final = frozenset({"GET", "HEAD"})


def lifespan(
    *owners: AbstractAsyncContextManager[Any],
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return a lifespan that opens ``owners`` in order and closes them in reverse.

    Args:
        owners: Queues, workers, caches and other owners, backends, or any async context managers
            that can be entered again.

    Returns:
        What ``FastAPI(lifespan=...)`` and ``Starlette(lifespan=...)`` take. It may be entered again
        after it was left, also on another loop, as test clients do.

    Raises:
        TypeError: One of them is no async context manager.

    Example::

        app = FastAPI(lifespan=lifespan(jobs, Worker(jobs)))
    """
    checked_owners(owners)

    @asynccontextmanager
    async def entered(app: Any) -> AsyncGenerator[None]:
        del app
        async with AsyncExitStack() as stack:
            for each in owners:
                await stack.enter_async_context(each)
            yield

    return entered


def provide(owner: T) -> Callable[[], T]:
    """Return a dependency that gives ``owner``, so that tests can replace it.

    Args:
        owner: A queue, or anything else that handlers use.

    Returns:
        What ``Depends`` takes; ``app.dependency_overrides`` knows it by identity, so keep it.

    Example::

        get_jobs = provide(jobs)


        @app.post("/reports")
        async def create(jobs: Annotated[JobQueue, Depends(get_jobs)]) -> str: ...
    """

    def provided() -> T:
        return owner

    return provided


def health_routes(checker: HealthChecker) -> ASGIApp:
    """Return an application with the pages ``/live``, ``/ready`` and ``/startup``.

    They answer 200 or 503 at once, from the last results, with the report as JSON. Mounted, they
    stand under the path of the mount; alone, they are a whole application.

    Args:
        checker: Opened by whoever owns it, such as :func:`lifespan`; while it is closed, nothing is
            known, which is no for readiness and startup.

    Raises:
        TypeError: It is no HealthChecker.

    Example::

        app.mount("/health", health_routes(checker))
    """
    checked_checker(checker)

    async def health(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        kind = PAGES.get(path.removeprefix(scope.get("root_path", "")))
        if kind is None:
            await _answer(send, (404, {}, b""))
        elif scope["method"] not in _METHODS:
            await _answer(send, (405, {"Allow": "GET, HEAD"}, b""))
        else:
            status, headers, body = health_page(checker, kind)
            await _answer(send, (status, headers, body), bare=scope["method"] == "HEAD")

    return health


@final
class CorrelationMiddleware:
    """Binds a correlation id around each request, and sends it back as ``X-Request-ID``.

    What the application does for the request, logs, jobs and messages, carries the id. One that the
    caller sent is taken over if it has at most 128 visible characters.

    Args:
        app: The application inside.

    Example::

        app.add_middleware(CorrelationMiddleware)
    """

    __slots__ = ("_app",)

    def __init__(self, app: ASGIApp) -> None:
        self._app = function("app", app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        sent = next((value for name, value in scope["headers"] if name == _REQUEST_ID), None)
        identity = request_id(None if sent is None else sent.decode("latin-1"))

        async def identified(message: Message) -> None:
            if message["type"] in _BEGINNINGS:
                headers = [each for each in message.get("headers", ()) if each[0] != _REQUEST_ID]
                message = {**message, "headers": [*headers, (_REQUEST_ID, identity.encode())]}
            await send(message)

        with bind_correlation(identity):
            await self._app(scope, receive, identified)


@final
class RateLimitMiddleware:
    """Refuses the requests of a client that has used up its limit with 429.

    Both answers tell how the client stands, in ``RateLimit-Remaining`` and ``RateLimit-Reset``; the
    refusal says in ``Retry-After`` when to come again. A WebSocket is refused before it is accepted.

    Args:
        app: The application inside.
        limiter: A ``TokenBucket``, ``GCRA`` or ``SlidingWindow`` for this process, or a
            ``SharedRateLimit`` for all.
        key: Whose limit a request counts against: a function of the scope; None lets it pass
            uncounted. By default the client's address, as the server knows it.

    Raises:
        TypeError: ``limiter`` is no limiter, or ``key`` no function.

    Example::

        app.add_middleware(RateLimitMiddleware, limiter=TokenBucket(Rate(10), burst=50))
    """

    __slots__ = ("_app", "_key", "_limiter")

    def __init__(
        self,
        app: ASGIApp,
        *,
        limiter: ClientLimiter,
        key: Callable[[Scope], str | None] | None = None,
    ) -> None:
        self._app = function("app", app)
        self._limiter = checked_limiter(limiter)
        self._key = optional_function("key", key) or _address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        key = self._key(scope) if scope["type"] in {"http", "websocket"} else None
        if key is None:
            await self._app(scope, receive, send)
            return
        grant = await ask(self._limiter, key)
        if not grant.allowed:
            await _refuse(scope, send, refusal(grant))
            return
        standing = _encoded(limit_headers(grant))

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *standing]}
            await send(message)

        await self._app(scope, receive, told)


@final
class TracingMiddleware:
    """Begins the span of each HTTP request, in the trace of the ``traceparent`` that came with it.

    What the application does for the request, jobs, messages and calls of services, is traced inside
    of it. Until a tracer is installed, as by :func:`aiopatterns.contrib.opentelemetry.instrument`,
    requests pass as they are; so do WebSockets.

    Args:
        app: The application inside.

    The span is named by the route, if the framework puts it into the scope, as FastAPI does.

    Example::

        app.add_middleware(TracingMiddleware)
    """

    __slots__ = ("_app",)

    def __init__(self, app: ASGIApp) -> None:
        self._app = function("app", app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        span = serving(scope) if scope["type"] == "http" else NO_SPAN
        if span is NO_SPAN:
            await self._app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.note("status", message["status"])
            await send(message)

        with span:
            try:
                await self._app(scope, receive, told)
            finally:
                route = getattr(scope.get("route"), "path", None)
                if route is not None:
                    span.note("route", route)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else _NOBODY


async def _refuse(scope: Scope, send: Send, page: Page) -> None:
    """Answer instead of the application."""
    if scope["type"] == "http":
        await _answer(send, page)
    elif "websocket.http.response" in (scope.get("extensions") or {}):
        await _answer(send, page, kind="websocket.http.response")
    else:
        await send({"type": "websocket.close", "code": _TRY_AGAIN})


async def _answer(
    send: Send, page: Page, *, kind: str = "http.response", bare: bool = False
) -> None:
    """Send a whole answer, or, ``bare``, one without its body."""
    status, headers, body = page
    sized = _encoded({**headers, "Content-Length": str(len(body))})
    await send({"type": f"{kind}.start", "status": status, "headers": sized})
    await send({"type": f"{kind}.body", "body": b"" if bare else body})


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]
