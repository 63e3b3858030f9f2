"""Live: one look a second at the fleet, for all who watch, and only while somebody does.

::

    backend <-- look, 1 s -- Watch --encoded once--> viewer (newest overview, lines of the log)
                               |                     viewer
                               '-- History           viewer  --> text/event-stream

A viewer holds the newest overview alone, so one that is slow misses some and never holds the others
up; of lines it keeps the newest 500. While the backend is away the viewers are told so, and
the looks go on.

Guarantees: no viewer, no look. Memory is bounded by :data:`MAX_VIEWERS`.

Source: server-sent events as in the HTML standard, 9.2.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

from anyio import Event, create_task_group, move_on_after

from aiopatterns.core.clock import monotonic, sleep, wall
from aiopatterns.core.codec import JSON
from aiopatterns.core.errors import BackendError, BackendUnavailableError, CodecError
from aiopatterns.dashboard.history import History
from aiopatterns.dashboard.notices import LOG, Notice, told
from aiopatterns.dashboard.redaction import clean

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aiopatterns.backends.protocols import PubSub
    from aiopatterns.dashboard.fleet import Fleet
    from aiopatterns.dashboard.notices import Level
    from aiopatterns.dashboard.overview import Overview

__all__ = ["INTERVAL", "MAX_VIEWERS", "Viewer", "Watch"]

#: Seconds between two looks.
INTERVAL: Final = 1.0
#: Streams that are open at once, at most.
MAX_VIEWERS: Final = 64
# Seconds of silence after which a stream says that it is still there.
_HEARTBEAT: Final = 15.0
# Lines that are kept for who comes later, and for one viewer that is slow.
_LINES: Final = 500
# Bytes of a line that is forwarded; a longer one is none of ours.
_LONGEST: Final = 8_192
_notice_of = JSON.decoder(Notice)
_RETRY: Final = b"retry: 2000\n\n"


@final
class Viewer:
    """What one stream has still to send: the newest overview, and lines."""

    __slots__ = ("_bell", "_lines", "_newest", "closed")

    def __init__(self) -> None:
        self._bell = Event()
        self._newest: bytes | None = None
        self._lines: deque[bytes] = deque(maxlen=_LINES)
        self.closed: bool = False

    def show(self, newest: bytes) -> None:
        """Send this instead of what was not sent yet."""
        self._newest = newest
        self._bell.set()

    def tell(self, line: bytes) -> None:
        """Send a line as well."""
        self._lines.append(line)
        self._bell.set()

    def close(self) -> None:
        """End the stream."""
        self.closed = True
        self._bell.set()

    async def next(self) -> bytes:
        """Wait for something to send; a heartbeat, if nothing comes."""
        with move_on_after(_HEARTBEAT):
            await self._bell.wait()
        self._bell = Event()
        found = b"".join(self._lines) + (self._newest or b"")
        self._lines.clear()
        self._newest = None
        return found or b": still here\n\n"


@final
class Watch:
    """Looks at a fleet while there are viewers, or somebody asks.

    Args:
        fleet: What to look at.
        pubsub: Where processes forward their events.
    """

    __slots__ = (
        "_asked",
        "_fleet",
        "_ids",
        "_last",
        "_lines",
        "_outage",
        "_pubsub",
        "_viewers",
        "history",
    )

    def __init__(self, fleet: Fleet, pubsub: PubSub) -> None:
        self._fleet = fleet
        self._pubsub = pubsub
        self._viewers: set[Viewer] = set()
        self._asked = Event()
        self._last: tuple[float, Overview] | None = None
        self._lines: deque[tuple[int, bytes]] = deque(maxlen=_LINES)
        self._outage = ""
        self._ids = int(wall() * 1000)  # above those of the program before, for who comes back
        self.history: History = History()

    @property
    def viewers(self) -> int:
        """How many watch now."""
        return len(self._viewers)

    def forget(self) -> None:
        """Begin anew: what was seen before was another opening of the backend."""
        self._last = None
        self._outage = ""

    async def run(self) -> None:
        """Look once a second while somebody watches, for ever."""
        while True:
            if not self._viewers:
                self._asked = Event()
                await self._asked.wait()
            async with create_task_group() as tasks:
                tasks.start_soon(self._listen)
                while self._viewers:
                    began = monotonic()
                    await self._turn()
                    await sleep(max(0.0, began + INTERVAL - monotonic()))
                tasks.cancel_scope.cancel()

    async def overview(self) -> Overview:
        """Return the newest look, or take one if that is older than a second.

        Raises:
            BackendError: The backend does not answer.
        """
        last = self._last
        if last is not None and monotonic() - last[0] < INTERVAL:
            return last[1]
        return await self._look()

    async def stream(self, after: int = 0) -> AsyncGenerator[bytes]:
        """Give what one viewer gets, until its connection or this watch ends.

        Args:
            after: The last id that it has got before; older lines are not sent again.
        """
        viewer = Viewer()
        self._viewers.add(viewer)
        self._asked.set()
        try:
            yield _RETRY + b"".join(line for number, line in self._lines if number > after)
            while not viewer.closed:
                yield await viewer.next()
        finally:
            self._viewers.discard(viewer)

    def note(self, notice: Notice) -> None:
        """Put a line into the log."""
        line = self._event("log", JSON.encode(notice))
        self._lines.append((self._ids, line))
        for viewer in self._viewers:
            viewer.tell(line)

    def acted(self, action: str, queue: str, jobs: int) -> None:
        """Put an action from the page into the log."""
        text = f"{action} of queue {queue}" if not jobs else f"{action} of {jobs} in queue {queue}"
        self.note(_own(wall(), "warning", f"dashboard.{action}", text))

    def close(self) -> None:
        """End all streams."""
        for viewer in self._viewers:
            viewer.close()

    async def _listen(self) -> None:
        """Take in the events that processes forward, for ever."""
        while True:
            with suppress(BackendError):  # the looks tell that
                await self._listen_once()
            await sleep(INTERVAL)

    async def _listen_once(self) -> None:
        async with self._pubsub.subscribe(LOG) as messages:
            async for each in messages:
                self._take(each.data)

    def _take(self, data: bytes) -> None:
        """Put a forwarded line into the log, if it is one."""
        if len(data) <= _LONGEST:
            with suppress(CodecError):
                self.note(_notice_of(data))

    async def _turn(self) -> None:
        """Take one look, and show it to all."""
        try:
            overview = await self._look()
        except Exception as error:  # what others have written must not end the looks
            self._away(error)
            return
        if self._outage:
            self._outage = ""
            text = "the backend answers again"
            self.note(_own(overview.at, "info", "backend.recovered", text))
        shown = self._event("overview", JSON.encode(overview))
        for viewer in self._viewers:
            viewer.show(shown)

    async def _look(self) -> Overview:
        before = None if self._last is None else self._last[1]
        overview = await self._fleet.look()
        self._last = (monotonic(), overview)
        self.history.add(overview)
        for each in told(before, overview):
            self.note(each)
        return overview

    def _away(self, error: Exception) -> None:
        """Tell viewers that there is nothing to see."""
        text = clean(str(error))
        if not self._outage:
            kind = (
                "backend.away" if isinstance(error, BackendUnavailableError) else "backend.refused"
            )
            self.note(_own(wall(), "error", kind, text))
        self._outage = text
        shown = self._event("outage", JSON.encode({"error": text}))
        for viewer in self._viewers:
            viewer.show(shown)

    def _event(self, kind: str, data: bytes) -> bytes:
        self._ids += 1
        return b"event: %b\nid: %d\ndata: %b\n\n" % (kind.encode(), self._ids, data)


def _own(at: float, level: Level, event: str, text: str) -> Notice:
    return Notice(at=at, level=level, event=event, text=text, source="dashboard")
