"""The fast transport: connections of our own, straight on the loop, parsed by httptools.

It costs a third of what aiohttp's client costs, because nothing is made for a request but its
answer and one future: no task, no scope, no stream, no timer of its own::

    send --> pool of the endpoint --> Connection --> Answer
              |  idle, newest first      one write      one future; a small body comes with the head
              |  dial, up to a bound
              '  wait in line for one

Timeouts are alarms that all requests with one budget share. A body that is streamed has a task,
for an answer may begin, and must be read, before the request has ended.

Guarantees: those of :mod:`aiopatterns.gateway.transport`, and:

* Headers and bodies arrive byte by byte as they were given.
* A service that closes a kept connection just when a request is sent on it costs nothing where
  sending again is safe: idempotent methods, with a body that is whole, go once more on a new one.
* An idle connection on which anything arrives is closed, never used.

WebSockets go by aiohttp's client, as they do with the other transport.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, cast, final

from aiopatterns.core.clock import Alarms, Home
from aiopatterns.core.errors import UpstreamError
from aiopatterns.core.validate import count, positive
from aiopatterns.gateway.aioclient import hold, open_session, require
from aiopatterns.gateway.framing import framed
from aiopatterns.gateway.pool import Pool
from aiopatterns.gateway.pump import Pump
from aiopatterns.gateway.transport import Transport, TransportStatistics
from aiopatterns.gateway.upload import Upload
from aiopatterns.gateway.wsclient import dial

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from aiohttp import ClientSession
    from anyio.abc import TaskGroup

    from aiopatterns.gateway.answer import Answer
    from aiopatterns.gateway.connection import Connection
    from aiopatterns.gateway.policy import Timeouts
    from aiopatterns.gateway.transport import Incoming, Outgoing, UpstreamSocket

__all__ = ["FastTransport"]

_CONNECTIONS: Final = 1024
_KEEP_ALIVE: Final = 30.0
# RFC 9110, 9.2.2.
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
# Budgets that have an alarm; routes share a few of them.
_BUDGETS: Final = 256


@final
class FastTransport(Transport):
    """Sends requests over connections of its own.

    Args:
        max_connections: Connections to one endpoint at most; a request that gets none within the
            connect timeout is a timeout.
        keep_alive: Seconds that an idle connection is kept.
        tls: How ``https`` endpoints are verified; by default by the system's authorities.
        name: How statistics and errors call it.

    Raises:
        ImportError: httptools or aiohttp is not installed.
    """

    __slots__ = (
        "_alarms",
        "_failed",
        "_home",
        "_keep_alive",
        "_limit",
        "_pools",
        "_requests",
        "_session",
        "_tls",
    )

    def __init__(
        self,
        *,
        max_connections: int = _CONNECTIONS,
        keep_alive: float = _KEEP_ALIVE,
        tls: ssl.SSLContext | None = None,
        name: str = "transport",
    ) -> None:
        require("httptools", "aiohttp")
        super().__init__(name)
        self._limit = count("max_connections", max_connections)
        self._keep_alive = positive("keep_alive", keep_alive)
        self._tls = tls
        self._pools: dict[tuple[str, int, bool], Pool] = {}
        self._alarms: dict[float, Alarms] = {}
        self._requests = 0
        self._failed = 0
        self._session: ClientSession | None = None

    def statistics(self) -> TransportStatistics:
        """Return this transport's figures."""
        pools = self._pools.values()
        return TransportStatistics(
            requests=self._requests,
            failed=self._failed,
            connections=sum(len(each.connections) for each in pools),
            idle=sum(len(each.idle) for each in pools),
        )

    async def send(self, outgoing: Outgoing, timeouts: Timeouts) -> Incoming:
        """Send a request; see :class:`~aiopatterns.gateway.transport.Transport`."""
        if self._group is None:
            raise self._unopened()
        self._requests += 1
        pool = self._pools.get((outgoing.host, outgoing.port, outgoing.tls)) or self._pool(outgoing)
        data = framed(outgoing)
        try:
            connection = pool.take() or await pool.connect(timeouts.connect)
            stale = connection.used and _may_go_twice(outgoing)
            answer = await self._exchange(connection, data, outgoing, timeouts)
            if answer.error is not None and stale and not connection.heard:
                connection = await pool.connect(timeouts.connect, fresh=True)
                answer = await self._exchange(connection, data, outgoing, timeouts)
            if answer.error is not None:
                raise answer.error
        except UpstreamError:
            self._failed += 1
            raise
        return answer

    async def websocket(
        self, outgoing: Outgoing, subprotocols: Sequence[str], timeouts: Timeouts
    ) -> UpstreamSocket:
        """Open a WebSocket; see :class:`~aiopatterns.gateway.transport.Transport`."""
        tasks = self._open_group()
        self._requests += 1
        if self._session is None:
            self._session = open_session(self._limit, self._keep_alive, self._tls)
            await tasks.start(hold, self._session)
        try:
            return await dial(self._session, outgoing, subprotocols, timeouts)
        except UpstreamError:
            self._failed += 1
            raise

    async def _start(self, tasks: TaskGroup) -> None:
        del tasks
        self._home = Home()

    def _settle(self) -> None:
        pools, self._pools = self._pools, {}
        self._alarms = {}
        self._session = None
        for pool in pools.values():
            pool.close()

    async def _exchange(
        self, connection: Connection, data: bytes, outgoing: Outgoing, timeouts: Timeouts
    ) -> Answer:
        """Send a request over a connection, and wait for the head of its answer."""
        patience, silence = self._alarm(timeouts.first_byte), self._alarm(timeouts.idle)
        answer = connection.begin(outgoing.method, data, patience, silence)
        body = outgoing.body
        if body is None or isinstance(body, bytes):
            connection.sent()
        else:
            upload = Upload(body, outgoing.length)
            pump = Pump(connection, upload, chunked=outgoing.length is None, idle=timeouts.idle)
            connection.pump = pump
            self._open_group().start_soon(pump.run)
        try:
            await answer.arrival()
        except BaseException:
            connection.drop()
            raise
        return answer

    def _alarm(self, seconds: float) -> Alarms:
        return self._alarms.get(seconds) or self._new_alarm(seconds)

    def _new_alarm(self, seconds: float) -> Alarms:
        if len(self._alarms) >= _BUDGETS:  # those that are armed ring all the same
            self._alarms.clear()
        alarm = self._alarms[seconds] = Alarms(seconds)
        return alarm

    def _pool(self, outgoing: Outgoing) -> Pool:
        from aiopatterns.gateway.connection import Connection  # which needs httptools

        key = host, port, tls = (outgoing.host, outgoing.port, outgoing.tls)

        async def connect(connection: Connection) -> None:
            secure = self._secure() if tls else None
            # It is one by its methods; the base class would only give it a dict.
            protocol = cast("asyncio.Protocol", connection)
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: protocol, host, port, ssl=secure)

        pool = self._pools[key] = Pool(
            outgoing.endpoint,
            partial(Connection, self._home),
            connect,
            limit=self._limit,
            keep_alive=self._keep_alive,
            empty=lambda: self._pools.pop(key, None),
        )
        return pool

    def _secure(self) -> ssl.SSLContext:
        if self._tls is None:
            import ssl

            self._tls = ssl.create_default_context()
        return self._tls


def _may_go_twice(outgoing: Outgoing) -> bool:
    return outgoing.method in _IDEMPOTENT and (
        outgoing.body is None or isinstance(outgoing.body, bytes)
    )
