"""The connections to one endpoint: those in use, and those that wait for the next request.

::

    take ------ an idle one, the newest first; the others grow old and are closed
    connect --- a new one, up to the bound; then wait in line for one that is given back
    give_back - the next in line is woken, and takes it as anybody else would
    lost ------ its place is free

Taking, giving back and losing are synchronous; only connecting waits. A connection has its place
from before it is dialled until it is closed, so the bound holds at every instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from anyio import move_on_after

from aiopatterns.core.clock import call_later, monotonic
from aiopatterns.core.errors import UpstreamError
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Literal

    from aiopatterns.gateway.connection import Connection

__all__ = ["Pool"]


@final
class Pool:
    """Connections to one endpoint, on the running loop.

    Args:
        name: The endpoint, as host and port.
        make: Returns a new connection of this pool.
        dial: Connects a connection; raises OSError if nobody answers.
        limit: Connections at most.
        keep_alive: Seconds that an idle connection is kept.
        empty: Called when there has been no connection for a while.

    Attributes:
        connections: All that are open, or on their way to be.
        idle: Those that wait for a request, each with the time since when; oldest first.
    """

    __slots__ = (
        "_dial",
        "_empty",
        "_keep_alive",
        "_limit",
        "_line",
        "_make",
        "_timer",
        "connections",
        "idle",
        "name",
    )

    def __init__(
        self,
        name: str,
        make: Callable[[Pool], Connection],
        dial: Callable[[Connection], Awaitable[object]],
        *,
        limit: int,
        keep_alive: float,
        empty: Callable[[], object],
    ) -> None:
        self.name: str = name
        self._make = make
        self._dial = dial
        self._limit = limit
        self._keep_alive = keep_alive
        self._empty = empty
        self._line = Waiters()
        self._timer: Callable[[], object] | None = None
        self.connections: set[Connection] = set()
        self.idle: dict[Connection, float] = {}

    def take(self) -> Connection | None:
        """Return an idle connection, or None; it is the caller's until it is given back."""
        idle = self.idle
        while idle:
            connection, _ = idle.popitem()
            if connection.usable:
                return connection
            connection.drop()
        return None

    async def connect(self, seconds: float, *, fresh: bool = False) -> Connection:
        """Return a connection: a new one, or one that becomes free.

        Args:
            seconds: How long it may take.
            fresh: Only a new one will do.

        Raises:
            UpstreamError: There is none to be had; nothing was sent.

        Cancellation: the place in line is given up, and what was dialled is closed.
        """
        with move_on_after(seconds):
            while len(self.connections) >= self._limit:
                if fresh and self.idle:
                    next(iter(self.idle)).drop()
                    continue
                await self._line.wait()
                connection = None if fresh else self.take()
                if connection is not None:
                    return connection
            return await self._dialled()
        raise self._error("timeout", f"no connection within {seconds:g} s")

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        self.idle[connection] = monotonic()
        if self._line.parked:
            self._line.wake()
        if self._timer is None:
            self._timer = call_later(self._keep_alive, self._sweep).cancel

    def lost(self, connection: Connection) -> None:
        """Free the place of a connection that is closed."""
        self.connections.discard(connection)
        self.idle.pop(connection, None)
        self._line.wake()
        if self._timer is None:
            self._timer = call_later(self._keep_alive, self._sweep).cancel

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self.connections):
            connection.drop()
        if self._timer is not None:
            self._timer()

    async def _dialled(self) -> Connection:
        connection = self._make(self)
        self.connections.add(connection)
        try:
            await self._dial(connection)
        except Exception as error:
            connection.drop()
            raise self._error("connect", str(error) or type(error).__name__) from error
        except BaseException:
            connection.drop()
            raise
        if not connection.usable:
            connection.drop()
            raise self._error("connect", "the service closed the connection at once")
        return connection

    def _sweep(self) -> None:
        """Close what has been idle for too long; the timer stops when nothing is left."""
        now = monotonic()
        wait = self._keep_alive
        for connection, since in list(self.idle.items()):
            wait = since + self._keep_alive - now
            if wait > 0:
                break
            connection.drop()  # while the timer still counts as set
        self._timer = None
        if self.connections or self._line.parked:
            self._timer = call_later(max(wait, 0.0), self._sweep).cancel
        else:
            self._empty()

    def _error(self, kind: Literal["connect", "timeout"], why: str) -> UpstreamError:
        return UpstreamError(f"{self.name}: {why}", name=self.name, kind=kind, sent=False)
