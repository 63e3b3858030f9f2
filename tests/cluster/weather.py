"""One process's way to a server that lives in memory: it may be away, slow, or lose its data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from anyio import move_on_after

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError

__all__ = ["Server", "Weather", "way_to"]


class Server:
    """What all processes share; its data can be lost."""

    def __init__(self) -> None:
        self.memory = MemoryBackend()
        self.ways: list[Weather] = []

    async def __aenter__(self) -> Self:
        await self.memory.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.memory.__aexit__(None, None, None)

    async def lose_all(self) -> None:
        """Restart without data: every connection is lost and made anew."""
        for name in [*self.memory._directories]:
            directory = self.memory.directory(name)
            for member in (await directory.snapshot()).members:
                await directory.remove(member)
        for way in self.ways:
            way.reconnect()

    async def members(self, service: str = "users") -> dict[str, bytes]:
        return (await self.memory.directory(f"svc:{service}").snapshot()).members


class Weather:
    """A backend whose server may be away.

    While it is ``away`` calls fail, while it ``hangs`` they wait; ``deaf`` watches hear no live
    message, and where a watch ``ends`` it has been closed.

    Args:
        server: The server; many may share it.
        delay: Seconds that each way takes at most.
        faults: Part of the calls that fail, before or after they happened.
    """

    def __init__(self, server: Server, *, delay: float = 0.0, faults: float = 0.0) -> None:
        self.server = server
        self.memory = server.memory
        self.kv = self.memory.kv
        self.pubsub = self
        self.delay = delay
        self.faults = faults
        self.away = False
        self.hangs = False
        self.deaf = False
        self.ends = False
        self.refuses: BackendError | None = None
        self.calls: list[str] = []
        self.entered = 0
        self.gaps: list[Callable[[], object]] = []
        server.ways.append(self)

    def reconnect(self) -> None:
        for on_gap in [*self.gaps]:
            on_gap()

    async def call(self, name: str, ask: Callable[[], Any]) -> Any:
        self.calls.append(name)
        await self.way()
        answer = await ask()
        await self.way()
        return answer

    async def way(self) -> None:
        if self.delay:
            await sleep(self.delay * rng().random())
        while self.hangs:
            await sleep(0.05)
        if self.away or (self.faults and rng().random() < self.faults):
            raise BackendUnavailableError("nobody answers")
        if self.refuses is not None:
            raise self.refuses

    async def time(self) -> float:
        return await self.call("time", self.memory.time)

    def directory(self, name: str) -> Any:
        return _Directory(self, self.memory.directory(name))

    def lease(self, name: str) -> Any:
        return _Lease(self, self.memory.lease(name))

    @asynccontextmanager
    async def subscribe(self, channel: str, *, on_gap: Callable[[], object]):
        await self.way()
        self.gaps.append(on_gap)
        try:
            async with self.memory.pubsub.subscribe(channel) as notices:
                yield notices
        finally:
            self.gaps.remove(on_gap)

    def statistics(self) -> Any:
        return self.memory.statistics()

    async def __aenter__(self) -> Self:
        await self.way()
        self.entered += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.entered -= 1


def way_to(server: Server, **options: float) -> Any:
    """Return one process's way to ``server``: a :class:`Weather`, taken for a backend."""
    return Weather(server, **options)


class _Directory:
    def __init__(self, weather: Weather, real: Any) -> None:
        self.weather = weather
        self.real = real

    async def put(self, member: str, data: bytes, *, ttl: float, fence: int = 0) -> bool:
        return await self.weather.call(
            "put", lambda: self.real.put(member, data, ttl=ttl, fence=fence)
        )

    async def snapshot(self) -> Any:
        return await self.weather.call("snapshot", self.real.snapshot)

    @asynccontextmanager
    async def watch(self, *, interval: float):
        await self.weather.way()
        async with self.real.watch(interval=interval) as changes:
            yield _Changes(self.weather, changes, interval)


class _Changes:
    """As a watch of Redis: while the server is away it looks again and tells nobody."""

    def __init__(self, weather: Weather, real: Any, interval: float) -> None:
        self.weather = weather
        self.real = real
        self.interval = interval
        self.confirmed = -float("inf")

    def __aiter__(self) -> _Changes:
        return self

    async def __anext__(self) -> Any:
        while True:
            try:
                await self.weather.way()
            except BackendUnavailableError:
                await sleep(self.interval)
                continue
            if self.weather.ends:
                raise StopAsyncIteration
            self.confirmed = monotonic()
            with move_on_after(self.interval):
                if self.weather.deaf:
                    await sleep(self.interval)
                return await anext(self.real)


class _Lease:
    def __init__(self, weather: Weather, real: Any) -> None:
        self.weather = weather
        self.real = real

    async def try_acquire(self, *, ttl: float) -> Any:
        held = await self.weather.call("acquire", lambda: self.real.try_acquire(ttl=ttl))
        return None if held is None else _Held(self.weather, held)


class _Held:
    def __init__(self, weather: Weather, real: Any) -> None:
        self.weather = weather
        self.real = real
        self.token = real.token

    async def release(self) -> bool:
        return await self.weather.call("release", self.real.release)
