"""The memory backend: real semantics inside one process, nothing to install, virtual time.

::

    MemoryBackend --- MemoryHome: open or closed, time
       |-- kv, pubsub                            one each
       |-- lease(name), limiter(name)            light handles on state that expires
       `-- queue(name), log(name), directory(name)   state by name, kept by the backend

What one process does through it is what all processes of a fleet do through Redis: the same
protocols, expiry, fencing, groups and errors, held by the same conformance suite. It differs in
three things: other processes do not see it, it ends with the process, and no call ever waits.

The state stays as long as this object lives, also while it is closed. It belongs to one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, final

from aiopatterns.backends.memory.directory import MemoryDirectory
from aiopatterns.backends.memory.expiring import Expiring
from aiopatterns.backends.memory.home import MemoryHome
from aiopatterns.backends.memory.kv import MemoryKv
from aiopatterns.backends.memory.lease import Leases, MemoryLease
from aiopatterns.backends.memory.limiter import MemoryLimiter
from aiopatterns.backends.memory.log import MemoryLog
from aiopatterns.backends.memory.pubsub import MemoryPubSub
from aiopatterns.backends.names import check_name
from aiopatterns.backends.statistics import BackendStatistics

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.memory.limiter import Level
    from aiopatterns.backends.memory.queue import MemoryQueue

__all__ = ["MemoryBackend"]


@final
class MemoryBackend:
    """State in this process; see ``Backend`` for the contract.

    Args:
        namespace: Taken for the sake of one call shape; each memory backend is a space of its
            own.

    Example::

        backend = MemoryBackend()
        async with backend:
            await backend.kv.set("greeting", b"hello", ttl=60)
    """

    __slots__ = (
        "_directories",
        "_home",
        "_leases",
        "_levels",
        "_logs",
        "_queues",
        "kv",
        "namespace",
        "pubsub",
    )

    scheme: Literal["memory", "redis"] = "memory"

    def __init__(self, namespace: str = "ap") -> None:
        self.namespace: str = check_name("namespace", namespace)
        self._home = MemoryHome()
        self.pubsub: MemoryPubSub = MemoryPubSub(self._home)
        self.kv: MemoryKv = MemoryKv(self._home, self.pubsub)
        self._leases = Leases(self._home)
        self._levels: Expiring[tuple[str, str], Level] = Expiring(self._home)
        self._queues: dict[str, MemoryQueue] = {}
        self._logs: dict[str, MemoryLog] = {}
        self._directories: dict[str, MemoryDirectory] = {}

    @property
    def url(self) -> str:
        """Where it is."""
        return self._home.url

    def queue(self, name: str) -> MemoryQueue:
        """Return the job queue ``name``."""
        from aiopatterns.backends.memory.queue import MemoryQueue

        found = self._queues.get(check_name("name", name))
        if found is None:
            found = self._queues[name] = MemoryQueue(self._home, name)
        return found

    def log(self, name: str) -> MemoryLog:
        """Return the log ``name``."""
        found = self._logs.get(check_name("name", name))
        if found is None:
            found = self._logs[name] = MemoryLog(self._home, name)
        return found

    def lease(self, name: str) -> MemoryLease:
        """Return the lease ``name``."""
        return MemoryLease(self._leases, check_name("name", name))

    def limiter(self, name: str) -> MemoryLimiter:
        """Return the limiter ``name``."""
        return MemoryLimiter(self._home, self._levels, check_name("name", name))

    def directory(self, name: str) -> MemoryDirectory:
        """Return the directory ``name``."""
        found = self._directories.get(check_name("name", name))
        if found is None:
            found = self._directories[name] = MemoryDirectory(self._home)
        return found

    async def time(self) -> float:
        """Return the server's time in seconds since 1970."""
        return self._home.time()

    def statistics(self) -> BackendStatistics:
        """Return the figures so far; nothing is sent anywhere, so there are only the users."""
        return BackendStatistics(url=self.url, users=self._home.users)

    async def __aenter__(self) -> Self:
        self._home.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._home.leave()
