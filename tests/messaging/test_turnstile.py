"""The turnstile: one consumer at a time, also when the lease is lost or nobody answers."""

from __future__ import annotations

from typing import Any

import anyio

from aiopatterns.backends import open_backend
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.messaging.turnstile import Turnstile


class Fetching:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def resume(self, *, inherits: bool) -> None:
        assert inherits
        self.told.append("resume")

    def pause(self) -> None:
        self.told.append("pause")

    def give_up(self) -> None:
        self.told.append("give up")


class Shaky:
    """A lease that fails as it is told to."""

    def __init__(self, lease: Any) -> None:
        self.lease, self.away = lease, False
        self.held: Any = None

    async def try_acquire(self, *, ttl: float) -> Any:
        if self.away:
            raise BackendUnavailableError("away")
        self.held = await self.lease.try_acquire(ttl=ttl)
        return self.held and self

    async def renew(self) -> bool:
        if self.away:
            raise BackendUnavailableError("away")
        return await self.held.renew()

    async def release(self) -> bool:
        if self.away:
            raise BackendUnavailableError("away")
        return await self.held.release()


async def test_one_goes_and_the_other_follows_when_it_leaves():
    async with open_backend("memory://") as backend, anyio.create_task_group() as tasks:
        fetchers = [Fetching(), Fetching()]
        one, other = (Turnstile(backend.lease("l"), wrong(each), ttl=0.2) for each in fetchers)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as first:
                first.start_soon(one.run)
                tasks.start_soon(other.run)
                while not (one.holds or other.holds):
                    await sleep(0.001)
                assert not (one.holds and other.holds)
                await sleep(0.5)  # it is renewed
                assert one.holds != other.holds
                scope.cancel()
        await one.leave()
        await one.leave()
        while not other.holds:
            await sleep(0.01)
        tasks.cancel_scope.cancel()
    assert fetchers[1].told == ["resume"]


def wrong(value: object) -> Any:
    return value


async def test_a_lease_that_cannot_be_renewed_is_let_go_in_time_and_taken_again():
    async with open_backend("memory://") as backend, anyio.create_task_group() as tasks:
        fetcher, lease = Fetching(), Shaky(backend.lease("l"))
        turnstile = Turnstile(wrong(lease), wrong(fetcher), ttl=0.1)
        lease.away = True
        tasks.start_soon(turnstile.run)
        await sleep(0.15)
        assert fetcher.told == []
        lease.away = False
        while not turnstile.holds:
            await sleep(0.01)
        lease.away = True
        while turnstile.holds:
            await sleep(0.01)
        assert fetcher.told == ["resume", "pause", "give up"]
        lease.away = False
        while not turnstile.holds:
            await sleep(0.01)
        await lease.held.release()  # as if it had ended meanwhile
        while len(fetcher.told) < 6:
            await sleep(0.01)
        lease.away = True
        await turnstile.leave()
        tasks.cancel_scope.cancel()
    assert fetcher.told[:6] == ["resume", "pause", "give up"] * 2
