"""The Redis backend: seven protocols over one client, opened by the first user, closed by the last.

::

    users   0 ----enter----> 1 ---> 2 ---> 1 ----exit----> 0
              opening:                       closing:
              start the private server       subscriptions end, lines and pipelines hang up,
              (embedded://), connect,        the private server is stopped
              look at the version

Users may enter and leave at the same time, from any task. All who enter while it is being opened
share that one attempt, and its error. Closing hangs up in one step that nothing can interrupt; only
then it waits, for the transports and for the private server to end, so that a cancelled exit
leaves nothing open either. After the last exit it can be opened again, also on another loop.
"""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, final

from anyio import CancelScope, Event

from aiopatterns.backends.redis.client import RedisClient
from aiopatterns.backends.redis.directory import RedisDirectory
from aiopatterns.backends.redis.info import tell
from aiopatterns.backends.redis.kv import RedisKv
from aiopatterns.backends.redis.lease import RedisLease
from aiopatterns.backends.redis.limiter import RedisLimiter
from aiopatterns.backends.redis.log import RedisLog
from aiopatterns.backends.redis.pubsub import RedisPubSub
from aiopatterns.backends.redis.queue import RedisQueue
from aiopatterns.backends.url import parse
from aiopatterns.core.errors import ClosedError
from aiopatterns.core.flight import Flights

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.redis.embedded import RedisServer
    from aiopatterns.backends.statistics import BackendStatistics
    from aiopatterns.backends.url import Address, Target

__all__ = ["RedisBackend"]

# What a private server with a data directory is told: at most a second of writes can be lost.
_PERSISTENT: Final = MappingProxyType({"appendonly": "yes", "appendfsync": "everysec"})


@final
class RedisBackend:
    """State in Redis; :func:`~aiopatterns.backends.open_backend` makes one. See ``Backend``.

    Args:
        target: Where it is.
        namespace: First part of every key.
        timeout: Seconds that connecting may take, and that a server may be silent while it owes
            an answer.

    Example::

        async with open_backend("redis://localhost:6379/0") as backend:
            await backend.kv.set("greeting", b"hello", ttl=60)
    """

    __slots__ = (
        "__weakref__",
        "_logs",
        "_loop",
        "_opening",
        "_relies",
        "_server",
        "_stopped",
        "_users",
        "client",
        "kv",
        "pubsub",
    )

    def __init__(self, target: Target, *, namespace: str = "ap", timeout: float = 5.0) -> None:
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # of those who have it open
        self._opening: Flights[str, None] = Flights()
        self._relies: bool | None = False  # on what the server keeps; None once a risk was told
        self._server: RedisServer | None = None
        self._stopped: Event | None = None
        self._logs: dict[str, RedisLog] = {}  # each keeps the connections on which it waits
        self.client: Final = RedisClient(target, namespace=namespace, timeout=timeout)
        self.kv: Final = RedisKv(self.client)
        self.pubsub: Final = RedisPubSub(self.client)

    @property
    def url(self) -> str:
        """Where it is, with the password masked."""
        return self.client.url

    @property
    def scheme(self) -> Literal["redis"]:
        """What is behind it."""
        return "redis"

    def __repr__(self) -> str:
        return f"<RedisBackend {self.url}>"

    def queue(self, name: str) -> RedisQueue:
        """Return the job queue ``name``."""
        self._rely()
        return RedisQueue(self.client, name)

    def log(self, name: str) -> RedisLog:
        """Return the log ``name``."""
        self._rely()
        found = self._logs.get(name)
        if found is None:
            found = self._logs[name] = RedisLog(self.client, name)
        return found

    def lease(self, name: str) -> RedisLease:
        """Return the lease ``name``."""
        self._rely()
        return RedisLease(self.client, name)

    def limiter(self, name: str) -> RedisLimiter:
        """Return the limiter ``name``."""
        return RedisLimiter(self.client, name)

    def directory(self, name: str) -> RedisDirectory:
        """Return the directory ``name``."""
        return RedisDirectory(self.client, name)

    async def time(self) -> float:
        """Return the server's time in seconds since 1970. 1 round trip."""
        seconds, micros = await self.client.read("TIME")
        return int(seconds) + int(micros) / 1e6

    def statistics(self) -> BackendStatistics:
        """Return the figures so far; cheap, callable at any time."""
        return self.client.statistics(self._users)

    async def __aenter__(self) -> Self:
        """Open, or count one more user.

        Raises:
            BackendUnavailableError: Nobody answers within ``timeout``.
            BackendError: The server refuses us, or is older than 6.2.
            RuntimeError: It is open on another event loop.

        Cancellation: as if it had not been entered.
        """
        loop = asyncio.get_running_loop()
        if self._users and loop is not self._loop:
            raise RuntimeError(
                f"the backend {self.url} is open on another event loop: leave it there first, "
                "or make one for each loop"
            )
        self._loop = loop
        self._users += 1
        try:
            if not self.client.is_open:
                await self._opening.run("", self._open)
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Count one user less; the last one closes.

        Raises:
            ClosedError: Nobody has it open.
        """
        if not self._users:
            raise ClosedError(f"the backend {self.url} is not open")
        await self._leave()

    async def _leave(self) -> None:
        """Count one user less. The last one hangs up, at once, and then waits for the ends."""
        self._users -= 1
        if self._users:
            return
        ends = self.client.drop()
        server, self._server = self._server, None
        stopped = self._stopped = Event()
        try:
            with CancelScope(shield=True):
                if ends:
                    await asyncio.wait(ends)
        finally:
            if server is not None:
                with CancelScope(shield=True):
                    await server.__aexit__(None, None, None)
            stopped.set()

    async def _open(self) -> None:
        """Open, for all who wait for that."""
        if self._stopped is not None:
            await self._stopped.wait()  # a private server lets go of its data
        await self.client.open(await self._private_server())
        if self._relies:
            self._rely()

    def _rely(self) -> None:
        """Note that something is kept here that must not be lost; warn once if it may be."""
        if self._relies is None:
            return
        self._relies = True
        if self.client.risk is not None:
            self._relies = None
            tell(self.client.risk)

    async def _private_server(self) -> Address | None:
        """Start the server of ``embedded://`` and return where it listens."""
        target = self.client.target
        if target.scheme != "embedded":
            return None
        from aiopatterns.backends.redis.embedded import RedisServer

        config = _PERSISTENT if target.path else None
        server = RedisServer(target.path or None, config=config, private=True)
        self._server = await server.__aenter__()
        return parse(self._server.url).addresses[0]
