"""Dashboard: a web page that shows what runs over a backend, live, and changes it if it may.

::

    browser --token--> Guard --> Starlette --> Watch --1 look a second--> backend
                                    |             '-- History: the last ten minutes
                                    '--> jobs, dead letters, actions

It is an ASGI application, and an owner: served by ``aiopatterns dashboard``, or mounted in one of
yours (:mod:`aiopatterns.contrib.asgi` has a ``lifespan`` for that)::

    dashboard = Dashboard("redis://localhost:6379", token=os.environ["DASHBOARD_TOKEN"])
    app = FastAPI(lifespan=lifespan(dashboard))
    app.mount("/ops", dashboard)

Guarantees:

* Nothing is shown without the token, nothing is changed unless ``allow_actions``, and then only
  from the page itself (:mod:`aiopatterns.dashboard.guard` has the whole list).
* What is shown was escaped, and has neither the password of the backend nor what looks like a
  secret (:mod:`aiopatterns.dashboard.redaction`).
* While nobody watches, nothing is asked of the backend; a hundred viewers cost it what one does.
* An outage of the backend is shown, and ends by itself.

Not guaranteed: that figures are exact. They are published every two seconds, and read every second.
"""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import quote

from aiopatterns.backends.opening import resolve
from aiopatterns.backends.owner import BackendOwner
from aiopatterns.dashboard.fleet import Fleet
from aiopatterns.dashboard.guard import Guard
from aiopatterns.dashboard.jobsview import Jobs
from aiopatterns.dashboard.live import Watch
from aiopatterns.dashboard.queues import Queues

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from anyio.abc import TaskGroup

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.dashboard.guard import Receive, Scope, Send
    from aiopatterns.jobs.queue import JobQueue

__all__ = ["Dashboard", "DashboardStatistics"]

_EXTRA: Final = ("starlette", "jinja2", "uvicorn")


@final
@dataclass(frozen=True, slots=True)
class DashboardStatistics:
    """What a dashboard does now.

    Attributes:
        viewers: Pages that are open and get live figures.
        points: Moments that are kept for plots.
    """

    viewers: int
    points: int


@final
class Dashboard(BackendOwner):
    """The page, its figures and its actions, as an ASGI application.

    Args:
        backend: What to look at, or its URL.
        token: Who has it may look; at least 16 printable characters. None makes one.
        allow_actions: Whether the page may requeue, cancel, purge, pause and resume.
        hosts: Names in the addresses that browsers use, besides those of this machine.
        queues: Queues, or their names, to be shown also while nobody works for them. A queue's
            codecs and keys are known by the object alone.
        show_arguments: Whether arguments of jobs are shown as text; otherwise their kinds and
            sizes are.
        name: How errors call it.

    Raises:
        ValueError: A value is out of its range; the token is never repeated.
        TypeError: A value is of another type.
        ImportError: The extra ``dashboard`` is missing; the message has the command.

    Example::

        async with Dashboard("redis://localhost:6379") as dashboard:
            print(dashboard.address("http://127.0.0.1:8000"))
            await uvicorn.Server(uvicorn.Config(dashboard, port=8000, access_log=False)).serve()
    """

    __slots__ = ("_guard", "_token", "_watch", "backend")

    def __init__(
        self,
        backend: Backend | str,
        *,
        token: str | None = None,
        allow_actions: bool = False,
        hosts: Iterable[str] = (),
        queues: Iterable[JobQueue | str] = (),
        show_arguments: bool = False,
        name: str = "dashboard",
    ) -> None:
        super().__init__(name)
        if missing := [each for each in _EXTRA if find_spec(each) is None]:
            msg = (
                f"the dashboard needs {' and '.join(missing)}: pip install 'aiopatterns[dashboard]'"
            )
            raise ImportError(msg, name=missing[0])
        from aiopatterns.dashboard.routes import Sight, application

        self.backend: Backend = resolve(backend)
        self._token = secrets.token_urlsafe(32) if token is None else token
        known = Queues(self.backend, queues)
        fleet = Fleet(self.backend, known, actions=allow_actions)
        self._watch = Watch(fleet, self.backend.pubsub)
        sight = Sight(
            watch=self._watch,
            queues=known,
            jobs=Jobs(arguments=show_arguments),
            actions=allow_actions,
            check=self._open_group,
        )
        self._guard = Guard(application(sight, self._lifespan), token=self._token, hosts=hosts)

    def statistics(self) -> DashboardStatistics:
        """Return how many watch."""
        return DashboardStatistics(self._watch.viewers, len(self._watch.history))

    def address(self, base: str) -> str:
        """Return where a browser finds the page, with the token.

        It is a secret: give it to who may look, and log it nowhere.

        Args:
            base: Where the page is, such as ``http://127.0.0.1:8000`` or ``https://x.org/ops``.
        """
        return f"{base.rstrip('/')}/?token={quote(self._token, safe='')}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI wants it."""
        await self._guard(scope, receive, send)

    async def _start(self, tasks: TaskGroup) -> None:
        self._watch.forget()
        tasks.start_soon(self._watch.run)

    def _settle(self) -> None:
        self._watch.close()

    @asynccontextmanager
    async def _lifespan(self, _app: Any) -> AsyncGenerator[None]:
        """Open the dashboard with its server, unless it is open."""
        if self.is_open:
            yield
            return
        async with self:
            yield
