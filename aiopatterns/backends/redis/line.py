"""A connection of one's own: for claims, and for commands that wait on the server.

What a claim hands out belongs to whoever asked. If the answer is lost, nobody may ask again
blindly: the caller has to look what it holds. So here nothing is ever sent twice, and a call that
failed or was cancelled takes its connection with it: the next call gets a fresh one, on which no
stale answer can arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, final

from hiredis import pack_command

from aiopatterns.backends.redis.connection import Connection, connect
from aiopatterns.backends.redis.errors import FAILURES, Refusal, Unsent, translated

if TYPE_CHECKING:
    from aiopatterns.backends.redis.client import RedisClient
    from aiopatterns.backends.redis.scripts import Script

__all__ = ["Command", "Line", "Word"]

Word: TypeAlias = bytes | str | int | float
Command: TypeAlias = Sequence[Word]

_CONNECT_TIMEOUT = 5.0


@final
class Line:
    """A connection of its own, made with the first call; made by ``client.line(name)``.

    One command at a time: a second call waits for the first.
    """

    def __init__(self, client: RedisClient, name: str) -> None:
        self._client = client
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()
        self.name = name

    async def call(self, *command: Word, timeout: float = 10.0) -> Any:
        """Send ``command`` once and return its reply.

        Args:
            command: The words.
            timeout: Seconds to wait for the reply; above the block of a blocking command.

        Raises:
            BackendUnavailableError: No answer; it may have run.
            BackendError: The server refused.
            ClosedError: The backend is not open.

        Cancellation: the command may have run; its connection is dropped.
        """
        async with self._turn:
            reply = await self._exchange(command, timeout)
        if type(reply) in FAILURES:
            raise translated(reply, self._client.url)
        return reply

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Word],
        *,
        timeout: float = 10.0,
    ) -> Any:
        """Run ``script`` once; as :meth:`call`. A server that does not know it is given its text."""
        async with self._turn:
            command = ("EVALSHA", script.sha, len(keys), *keys, *args)
            reply = await self._exchange(command, timeout)
            if type(reply) is Refusal and reply.code == "NOSCRIPT":  # it did not run
                command = ("EVAL", script.text, len(keys), *keys, *args)
                reply = await self._exchange(command, timeout)
        if type(reply) in FAILURES:
            raise translated(reply, self._client.url)
        return reply

    async def aclose(self) -> None:
        """Hang up; the next call connects anew."""
        self.drop()

    def drop(self) -> None:
        """Hang up at once."""
        if self._connection is not None:
            self._connection.drop("the line was closed")

    async def _exchange(self, command: Command, timeout: float) -> Any:
        """Send once; the reply, or a failure."""
        packed = pack_command(tuple(command))
        try:
            connection = self._connection or await self._connect()
        except (Unsent, Refusal) as failure:
            return failure
        waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                connection.send(packed, (waiter,))
                return await waiter
        except TimeoutError:
            return await self._silent(connection, timeout, waiter)
        except BaseException:
            connection.drop("the call was cancelled")
            raise

    async def _silent(
        self, connection: Connection, timeout: float, waiter: asyncio.Future[Any]
    ) -> Any:
        from aiopatterns.backends.redis.errors import Lost

        connection.drop("")
        return Lost(f"no reply within {timeout:g} s")

    async def _connect(self) -> Connection:
        target, address = await self._client.locate()
        self._connection = await connect(
            target,
            address,
            timeout=86_400.0,
            connect_timeout=_CONNECT_TIMEOUT,
            closed=self._gone,
        )
        return self._connection

    def _gone(self) -> None:
        self._connection = None
