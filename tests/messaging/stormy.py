"""One process's way to a server in memory, which may be away or lose its directory."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any, Self

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.backends.records import Notice
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError

__all__ = ["Stormy"]


class Stormy:
    """A backend as one process has it; several may share a server.

    While ``error`` is set every call raises it; while ``hangs`` calls wait.
    """

    def __init__(self, memory: MemoryBackend) -> None:
        self.memory = memory
        self.url = "memory://"
        self.scheme = "memory"
        self.pubsub = self
        self.error: BackendError | None = None
        self.hangs = False
        self.published: list[Notice] = []
        self.gaps: list[Any] = []
        self.kv = memory.kv

    def outage(self) -> None:
        self.error = BackendUnavailableError("nobody answers")

    def back(self) -> None:
        """Come back after an outage: the connection is made anew."""
        self.error = None
        for on_gap in [*self.gaps]:
            on_gap()

    async def lose_directory(self) -> None:
        directory = self.memory.directory("brokers")
        for member in (await directory.snapshot()).members:
            await directory.remove(member)

    async def way(self) -> None:
        while self.hangs:
            await sleep(0.01)
        if self.error is not None:
            raise self.error

    async def publish(self, channel: str, data: bytes) -> int:
        return (await self.publish_many([Notice(channel, data)]))[0]

    async def publish_many(self, notices: list[Notice]) -> list[int]:
        await self.way()
        self.published += notices
        return await self.memory.pubsub.publish_many(notices)

    @asynccontextmanager
    async def subscribe(self, channel: str, *, capacity: int, on_gap: Any):
        await self.way()
        self.gaps.append(on_gap)
        try:
            async with self.memory.pubsub.subscribe(
                channel, capacity=capacity, on_gap=on_gap
            ) as notices:
                yield notices
        finally:
            self.gaps.remove(on_gap)

    def directory(self, name: str) -> Any:
        return _Directory(self, self.memory.directory(name))

    async def __aenter__(self) -> Self:
        await self.way()
        await self.memory.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.memory.__aexit__(None, None, None)


class _Directory:
    def __init__(self, stormy: Stormy, real: Any) -> None:
        self.stormy = stormy
        self.real = real

    async def put(self, member: str, data: bytes, *, ttl: float) -> bool:
        await self.stormy.way()
        return await self.real.put(member, data, ttl=ttl)

    async def remove(self, member: str) -> bool:
        await self.stormy.way()
        return await self.real.remove(member)

    async def snapshot(self) -> Any:
        await self.stormy.way()
        return await self.real.snapshot()

    @asynccontextmanager
    async def watch(self, *, interval: float):
        async with self.real.watch(interval=interval) as snapshots:
            yield self.filtered(snapshots)

    async def filtered(self, snapshots: Any):
        async for snapshot in snapshots:
            await self.stormy.way()
            yield snapshot
