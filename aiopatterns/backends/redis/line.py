"""A connection of one's own: for claims, and for commands that wait on the server.

What a claim hands out belongs to whoever asked. If the answer is lost, nobody may ask again
blindly: the caller has to look at what it holds. So here nothing is sent twice, unless a server
has said that it did not run it (a script that it does not know, a slot that has moved), and a call
that failed or was cancelled takes its connection with it: the next call gets a fresh one, on which
no stale answer can arrive.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.backends.redis.connection import connect, pack
from aiopatterns.backends.redis.errors import FAILURES, RefusalError, UnsentError, translated
from aiopatterns.core.validate import positive
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiopatterns.backends.redis.client import RedisClient
    from aiopatterns.backends.redis.connection import Command, Connection, Reply, Word
    from aiopatterns.backends.redis.scripts import Script
    from aiopatterns.backends.url import Address

__all__ = ["Line"]

# A slot that moves is redirected once or twice; more is a quarrel among servers.
_MAX_REDIRECTS: Final = 5


@final
class Line:
    """A connection made with the first call; ``client.line(name)`` makes one.

    One command at a time; a second caller waits for the first.

    Args:
        client: Where the server is.
        name: What it is for; shown by its repr.
    """

    __slots__ = ("__weakref__", "_busy", "_client", "_connection", "_home", "_queue", "name")

    def __init__(self, client: RedisClient, name: str) -> None:
        self._client = client
        self._connection: Connection | None = None
        self._home: Address | None = None
        self._busy = False
        self._queue = Waiters()
        self.name: str = name

    def __repr__(self) -> str:
        return f"<Line {self.name!r} of {self._client.url}>"

    async def call(self, *command: Word, timeout: float = 10.0) -> Any:
        """Send ``command`` once and return its reply.

        Args:
            command: The words; in a cluster its first key says where it goes.
            timeout: Seconds that the server may be silent, and that connecting may take; must be
                longer than a blocking command blocks.

        Raises:
            BackendUnavailableError: No answer; it may have run.
            BackendError: The server refuses.
            ClosedError: The backend is not open.

        Cancellation: it may have run; the connection is dropped.
        """
        return await self._call(command, None, positive("timeout", timeout))

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Word],
        *,
        timeout: float = 10.0,
    ) -> Any:
        """Run ``script`` once; everything else as :meth:`call`."""
        command = ("EVALSHA", script.sha, len(keys), *keys, *args)
        return await self._call(command, script, positive("timeout", timeout))

    async def aclose(self) -> None:
        """Hang up; the next call connects anew."""
        if ends := self.drop("the line was closed"):
            await asyncio.wait(ends)

    def drop(self, why: str) -> list[asyncio.Future[None]]:
        """Hang up; returns whose end is to be awaited."""
        connection = self._connection
        if connection is None:
            return []
        connection.drop(why)
        return [connection.gone]

    async def _call(self, command: Command, script: Script | None, timeout: float) -> Any:
        while self._busy:
            await self._queue.wait()
        self._busy = True
        try:
            reply = await self._follow(command, script, timeout)
        finally:
            self._busy = False
            self._queue.wake()
        if type(reply) in FAILURES:
            raise translated(reply, self._client.url)
        return reply

    async def _follow(self, command: Command, script: Script | None, timeout: float) -> Reply:
        """Send a command to where it belongs; it is sent on only if it did not run."""
        route = self._client.route()
        home, asking = route.home(command), False
        reply = await self._exchange(command, home, timeout=timeout)
        for _ in range(_MAX_REDIRECTS):
            if type(reply) is not RefusalError:
                break
            if reply.code == "NOSCRIPT" and script is not None:
                command = ("EVAL", script.text, *command[2:])
            elif (redirected := route.redirected(reply)) is not None:
                home, asking = redirected, reply.code == "ASK"
            else:
                break
            reply = await self._exchange(command, home, timeout=timeout, asking=asking)
        return reply

    async def _exchange(
        self, command: Command, home: Address | None, *, timeout: float, asking: bool = False
    ) -> Reply:
        """Send a command once over a connection to ``home``; the reply, or a failure."""
        packed = pack(command)
        if asking:
            packed = pack(("ASKING",)) + packed
        connection = self._connection
        if connection is None or not connection.usable or home != self._home:
            try:
                connection = await self._connect(home, timeout)
            except (UnsentError, RefusalError) as failure:
                return failure
        waiters = [asyncio.get_running_loop().create_future() for _ in range(1 + asking)]
        connection.patience = timeout
        self._client.tally.commands += 1
        self._client.tally.round_trips += 1
        connection.send(packed, waiters)
        try:
            reply = await waiters[-1]
        except BaseException:
            connection.drop("the call was cancelled")
            raise
        if type(reply) is RefusalError and reply.later:
            connection.drop("the server does not serve now")
        return reply

    async def _connect(self, home: Address | None, timeout: float) -> Connection:
        await self.aclose()
        route = self._client.route()
        connection = await connect(
            self._client.target, await route.locate(home), patience=timeout, closed=self._gone
        )
        if not self._client.uses(route):  # closed meanwhile, when there was nothing to drop yet
            connection.drop("the backend was closed")
            await asyncio.wait((connection.gone,))
            raise UnsentError("the backend was closed")
        self._connection, self._home = connection, home
        self._client.connected(self)
        return connection

    def _gone(self) -> None:
        self._connection = None
        self._client.disconnected(self)
