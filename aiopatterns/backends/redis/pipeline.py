"""Many callers, one connection, one write for each turn of the loop.

::

    task A: GET x --.
    task B: GET y --+--> outgoing --(next turn)--> one write --> server
    task C: SET z --'                                             |
    A, B, C <------------------- replies, parsed in bulk ---------'

A command that is issued joins the outgoing ones; the first of a turn asks the loop to flush on the
next. So a thousand tasks that each ask for one key cost one system call and one round trip, and no
caller had to know of the others. There is no delay to be tuned: a lone command leaves with the
next turn.

Guarantees: order of issue is order of execution while one connection lasts; a caller that is
cancelled before the flush is not sent, one that is cancelled later is not answered, and nobody
else notices; what is issued while there is no connection waits for it, and is answered with
:class:`~aiopatterns.backends.redis.errors.Unsent` if none comes about.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, final

from hiredis import pack_command

from aiopatterns.backends.redis.connection import Connection, connect
from aiopatterns.backends.redis.errors import Lost, Refusal, Unsent
from aiopatterns.core.clock import monotonic, rng
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiopatterns.backends.redis.connection import Waiting
    from aiopatterns.backends.redis.line import Command
    from aiopatterns.backends.url import Address, Target

__all__ = ["Pipeline"]

_MAX_BACKOFF: Final = 1.0
_MIN_BACKOFF: Final = 0.02
_MAX_COMMANDS: Final = 20_000


@final
class Pipeline:
    """The shared connection to one server, opened when it is needed; on one loop.

    Args:
        target: User, password, database and TLS.
        locate: Tells where the server is now.
        timeout: Seconds that the server may stay silent.
        connect_timeout: Seconds that connecting may take.
    """

    def __init__(
        self,
        target: Target,
        locate: Callable[[], Awaitable[Address]],
        *,
        timeout: float,
        connect_timeout: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._target = target
        self._locate = locate
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._connection: Connection | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._outgoing: list[bytes] = []
        self._waiting: list[Waiting] = []
        self._flushing = False
        self._failures = 0
        self._not_before = 0.0
        self._room = Waiters()
        self.commands = 0
        self.writes = 0
        self.connects = 0

    @property
    def in_flight(self) -> int:
        """Commands that are not answered."""
        sent = self._connection.waiting if self._connection is not None else ()
        return len(sent) + len(self._waiting)

    def send(self, command: Command) -> Waiting:
        """Issue ``command``; the future's result is the reply or a failure."""
        self._outgoing.append(pack_command(command))
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return waiter

    def drop(self, why: str) -> None:
        """Hang up; the next command connects anew."""
        if self._connection is not None:
            self._connection.drop(why)

    async def aclose(self) -> None:
        """Hang up and end; what waits is answered with a failure."""
        connection = self._connection
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.wait((self._dialling,))
        self._fail(Unsent("the backend was closed"))
        if connection is not None:
            connection.drop("the backend was closed")
            await connection.gone

    def _flush(self) -> None:
        self._flushing = False
        connection = self._connection
        if connection is None:
            if self._dialling is None:
                self._dialling = self._loop.create_task(self._dial())
            return
        waiting, self._waiting = self._waiting, []
        outgoing, self._outgoing = self._outgoing, []
        self.commands += len(waiting)
        self.writes += 1
        connection.send(b"".join(outgoing), waiting)

    async def _dial(self) -> None:
        """Connect, once, not before the backoff is over; then send or fail what waits."""
        try:
            if (pause := self._not_before - monotonic()) > 0:
                await asyncio.sleep(pause)
            self._connection = await connect(
                self._target,
                await self._locate(),
                timeout=self._timeout,
                connect_timeout=self._connect_timeout,
                closed=self._gone,
            )
        except (Unsent, Refusal, Lost) as error:
            self._failures += 1
            pause = min(_MAX_BACKOFF, _MIN_BACKOFF * 2**self._failures)
            self._not_before = monotonic() + pause * rng().random()
            self._dialling = None
            self._fail(error)
        else:
            self._failures = 0
            self.connects += 1
            self._dialling = None
            self._flush()
        finally:
            self._dialling = None

    def _gone(self) -> None:
        self._connection = None

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, []
        self._outgoing.clear()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(error)
