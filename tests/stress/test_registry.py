"""A registry under fire: processes are killed, stopped and replaced, and the server loses its data.

After every blow all readers see exactly who is alive, each in its newest version, within the time
that is promised. Some of those who were replaced wake up later; they change nothing.
"""

from __future__ import annotations

import random
import signal
from contextlib import AsyncExitStack, suppress

import anyio
import pytest

from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.cluster import ServiceRegistry
from aiopatterns.core.clock import monotonic, sleep
from tests.cluster.processes import PATIENCE, Process, on_one_loop, process

pytestmark = [pytest.mark.stress, pytest.mark.real, pytest.mark.timeout(300)]

IDS = "abcdef"
BLOWS = 30
TTL = 2.0


class Fleet:
    """Processes by their ids, and what a reader should see of them."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self.url = url
        self.stack = stack
        self.alive: dict[str, Process] = {}
        self.versions: dict[str, str] = {}
        self.asleep: list[Process] = []
        self.started = 0

    async def start(self, name: str) -> None:
        self.started += 1
        version = str(self.started)
        serving = await self.stack.enter_async_context(
            process(self.url, name, ttl=TTL, version=version)
        )
        assert (await serving.says()).startswith("registered")
        self.alive[name], self.versions[name] = serving, version

    def kill(self, name: str) -> None:
        self.alive.pop(name).signal(signal.SIGKILL)
        del self.versions[name]

    async def replace(self, name: str) -> None:
        old = self.alive[name]
        old.signal(signal.SIGSTOP)
        self.asleep.append(old)
        await self.start(name)

    async def wake(self) -> None:
        if self.asleep:
            old = self.asleep.pop()
            old.signal(signal.SIGCONT)
            assert await old.says() == "lost"


async def seen_by(registry: ServiceRegistry, versions: dict[str, str]) -> float:
    """Return after how many seconds a reader has seen exactly these."""
    begun = monotonic()
    with anyio.fail_after(PATIENCE):
        async with registry.watch("users") as snapshots:
            async for snapshot in snapshots:
                if {each.id: each.version for each in snapshot.instances} == versions:
                    return monotonic() - begun
    raise AssertionError


@pytest.mark.promise("cluster-lapse")
@pytest.mark.promise("cluster-fenced")
@pytest.mark.promise("cluster-comes-back")
@on_one_loop
async def test_under_fire():
    dice, worst = random.Random(7), dict.fromkeys(("kill", "replace", "wake", "lose"), 0.0)
    with RedisServer(private=True) as server:
        async with AsyncExitStack() as stack:
            readers = [
                await stack.enter_async_context(ServiceRegistry(server.url, ttl=TTL))
                for _ in range(2)
            ]
            fleet = Fleet(server.url, stack)
            for name in IDS:
                await fleet.start(name)
            for _ in range(BLOWS):
                blow, name = dice.choice([*worst]), dice.choice(IDS)
                if name not in fleet.alive:
                    await fleet.start(name)
                if blow == "kill":
                    fleet.kill(name)
                elif blow == "replace":
                    await fleet.replace(name)
                elif blow == "wake":
                    await fleet.wake()
                else:
                    server.kill()
                    await anyio.to_thread.run_sync(server.restart)
                for reader in readers:
                    took = await seen_by(reader, fleet.versions)
                    worst[blow] = max(worst[blow], took)
                await sleep(dice.random())
            assert not any(reader.statistics().malformed for reader in readers)
            with suppress(ProcessLookupError):
                for each in [*fleet.alive.values(), *fleet.asleep]:
                    each.signal(signal.SIGKILL)
    print(f"{BLOWS} blows, {fleet.started} processes; seen by all after", worst)
    assert worst["kill"] < TTL + 1
    assert max(worst["replace"], worst["wake"]) < 1
    assert worst["lose"] < PATIENCE / 2
