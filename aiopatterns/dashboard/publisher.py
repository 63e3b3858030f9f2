"""StatisticsPublisher: makes what runs in this process seen by whoever looks at the backend.

Workers publish their figures by themselves; breakers, limiters, caches, pools, graphs, pipelines,
sagas and peers have no backend, or do not know that somebody wants to see them. This tells of
them::

    async with StatisticsPublisher("redis://localhost:6379", breaker, cache, checkout, peer):
        await serve()

    owners ---every 2 s---> directory "statistics"     read by dashboard and top
    events ---every 1 s---> channel "statistics:log"   read while somebody looks at a log

Forwarded are events of the levels info, warning and error, 50 a second at most; more are counted.
Their fields go without what looks like a secret (:mod:`aiopatterns.dashboard.redaction`).

Guarantees: an owner is read by its public figures alone, and what it raises harms nobody. An outage
of the backend is waited out. What was published is gone 10 s after the end.

Not guaranteed: that every event arrives.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, cast, final

from aiopatterns.backends.opening import resolve
from aiopatterns.backends.owner import BackendOwner
from aiopatterns.backends.publishing import Publisher
from aiopatterns.backends.records import Notice as Message
from aiopatterns.core.clock import sleep, wall
from aiopatterns.core.codec import JSON
from aiopatterns.core.errors import BackendError
from aiopatterns.core.telemetry import install_listener
from aiopatterns.dashboard.notices import LOG, Notice
from aiopatterns.dashboard.redaction import shown
from aiopatterns.dashboard.subjects import Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyio.abc import TaskGroup

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.core.telemetry import Event, Subscription
    from aiopatterns.dashboard.notices import Level

__all__ = ["PublisherStatistics", "StatisticsPublisher"]

# Lines that are forwarded at once, once in so many seconds.
_LINES: Final = 50
_EVERY: Final = 1.0


@final
@dataclass(frozen=True, slots=True)
class PublisherStatistics:
    """What a publisher has done.

    Attributes:
        owners: Owners that it tells of.
        forwarded: Events that were forwarded.
        dropped: Events that were too many, or came while the backend was away.
    """

    owners: int
    forwarded: int
    dropped: int


@final
class StatisticsPublisher(BackendOwner):
    """Publishes the figures of owners, and the events of this process.

    Args:
        backend: Where others look, or its URL.
        *owners: Anything with ``statistics()`` and a name; also ``Dag``.
        named: Owners by a name of yours, as for limiters, which have none.
        events: Whether the events of this process are forwarded as lines of the log.
        name: How errors call it.

    Raises:
        TypeError: An owner has no statistics, or no name.
        ValueError: A name is empty.

    Example::

        async with StatisticsPublisher(backend, breaker, named={"payments": limiter}):
            await serve()
    """

    __slots__ = (
        "_dropped",
        "_events",
        "_forwarded",
        "_lines",
        "_source",
        "_subjects",
        "_subscription",
        "backend",
    )

    def __init__(
        self,
        backend: Backend | str,
        *owners: object,
        named: Mapping[str, object] | None = None,
        events: bool = True,
        name: str = "publisher",
    ) -> None:
        super().__init__(name)
        self.backend: Backend = resolve(backend)
        self._subjects = [Subject(each) for each in owners]
        self._subjects += [Subject(each, called) for called, each in (named or {}).items()]
        self._events = events
        self._lines: deque[Notice] = deque()
        self._source = f"{socket.gethostname()} {os.getpid()}"
        self._subscription: Subscription | None = None
        self._forwarded = self._dropped = 0

    def statistics(self) -> PublisherStatistics:
        """Return the figures so far."""
        return PublisherStatistics(len(self._subjects), self._forwarded, self._dropped)

    async def _start(self, tasks: TaskGroup) -> None:
        for each in self._subjects:
            publisher = Publisher(
                self.backend, kind=each.kind, name=each.name, figures=each.figures
            )
            tasks.start_soon(publisher.run)
            if each.watched:
                tasks.start_soon(each.watch)
        if self._events:
            self._subscription = install_listener(self._heed)
            tasks.start_soon(self._forward)

    def _settle(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
        self._lines.clear()

    def _heed(self, event: Event) -> None:
        """Make a line of an event that is worth one; quick, as every listener."""
        if event.level == "debug":
            return
        if len(self._lines) >= _LINES:
            self._dropped += 1
            return
        self._lines.append(_line(event, self._source))

    async def _forward(self) -> None:
        """Send what has come together, once a second, for ever."""
        while True:
            await sleep(_EVERY)
            lines = [Message(LOG, JSON.encode(each)) for each in self._lines]
            self._lines.clear()
            if lines:
                await self._send(lines)

    async def _send(self, lines: list[Message]) -> None:
        try:
            await self.backend.pubsub.publish_many(lines)
        except BackendError:  # a log that comes late is none
            self._dropped += len(lines)
        else:
            self._forwarded += len(lines)


def _line(event: Event, source: str) -> Notice:
    told = (f"{name}={shown(value, name=name)}" for name, value in _fields(event))
    return Notice(
        at=wall(),
        level=cast("Level", event.level),
        event=event.name.removeprefix("aiopatterns."),
        text=", ".join(told),
        source=source,
    )


def _fields(event: Event) -> list[tuple[str, Any]]:
    return [(each.name, getattr(event, each.name)) for each in fields(event)]
