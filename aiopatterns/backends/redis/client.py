"""The client: what the seven protocols over Redis stand on.

==========  ==================================  ====================================================
verb        for                                 when the answer is lost
==========  ==================================  ====================================================
``read``    reads                               sent again
``write``   writes that may be repeated         sent again
``once``    ``INCRBY``, ``PUBLISH``             :class:`BackendUnavailableError`: it may have run
``run``     a script                            the same, or sent again if it is ``repeatable``
``line``    claims, blocking commands           the same, and the connection is dropped
==========  ==================================  ====================================================

All but the lines share one connection for each server and are sent in one write for each turn of
the loop (see ``pipeline.py``).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

from aiopatterns.backends.redis.errors import FAILURES, Failure, Lost, Refusal, translated
from aiopatterns.backends.redis.line import Command, Line, Word
from aiopatterns.backends.redis.pipeline import Pipeline
from aiopatterns.core.clock import monotonic, rng
from aiopatterns.core.errors import BackendError, ClosedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiopatterns.backends.redis.scripts import Script
    from aiopatterns.backends.url import Address, Target

__all__ = ["RedisClient"]

_FLOOR: Final = (6, 2, 0)
_RETRY_FOR: Final = 3.0
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5


@final
class RedisClient:
    """The connections to one Redis.

    Args:
        target: Where it is.
        namespace: First part of every key.
    """

    def __init__(self, target: Target, *, namespace: str = "ap") -> None:
        self._target = target
        self._pipeline: Pipeline | None = None
        self._lines: list[Line] = []
        self.namespace = namespace
        self.url = target.url
        self.version = (0, 0, 0)
        self.cluster = target.scheme == "redis+cluster"

    def key(self, kind: str, *parts: str) -> str:
        """Return the key ``namespace:kind:part:...``."""
        return ":".join((self.namespace, kind, *parts))

    def tag(self, kind: str, name: str) -> str:
        """Return ``{namespace:kind:name}``: keys that begin with it share a slot."""
        return f"{{{self.namespace}:{kind}:{name}}}"

    async def read(self, *command: Word) -> Any:
        """Send a read; sent again if the answer is lost."""
        reply = await self._open().send(command)
        if type(reply) in FAILURES:
            return await self._again(command, reply, repeatable=True)
        return reply

    async def write(self, *command: Word) -> Any:
        """Send a write that may be repeated; sent again if the answer is lost."""
        reply = await self._open().send(command)
        if type(reply) in FAILURES:
            return await self._again(command, reply, repeatable=True)
        return reply

    async def once(self, *command: Word) -> Any:
        """Send a command that must not run twice: it is sent once."""
        reply = await self._open().send(command)
        if type(reply) in FAILURES:
            return await self._again(command, reply, repeatable=False)
        return reply

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Word],
        *,
        repeatable: bool = False,
    ) -> Any:
        """Run ``script``; sent again after a lost answer only if it is ``repeatable``."""
        tail = (len(keys), *keys, *args)
        command: Command = ("EVALSHA", script.sha, *tail)
        reply = await self._open().send(command)
        if type(reply) is Refusal and reply.code == "NOSCRIPT":
            command = ("EVAL", script.text, *tail)
            reply = await self._open().send(command)
        if type(reply) in FAILURES:
            return await self._again(command, reply, repeatable=repeatable)
        return reply

    def line(self, name: str) -> Line:
        """Return a connection of its own, made with its first call."""
        line = Line(self, name)
        self._lines.append(line)
        return line

    async def read_each(self, commands: Sequence[Command]) -> list[Any]:
        """Send reads that may go to different servers; the replies in order. One turn, no tasks."""
        return await self._each(commands, repeatable=True)

    async def write_each(self, commands: Sequence[Command]) -> list[Any]:
        """Send repeatable writes that may go to different servers; the replies in order."""
        return await self._each(commands, repeatable=True)

    async def once_each(self, commands: Sequence[Command]) -> list[Any]:
        """Send writes that must not run twice; the replies in order."""
        return await self._each(commands, repeatable=False)

    async def _each(self, commands: Sequence[Command], *, repeatable: bool) -> list[Any]:
        send = self._open().send
        waiting = [send(command) for command in commands]
        replies: list[Any] = []
        for command, waiter in zip(commands, waiting, strict=True):
            reply = await waiter
            if type(reply) in FAILURES:
                reply = await self._again(command, reply, repeatable=repeatable)
            replies.append(reply)
        return replies

    async def open(self) -> None:
        """Connect, and look at the server's version."""
        pipeline = self._pipeline = Pipeline(
            self._target, self._address, timeout=5.0, connect_timeout=5.0
        )
        try:
            reply = await pipeline.send(("INFO", "server"))
            if type(reply) in FAILURES:
                raise translated(reply, self.url)
            self.version = _version(reply)
            if self.version < _FLOOR:
                found = ".".join(map(str, self.version))
                raise BackendError(
                    f"Redis at {self.url} is version {found}; 6.2 or newer is needed"
                )
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Hang up."""
        pipeline, self._pipeline = self._pipeline, None
        for line in self._lines:
            line.drop()
        if pipeline is not None:
            await pipeline.aclose()

    async def locate(self) -> tuple[Target, Address]:
        """Return where a line has to connect to."""
        self._open()
        return self._target, await self._address()

    async def _address(self) -> Address:
        return self._target.addresses[0]

    def _open(self) -> Pipeline:
        if self._pipeline is None:
            self._closed()
        return self._pipeline

    def _closed(self) -> NoReturn:
        raise ClosedError(
            f"the backend {self.url} is not open; use it inside 'async with open_backend(...)'"
        )

    async def _again(self, command: Command, failure: Failure, *, repeatable: bool) -> Any:
        """Send a command that failed until it succeeds, must not be sent again, or time is up."""
        deadline = monotonic() + _RETRY_FOR
        pause = _FIRST_PAUSE
        while True:
            safe = repeatable or not isinstance(failure, Lost)
            final = isinstance(failure, Refusal) and not failure.later
            if final or not safe or monotonic() >= deadline:
                raise translated(failure, self.url)
            await asyncio.sleep(pause * (0.5 + rng().random()))
            pause = min(2 * pause, _LONGEST_PAUSE)
            reply = await self._open().send(command)
            if type(reply) not in FAILURES:
                return reply
            failure = reply


def _version(info: bytes) -> tuple[int, int, int]:
    for line in info.decode("utf-8", "replace").splitlines():
        if line.startswith("redis_version:"):
            numbers = [int(each) for each in line.partition(":")[2].split(".")[:3]]
            return numbers[0], numbers[1], numbers[2]
    return (0, 0, 0)
