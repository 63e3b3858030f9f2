"""A memory backend behind a network: slow, and if wanted unreachable, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyio import move_on_after

from aiopatterns.cache.aside import Cache
from aiopatterns.cache.tiers import Far
from aiopatterns.core.clock import rng, sleep
from aiopatterns.core.codec import JSON
from aiopatterns.core.errors import BackendError, BackendUnavailableError

if TYPE_CHECKING:
    from aiopatterns.backends.memory import MemoryBackend

__all__ = ["Deaf", "Shaky", "shared", "tier"]


def tier(backend: Any, local: Any = None, *, name: str = "n", **terms: Any) -> Any:
    """Return the far tier of one process."""
    return Far(name, backend, local or Deaf(), **{"codec": JSON, **terms})


def shared(backend: Any, *, name: str = "near", **terms: Any) -> Any:
    """Return the cache of one process, with both tiers."""
    return Cache(name, **{"ttl": 60, **terms}, backend=backend)


class Deaf:
    """A process without a near tier; it notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def forget(self, keys):
        self.told.append(list(keys))

    def forget_tags(self, tags):
        self.told.append(set(tags))

    def forget_matching(self, pattern):
        self.told.append(pattern)

    def forget_all(self):
        self.told.append("all")


class Shaky:
    """One process's way to a server that lives in memory.

    Args:
        server: The server; many may share it.
        delay: Seconds that each way takes at most.
        faults: Part of the calls that go wrong: before or after they happened, or never answered.
    """

    def __init__(self, server: MemoryBackend, *, delay: float = 0.0, faults: float = 0.0) -> None:
        self.server = server
        self.delay = delay
        self.faults = faults
        self.refuses = False
        self.hangs = False
        self.calls: list[str] = []
        self.url = "memory://shaky"
        self.scheme = "memory"
        self.kv: Any = Calls(self, server.kv)
        self.pubsub: Any = Calls(self, server.pubsub)

    async def __aenter__(self):
        # A client gives up on a server that does not let it in.
        with move_on_after(5) as scope:
            await self.way()
        if scope.cancelled_caught:
            raise BackendUnavailableError("the server does not let us in")
        await self.server.__aenter__()
        return self

    async def __aexit__(self, *exc):
        await self.server.__aexit__(*exc)

    async def time(self) -> float:
        await self.way()
        time = await self.server.time()
        await self.way()
        return time

    async def way(self) -> None:
        """Take one way; it may be a long one, or none."""
        if self.hangs:
            await sleep(3600)
        if self.delay:
            await sleep(rng().uniform(0, self.delay))
        if self.faults and rng().random() < self.faults:
            if rng().random() < 0.3:
                await sleep(3600)
            raise BackendUnavailableError("the network is gone")


class Calls:
    """The calls of one part of the server, each there and back."""

    def __init__(self, shaky: Shaky, part: Any) -> None:
        self._shaky = shaky
        self._part = part

    def __getattr__(self, name):
        if name == "subscribe":
            return self._part.subscribe

        async def call(*args, **terms):
            self._shaky.calls.append(name)
            if self._shaky.refuses and name != "get_many":
                raise BackendError("OOM command not allowed")
            await self._shaky.way()
            answer = await getattr(self._part, name)(*args, **terms)
            await self._shaky.way()
            return answer

        return call
