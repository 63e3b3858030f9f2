"""What happens to jobs, told to those who watch: one message for each atomic step.

A message is made by a script as well, so it is as plain as can be: for each event ``kind 1 | size of
the id 2 | size of the data 4 | id | data``, numbers big-endian, all events of a step one after
another. It travels by the backend's own live messages, and what these may have missed is told as
one ``gap``.
"""

from __future__ import annotations

import math
from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, Final, final

from anyio import move_on_after

from aiopatterns.backends.queue import QueueEvent
from aiopatterns.core.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.protocols import PubSub
    from aiopatterns.backends.queue import EventKind

__all__ = ["WATCH_LIFE", "Watch", "pack_events"]

_HEAD: Final = Struct(">BHI")
# In the order of their numbers, from 1.
_KINDS: Final[tuple[EventKind, ...]] = (
    "queued",
    "started",
    "progress",
    "retrying",
    "done",
    "dead",
    "cancelled",
)

#: For how many seconds the queue believes that somebody watches, and how often that is renewed.
WATCH_LIFE: Final = 15.0
_RENEW: Final = 5.0


def pack_events(events: Sequence[QueueEvent]) -> bytes:
    """Write events as one message."""
    parts: list[bytes] = []
    for kind, job, data in events:
        name = job.encode()
        parts += (_HEAD.pack(1 + _KINDS.index(kind), len(name), len(data)), name, data)
    return b"".join(parts)


@final
class Watch:
    """An open watch: an async iterator of events inside ``async with``.

    Args:
        pubsub: What carries the messages.
        channel: Where they are published.
        keep: Tells the queue that somebody watches, for WATCH_LIFE seconds.

    Cancellation: a cancelled ``__anext__`` loses no event.
    """

    __slots__ = ("_gap", "_inbox", "_keep", "_kept", "_notices", "_subscription")

    def __init__(self, pubsub: PubSub, channel: str, keep: Callable[[], Awaitable[object]]) -> None:
        self._subscription = pubsub.subscribe(channel, on_gap=self._note_gap)
        self._keep = keep
        self._kept = -math.inf
        self._gap = False
        self._inbox: deque[QueueEvent] = deque()

    async def __aenter__(self) -> Self:
        self._notices = await self._subscription.__aenter__()
        try:
            await self._renew()
        except BaseException:
            await self._subscription.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._subscription.__aexit__(exc_type, exc, traceback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> QueueEvent:
        while True:
            if monotonic() - self._kept >= _RENEW:
                await self._renew()
            if self._gap:
                self._gap = False
                return QueueEvent("gap", "")
            if self._inbox:
                return self._inbox.popleft()
            with move_on_after(_RENEW):
                self._inbox.extend(_unpack((await self._notices.__anext__()).data))

    async def _renew(self) -> None:
        """Say again that somebody watches; who said so too late has missed what happened."""
        now = monotonic()
        await self._keep()
        if WATCH_LIFE <= now - self._kept < math.inf:
            self._gap = True
        self._kept = now

    def _note_gap(self) -> None:
        self._gap = True


def _unpack(message: bytes) -> Iterator[QueueEvent]:
    """Read a message."""
    at = 0
    while at < len(message):
        kind, name, data = _HEAD.unpack_from(message, at)
        first = at + _HEAD.size
        middle = first + name
        at = middle + data
        yield QueueEvent(_KINDS[kind - 1], message[first:middle].decode(), message[middle:at])
