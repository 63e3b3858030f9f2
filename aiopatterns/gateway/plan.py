"""The stages of a route, in their one order, and how their errors become answers.

::

    route --> auth --> rate limit --> cache --> proxy, or the route's own function
              401       429            |          502, 503, 504
              403                      '--> an answer that is kept

Who may not use a route costs it nothing but the look at a token, and who asks too often not even a
look into the cache. A stage answers by itself by raising ``RequestRefusedError``; the client never
learns more than what stands there.

==============================  ======  ==========================================================
error                           status  headers
==============================  ======  ==========================================================
``RequestRefusedError``         its     its
``UpstreamError``, timeout      504
``UpstreamError``, else         502
``RejectedError`` (no endpoint  503     ``Retry-After``: when the circuit will let one through,
or place, circuit open)                 or 1
``TimeoutExceededError``        504
``ClosedError``                 503     ``Retry-After: 1``: the gateway is closing
anything else                   500     and the event ``gateway.failed``
==============================  ======  ==========================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.errors import (
    ClosedError,
    RejectedError,
    RequestRefusedError,
    TimeoutExceededError,
    UpstreamError,
)
from aiopatterns.gateway.headers import from_service
from aiopatterns.gateway.httpcache import HARMLESS, change
from aiopatterns.gateway.request import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiopatterns.gateway.auth import Auth
    from aiopatterns.gateway.exchange import Bells
    from aiopatterns.gateway.httpcache import CacheStore
    from aiopatterns.gateway.proxy import Proxy
    from aiopatterns.gateway.ratelimit import ClientLimit
    from aiopatterns.gateway.request import Headers, Request
    from aiopatterns.gateway.routing import Aggregate, Route

__all__ = ["Plan", "answer_to", "function_stage", "is_failure"]

# The longest that a client is told to stay away: what opens a circuit may be over before.
_LONGEST: Final = 3600
_EXPECTED: Final = (
    ClosedError,
    RejectedError,
    RequestRefusedError,
    TimeoutExceededError,
    UpstreamError,
)


@final
class Plan:
    """What a request of one route goes through.

    Args:
        route: The route.
        forward: The last stage.
        bells: The timers of the route's timeouts.
        limit: The limit of each client, if there is one.
        cache: Answers that are kept, if any are.
        caches: Those of all routes, which forget what is changed by this one.
        proxy: What is behind ``forward``; None for a function.
    """

    __slots__ = ("_cache", "_caches", "_forward", "_limit", "bells", "proxy", "route")

    def __init__(
        self,
        route: Route,
        forward: Callable[[Request], Awaitable[Response]],
        *,
        bells: Bells,
        limit: ClientLimit | None,
        cache: CacheStore | None,
        caches: Mapping[tuple[str, object], CacheStore],
        proxy: Proxy | None = None,
    ) -> None:
        self.route: Route = route
        self.proxy: Proxy | None = proxy
        self.bells: Bells = bells
        self._forward = forward
        self._limit = limit
        self._cache = cache
        self._caches = caches

    def run(self, request: Request) -> Awaitable[Response]:
        """Return what to await for the answer to a request, whose headers may be hop-by-hop ones.

        What is known without waiting takes no coroutine.

        Raises:
            RequestRefusedError: A stage refuses it.
            UpstreamError: The service gave no answer.
            RejectedError: No endpoint of the service may be asked.

        Cancellation: passes; nothing is left behind.
        """
        auth = self.route.auth
        if auth is not None:
            request.identity = auth.recall(request)
            if request.identity is None:
                return self._verified(request, auth)
        return self._answer(request) if self._limit is None else self._limited(request, self._limit)

    async def admit(self, request: Request) -> Headers:
        """Let a request pass what stands before the service, or refuse it.

        For what is no request with an answer, such as a WebSocket.

        Returns:
            Headers about the client's limit.

        Raises:
            RequestRefusedError: A stage refuses it.
        """
        auth, limit = self.route.auth, self._limit
        if auth is not None:
            request.identity = auth.recall(request) or await auth.verify(request)
        if limit is None:
            return []
        return [*limit.headers(limit.admit(request) or await limit.ask(request))]

    async def _verified(self, request: Request, auth: Auth) -> Response:
        request.identity = await auth.verify(request)
        limit = self._limit
        return await (self._answer(request) if limit is None else self._limited(request, limit))

    async def _limited(self, request: Request, limit: ClientLimit) -> Response:
        grant = limit.admit(request) or await limit.ask(request)
        response = await self._answer(request)
        response.headers = [*response.headers, *limit.headers(grant)]
        return response

    def _answer(self, request: Request) -> Awaitable[Response]:
        if self._caches and request.method not in HARMLESS:
            return change(request, self._forward, self._caches.values())
        if self._cache is None:
            return self._forward(request)
        return self._cache.answer(request, self._cleaned)

    async def _cleaned(self, request: Request) -> Response:
        """Return the service's answer as it may be kept."""
        response = await self._forward(request)
        response.headers = from_service(response.headers)
        return response


def function_stage(fn: Aggregate) -> Callable[[Request], Awaitable[Response]]:
    """Return the last stage of a route that is a function."""

    async def call(request: Request) -> Response:
        found = await fn(request)
        if isinstance(found, Response):
            return found
        if isinstance(found, Mapping):
            return Response.json(found)
        msg = f"a route's function must return a Response or a mapping, not {found!r}"
        raise TypeError(msg)

    return call


def is_failure(error: Exception) -> bool:
    """Whether an error is none that stages may raise, so that somebody has to look at it."""
    return not isinstance(error, _EXPECTED)


def answer_to(error: Exception) -> Response:
    """Return what the client gets for an error, which tells nothing of what is behind.

    Complexity: O(1).
    """
    match error:
        case RequestRefusedError():
            return Response.error(error.status, error.reason or "refused", error.headers)
        case UpstreamError(kind="timeout") | TimeoutExceededError():
            return Response.error(504, "the service did not answer in time")
        case UpstreamError():
            return Response.error(502, "the service gave no valid answer")
        case RejectedError():
            wait = _seconds(error.retry_after)
            return Response.error(503, "the service is not available", [(b"retry-after", wait)])
        case ClosedError():
            return Response.error(503, "the gateway is closing", [(b"retry-after", b"1")])
        case _:
            return Response.error(500, "something went wrong in the gateway")


def _seconds(wait: float | None) -> bytes:
    if wait is None or not math.isfinite(wait):
        return b"1"
    return b"%d" % min(max(math.ceil(wait), 1), _LONGEST)
