"""Presence: what is told when, what is seen, and how long an outage may last."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.backends.records import Members
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.messaging.brokerevents import BrokerInterrupted, BrokerResumed
from aiopatterns.messaging.listing import DIRECTORY, TTL, Listed, Listing, read_listing
from aiopatterns.messaging.presence import SEEN_WITHIN, Presence
from aiopatterns.messaging.routes import KEEP, Peer, Routes
from aiopatterns.testing import capture_events, simulate
from tests.messaging.stormy import Stormy


@asynccontextmanager
async def present(way: Any, member: str = "me", loops: str = "keep watch bury"):
    routes, dead = Routes(member), list[Peer]()
    presence = Presence(member, way.directory(DIRECTORY), routes, buried=dead.append)
    async with way, anyio.create_task_group() as group:
        for name in loops.split():
            group.start_soon(getattr(presence, name))
        yield presence, routes, dead
        group.cancel_scope.cancel()


async def listed(way: Stormy, member: str = "me") -> Listing | None:
    data = (await way.memory.directory(DIRECTORY).snapshot()).members.get(member)
    return None if data is None else read_listing(data)


async def test_a_change_is_in_force_when_the_directory_has_it():
    way = Stormy(MemoryBackend())
    async with present(way) as (presence, routes, _):
        presence.list(Listed(1, "a", "g"))
        assert len(routes.plan("a").groups) == 1  # here at once
        assert await presence.in_force(5.0)
        assert await listed(way) == Listing(1, (Listed(1, "a", "g"),))
        presence.unlist(1)
        presence.unlist(1)
        assert routes.plan("a").groups == ()
        assert await presence.in_force(5.0)
        assert await listed(way) == Listing(2)
        await presence.leave()
        assert await listed(way) is None


async def test_who_departs_lists_nothing_to_others_and_serves_its_own():
    way = Stormy(MemoryBackend())
    async with present(way) as (presence, routes, _):
        presence.list(Listed(1, "a"))
        presence.depart()
        assert await presence.in_force(5.0)
        assert await listed(way) == Listing(2)
        assert len(routes.plan("a").each) == 1


def test_who_is_alive_stays_listed():
    async def main() -> None:
        way = Stormy(MemoryBackend())
        async with present(way) as (presence, *_):
            presence.list(Listed(1, "a"))
            await sleep(10 * TTL)
            assert await listed(way) == Listing(1, (Listed(1, "a"),))
            await way.lose_directory()
            await sleep(0.1)  # it has seen that
            assert await listed(way) is not None
            presence.renew()
            await sleep(0.1)
            assert presence.connected

    simulate(main)


async def test_a_look_that_is_older_than_what_was_seen_changes_nothing():
    way = Stormy(MemoryBackend())
    directory = way.memory.directory(DIRECTORY)
    async with present(way, loops="") as (presence, routes, _):
        await directory.put("a", Listing(1, (Listed(1, "t"),)).encode(), ttl=60)
        old = await directory.snapshot()
        await directory.put("a", Listing(2).encode(), ttl=60)
        await presence.look()
        presence._directory = wrong(Still(old))
        await presence.look()
        assert routes.plan("t").each == ()


class Still:
    def __init__(self, members: Members) -> None:
        self.members = members

    async def snapshot(self) -> Members:
        return self.members


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


def test_what_nobody_sees_is_not_waited_for_for_ever():
    async def main() -> None:
        way = Stormy(MemoryBackend())
        async with present(way, loops="keep") as (presence, *_):
            presence.list(Listed(1, "a"))
            started = monotonic()
            assert await presence.in_force(5.0)
            assert monotonic() - started == pytest.approx(SEEN_WITHIN)
            way.outage()
            presence.list(Listed(2, "b"))
            assert not await presence.in_force(5.0)
            assert monotonic() - started == pytest.approx(SEEN_WITHIN + 5.0)

    simulate(main)


@pytest.mark.parametrize("error", [BackendUnavailableError("away"), BackendError("full")], ids=str)
def test_an_outage_is_told_once_and_survived(error: BackendError):
    async def main() -> None:
        way, other = (Stormy(memory := MemoryBackend()), Stormy(memory))
        async with present(way) as (presence, routes, _):
            presence.list(Listed(1, "a"))
            await presence.in_force(5.0)
            with capture_events() as events:
                way.error = error
                async with present(other, "other") as (others, *_):
                    others.list(Listed(1, "b"))
                    await others.in_force(5.0)
                    await sleep(30.0)
                    assert not presence.connected
                    way.error = None
                    await sleep(2.0)
                    assert presence.connected
                    assert len(routes.plan("b").each) == 1
                    assert await listed(way) == Listing(1, (Listed(1, "a"),))
        assert events == [BrokerInterrupted("me", str(error)), BrokerResumed("me")]

    simulate(main)


def test_who_stays_away_is_buried_and_who_comes_back_is_not():
    async def main() -> None:
        way = Stormy(MemoryBackend())
        directory = way.memory.directory(DIRECTORY)
        async with present(way) as (presence, routes, dead):
            for member in ("a", "b"):
                await directory.put(member, Listing(1, (Listed(1, "t"),)).encode(), ttl=600)
            await sleep(0.1)
            await directory.remove("a")
            await sleep(KEEP / 2)
            await directory.remove("b")
            await directory.put("b", Listing(2, (Listed(1, "t"),)).encode(), ttl=600)
            await directory.remove("b")
            await sleep(KEEP / 2 + 0.01)
            assert [peer.member for peer in dead] == ["a"]
            await sleep(2 * KEEP)
            assert [peer.member for peer in dead] == ["a", "b"]
            assert routes.plan("t").each == ()
            await presence.look()

    simulate(main)
