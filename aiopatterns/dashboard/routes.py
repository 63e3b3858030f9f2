"""Routes: the addresses of a dashboard, and what each answers.

::

    /                              the page
    /static/NAME                   its files
    /api/overview                  the fleet now
    /api/history                   the last ten minutes, for plots
    /api/live                      server-sent events: overview, log, outage
    /api/jobs?queue=&state=&...    jobs, page by page
    /api/jobs/QUEUE/ID             one job
    /api/dead?queue=               dead letters
    /api/actions/NAME              POST, if allowed

Errors are ``{"error": "..."}``: 400 a wrong value, 404 unknown, 413 too long, 503 the backend is
away. This module alone knows Starlette, and is imported when a dashboard is made.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast, final

import jinja2
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import aiopatterns
from aiopatterns.core.codec import JSON
from aiopatterns.core.errors import BackendError, ClosedError, CodecError
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.validate import choice
from aiopatterns.dashboard.actions import ACTIONS, Order, act
from aiopatterns.dashboard.events import DashboardFailed
from aiopatterns.dashboard.files import load
from aiopatterns.dashboard.jobsview import LISTED
from aiopatterns.dashboard.live import MAX_VIEWERS
from aiopatterns.dashboard.redaction import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from starlette.requests import Request

    from aiopatterns.backends.queue import JobState
    from aiopatterns.dashboard.files import StaticFile
    from aiopatterns.dashboard.jobsview import Jobs
    from aiopatterns.dashboard.live import Watch
    from aiopatterns.dashboard.queues import KnownQueue, Queues

__all__ = ["Sight", "application"]

# Bytes of an order, and jobs in a list, at most.
_MAX_BODY: Final = 65_536
_MAX_JOBS: Final = 500
_SOME: Final = 100
_NO_QUEUE: Final = "no such queue, or nobody has worked for it yet"

_order_of = JSON.decoder(Order)


@final
class Sight(NamedTuple):
    """What the routes look at.

    Attributes:
        watch: Looks at the fleet.
        queues: The queues that are known.
        jobs: Reads their jobs.
        actions: Whether something may be changed.
        check: Raises ClosedError where the dashboard is not open.
    """

    watch: Watch
    queues: Queues
    jobs: Jobs
    actions: bool
    check: Callable[[], object]


def application(
    sight: Sight, lifespan: Callable[[Any], AbstractAsyncContextManager[None]]
) -> Starlette:
    """Return the application behind the guard."""
    page = load()
    routes = _Routes(sight, page.template, page.files)
    return Starlette(
        routes=[
            Route("/", routes.page),
            Route("/static/{name}", routes.static),
            Route("/api/overview", routes.overview),
            Route("/api/history", routes.history),
            Route("/api/live", routes.live),
            Route("/api/jobs", routes.listed),
            Route("/api/jobs/{path:path}", routes.detail),
            Route("/api/dead", routes.dead),
            Route("/api/actions/{action}", routes.act, methods=["POST"]),
        ],
        exception_handlers={
            HTTPException: _refused,
            BackendError: partial(_failed, 503),
            ClosedError: partial(_failed, 503),
            CodecError: partial(_failed, 400),
            ValueError: partial(_failed, 400),
            Exception: _broken,
        },
        lifespan=lifespan,
    )


@final
class _Routes:
    """Answers requests."""

    __slots__ = ("_files", "_sight", "_template")

    def __init__(self, sight: Sight, template: str, files: Mapping[str, StaticFile]) -> None:
        self._sight = sight
        self._template = jinja2.Environment(autoescape=True).from_string(template)
        self._files = files

    async def page(self, request: Request) -> Response:
        html = self._template.render(
            root=request.scope.get("root_path", ""),
            actions=self._sight.actions,
            version=aiopatterns.__version__,
        )
        return Response(html, media_type="text/html")

    async def static(self, request: Request) -> Response:
        file = self._files.get(request.path_params["name"])
        if file is None:
            raise HTTPException(404, "no such file")
        headers = {"ETag": file.etag, "Cache-Control": "private, no-cache"}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.body, media_type=file.media_type, headers=headers)

    async def overview(self, _request: Request) -> Response:
        self._sight.check()
        return _json(await self._sight.watch.overview())

    async def history(self, _request: Request) -> Response:
        self._sight.check()
        return _json(self._sight.watch.history.plots())

    async def live(self, request: Request) -> Response:
        self._sight.check()
        watch = self._sight.watch
        if watch.viewers >= MAX_VIEWERS:
            raise HTTPException(503, f"{MAX_VIEWERS} pages watch already")
        last = request.headers.get("last-event-id", "")
        after = int(last) if last.isascii() and last.isdecimal() else 0
        return StreamingResponse(
            watch.stream(after),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def listed(self, request: Request) -> Response:
        asked = request.query_params
        state = choice("state", asked.get("state", "queued"), LISTED)
        page = await self._sight.jobs.page(
            await self._queue(asked.get("queue", "")),
            cast("JobState", state),
            name=asked.get("name", ""),
            after=asked.get("after"),
            limit=_limit(asked.get("limit")),
        )
        return _json(page)

    async def detail(self, request: Request) -> Response:
        for queue, job_id in await self._parted(request.path_params["path"]):
            found = await self._sight.jobs.detail(queue, job_id)
            if found is not None:
                return _json(found)
        raise HTTPException(404, "no such job, or no longer kept")

    async def dead(self, request: Request) -> Response:
        asked = request.query_params
        queue = await self._queue(asked.get("queue", ""))
        letters = await self._sight.jobs.letters(queue, _limit(asked.get("limit")))
        return _json({"letters": letters})

    async def act(self, request: Request) -> Response:
        if not self._sight.actions:
            raise HTTPException(403, "actions are off; start the dashboard with --allow-actions")
        action = request.path_params["action"]
        if action not in ACTIONS:
            raise HTTPException(404, f"no such action; there are {', '.join(ACTIONS)}")
        order = _order_of(await _body(request))
        done = await act(action, order, await self._queue(order.queue))
        self._sight.watch.acted(action, order.queue, done)
        return _json({"done": done})

    async def _queue(self, name: str) -> KnownQueue:
        """Return a queue that is known; a stranger's name is not even asked for."""
        self._sight.check()
        found = self._sight.queues.get(name)
        if found is None:
            await self._sight.watch.overview()
            found = self._sight.queues.get(name)
        if found is None:
            raise HTTPException(404, _NO_QUEUE)
        return found

    async def _parted(self, path: str) -> list[tuple[KnownQueue, str]]:
        """Return the queues that a path may begin with, and the ids then: both may hold slashes."""
        self._sight.check()
        for look in (False, True):
            if look:
                await self._sight.watch.overview()
            known = await self._sight.queues.meet({})
            if found := [
                (each, path[len(each.name) + 1 :])
                for each in known
                if path.startswith(f"{each.name}/")
            ]:
                return found
        raise HTTPException(404, _NO_QUEUE)


async def _body(request: Request) -> bytes:
    """Return the body, if it is JSON and not too long."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "Content-Type must be application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise HTTPException(413, f"an order has at most {_MAX_BODY} bytes")
    return bytes(body)


def _limit(given: str | None) -> int:
    if given is None:
        return _SOME
    usual = given.isascii() and given.isdecimal() and len(given) <= len(str(_MAX_JOBS))
    if not (usual and 1 <= int(given) <= _MAX_JOBS):
        msg = f"limit must be a whole number from 1 to {_MAX_JOBS}, not {given[:20]!r}"
        raise ValueError(msg)
    return int(given)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = _json({"error": error.detail}, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def _failed(status: int, _request: Request, error: Exception) -> Response:
    return _json({"error": clean(str(error))}, status)


async def _broken(request: Request, error: Exception) -> Response:
    if listening():
        told = clean(f"{type(error).__name__}: {error}")
        emit(DashboardFailed(path=request.url.path, error=told))
    return _json({"error": "something went wrong; the log of the dashboard has it"}, 500)
