"""The Redis backend: the seven protocols behind one URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, final

import anyio

from aiopatterns.backends.redis.client import RedisClient

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.protocols import Directory, Kv, Lease, Limiter, Log, PubSub
    from aiopatterns.backends.queue import Queue
    from aiopatterns.backends.url import Target

__all__ = ["RedisBackend"]


@final
class RedisBackend:
    """State in Redis; made by :func:`~aiopatterns.backends.open_backend`.

    Args:
        target: Where it is.
        namespace: First part of every key.
    """

    def __init__(self, target: Target, *, namespace: str = "ap") -> None:
        self._target = target
        self._users = 0
        self._turn = anyio.Lock()
        self.client: Final = RedisClient(target, namespace=namespace)

    @property
    def url(self) -> str:
        """Where it is, with the password masked."""
        return self._target.url

    @property
    def scheme(self) -> Literal["redis"]:
        """What is behind it."""
        return "redis"

    @property
    def kv(self) -> Kv:
        """Keys and values."""
        from aiopatterns.backends.redis.kv import RedisKv

        return RedisKv(self.client)

    @property
    def pubsub(self) -> PubSub:
        """Live messages."""
        from aiopatterns.backends.redis.pubsub import RedisPubSub

        return RedisPubSub(self.client)

    def queue(self, name: str) -> Queue:
        """Return the job queue ``name``."""
        from aiopatterns.backends.redis.queue import RedisQueue

        return RedisQueue(self.client, name)

    def log(self, name: str) -> Log:
        """Return the log ``name``."""
        from aiopatterns.backends.redis.log import RedisLog

        return RedisLog(self.client, name)

    def lease(self, name: str) -> Lease:
        """Return the lease ``name``."""
        from aiopatterns.backends.redis.lease import RedisLease

        return RedisLease(self.client, name)

    def limiter(self, name: str) -> Limiter:
        """Return the limiter ``name``."""
        from aiopatterns.backends.redis.limiter import RedisLimiter

        return RedisLimiter(self.client, name)

    def directory(self, name: str) -> Directory:
        """Return the directory ``name``."""
        from aiopatterns.backends.redis.directory import RedisDirectory

        return RedisDirectory(self.client, name)

    async def time(self) -> float:
        """Return the server's time in seconds since 1970."""
        seconds, micros = await self.client.read("TIME")
        return int(seconds) + int(micros) / 1e6

    async def __aenter__(self) -> Self:
        async with self._turn:
            if not self._users:
                await self.client.open()
            self._users += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            async with self._turn:
                self._users -= 1
                if not self._users:
                    await self.client.aclose()
