"""Keeper: the one background task of a shared cache, so that no caller has to do its work.

Every second, or as soon as a turn is given back:

=======================  ======================================================================
the server is lost       ask it for its time; if it answers, the gate goes up
a minute has passed      ask it for its time
something is owed        tell it again
turns                    give back those that are done, renew the others
news                     tell the last number once more; see whether a message is overdue
=======================  ======================================================================

It also holds the backend open and listens to the channel. A server that is not there when the
cache is opened is no error: the cache goes on without, and opens it as soon as there is one. Only a
server that answers and refuses us (a wrong password) is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from anyio import TASK_STATUS_IGNORED, CancelScope, Event, create_task_group, move_on_after

from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.core.lifecycle import raise_bare

if TYPE_CHECKING:
    from anyio.abc import TaskGroup, TaskStatus

    from aiopatterns.backends.protocols import Backend, Subscribed
    from aiopatterns.cache.fleet import Fleet
    from aiopatterns.cache.gate import Gate
    from aiopatterns.cache.invalidation import News
    from aiopatterns.cache.owed import Outbox
    from aiopatterns.cache.serverclock import ServerClock

__all__ = ["Keeper"]

# Seconds between two looks: a server that is back is noticed that late.
_LOOK_EVERY: Final = 1.0
# Seconds that opening a cache waits for the server; after that it goes on in the background.
_OPEN_WITHIN: Final = 1.0
# Messages that wait to be read at most.
_CAPACITY: Final = 10_000


@final
class Keeper:
    """What keeps a shared cache going.

    Args:
        backend: Where the shared tier is.
        channel: Where processes tell each other.
        gate: Whether the server is there.
        clock: What time it is there.
        news: What is told and heard.
        outbox: What is owed.
        fleet: The turns.
    """

    __slots__ = ("_backend", "_channel", "_clock", "_fleet", "_gate", "_news", "_outbox")

    def __init__(
        self,
        backend: Backend,
        channel: str,
        *,
        gate: Gate,
        clock: ServerClock,
        news: News[Any],
        outbox: Outbox,
        fleet: Fleet,
    ) -> None:
        self._backend = backend
        self._channel = channel
        self._gate = gate
        self._clock = clock
        self._news = news
        self._outbox = outbox
        self._fleet = fleet

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Keep the cache going until cancelled.

        Args:
            task_status: Told when the server is there, or when it was waited for long enough.

        Raises:
            BackendError: The server refuses us when it is opened for the first time.

        Cancellation: what is owed and what is held is told, if that is done in a moment.
        """
        opened = Event()
        try:
            async with create_task_group() as tasks:
                tasks.start_soon(self._serve, opened)
                with move_on_after(_OPEN_WITHIN):
                    await opened.wait()
                task_status.started()
        except BaseExceptionGroup as errors:
            raise_bare(errors)

    async def _serve(self, opened: Event) -> None:
        """Open the backend, and again whenever that is over."""
        while True:
            try:
                await self._open(opened)
            except BackendUnavailableError as error:
                self._gate.lost(str(error))
            except BackendError as error:
                if not opened.is_set():
                    raise
                self._gate.lost(str(error))
            await sleep(_jittered(_LOOK_EVERY))

    async def _open(self, opened: Event) -> None:
        """Open the backend and stay inside until the subscription ends."""
        listening = self._backend.pubsub.subscribe(
            self._channel, capacity=_CAPACITY, on_gap=self._news.missed
        )
        async with self._backend:
            try:
                async with listening as notices, create_task_group() as tasks:
                    self._news.begin()
                    await self._ask()
                    opened.set()
                    tasks.start_soon(self._keep)
                    await self._listen(notices, tasks)
            finally:
                await self._close()

    async def _listen(self, notices: Subscribed, tasks: TaskGroup) -> None:
        async for notice in notices:
            self._news.hear(notice.data)
        tasks.cancel_scope.cancel()

    async def _keep(self) -> None:
        while True:
            with move_on_after(_jittered(_LOOK_EVERY)):
                await self._fleet.due()
            if not self._gate.up or self._clock.is_due:
                await self._ask()
            if self._outbox.owed.due:
                await self._outbox.tell_again()
            await self._fleet.keep()
            await self._tell_news()

    async def _ask(self) -> None:
        """Ask the server for its time: it sets the clock, and opens the gate."""
        asked = monotonic()
        time = await self._gate.call(self._backend.time, probe=True)
        if time is not None:
            self._clock.set(time, asked=asked)
            if not self._gate.up:
                self._gate.back()

    async def _tell_news(self) -> None:
        self._news.look()
        beat = self._news.beat()
        if beat is not None:
            await self._gate.call(lambda: self._backend.pubsub.publish(self._channel, beat))

    async def _close(self) -> None:
        """Tell what can be told in a moment; nothing is let through any more after that."""
        with CancelScope(shield=True):
            await self._outbox.tell_again()
            self._fleet.give_all_back()
            await self._fleet.keep()
        self._gate.up = False


def _jittered(seconds: float) -> float:
    return seconds * (0.75 + 0.5 * rng().random())
