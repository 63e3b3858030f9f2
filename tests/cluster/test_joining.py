"""How a node finds the others, and finds them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio
import pytest

from aiopatterns.cluster import MemoryNetwork, PeerJoined, PeerJoinFailed, Swim
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.testing import capture_events, simulate
from tests.cluster.crowd import Crowd, Elsewhere, crowd, until

if TYPE_CHECKING:
    from aiopatterns.core.telemetry import Event

J = TypeVar("J", PeerJoined, PeerJoinFailed)


def joins(events: list[Event], kind: type[J], node: str) -> list[J]:
    return [each for each in events if isinstance(each, kind) and each.node == node]


def test_nobody_there_is_no_error_and_is_told_once():
    async def run() -> None:
        network = MemoryNetwork(delay=0.001)
        async with anyio.create_task_group() as tasks:
            peers = Crowd(network, tasks)
            with capture_events() as events:
                node = await peers.open("b", seeds=["a", "b", "c"])
                assert monotonic() < 0.1  # refused at once
                assert node.statistics().alive == 1
                await sleep(100)
                (failed,) = joins(events, PeerJoinFailed, "b")
                assert "nobody listens at" in failed.error
                await peers.open("a", seeds=["a"])
                assert await until(peers.agree) < 31
                await peers.crash("a")
                await sleep(100)
                assert len(joins(events, PeerJoinFailed, "b")) == 2
                await peers.open("a", seeds=["b"])
                await sleep(40)
                assert len(joins(events, PeerJoined, "b")) == 2
            tasks.cancel_scope.cancel()

    simulate(run)


def test_without_a_listener_it_goes_the_same_way():
    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            peers = Crowd(MemoryNetwork(delay=0.001), tasks)
            await peers.open("b")
            await sleep(10)
            await peers.open("a", seeds=[])
            await until(peers.agree)
            tasks.cancel_scope.cancel()

    simulate(run)


def test_a_node_without_seeds_is_found_by_others():
    async def run() -> None:
        async with crowd("a", seeds=[]) as peers:
            await sleep(100)
            await peers.open("b")
            await until(peers.agree)
            await sleep(100)
            assert peers.agree()

    simulate(run)


def test_entering_waits_for_seeds_that_are_silent_but_not_for_ever():
    async def run() -> None:
        network = MemoryNetwork(delay=0.001)
        async with crowd("a", network=network) as peers:
            network.isolate("a")
            await peers.open("b")
            assert monotonic() == pytest.approx(5, abs=0.5)
            network.heal()
            await until(peers.agree)

    simulate(run)


def test_one_seed_that_answers_is_enough():
    async def run() -> None:
        network = MemoryNetwork(delay=0.001)
        async with crowd("ab", network=network) as peers:
            network.isolate("a")
            began = monotonic()
            await peers.open("c", seeds=["nowhere", "a", "b"])
            assert monotonic() - began < 0.1
            assert "b" in peers.nodes["c"].members

    simulate(run)


@pytest.mark.promise("cluster-peer-detects")
def test_two_networks_that_have_a_seed_in_common_become_one():
    """They have met nobody of each other, so nobody is dead and asked about."""

    async def run() -> None:
        network = MemoryNetwork(delay=0.001)
        async with anyio.create_task_group() as tasks:
            peers = Crowd(network, tasks)
            network.isolate("c", "d")
            for name, seeds in (("a", "ca"), ("b", "a"), ("c", "c"), ("d", "c")):
                await peers.open(name, seeds=list(seeds))
            await sleep(20)
            assert set(peers.nodes["b"].members) == {"a", "b"}
            network.heal()
            assert await until(peers.agree) < 40
            tasks.cancel_scope.cancel()

    simulate(run)


def test_what_gossip_has_missed_is_mended_by_an_exchange():
    """Nothing but exchanges comes through: all packets are lost."""

    async def run() -> None:
        network = MemoryNetwork(loss=1.0)
        swim = Swim(probe=1_000, sync=1)
        async with crowd("a", network=network, swim=swim) as peers:
            for name in "bc":
                await peers.open(name, swim=swim)
            await peers.nodes["b"].broadcast("hello")
            await until(lambda: peers.heard["a"] and peers.heard["c"], within=500)
            assert peers.agree()

    simulate(run)


def test_who_was_dead_and_is_gone_again_is_not_asked():
    async def run() -> None:
        async with crowd("abc") as peers:
            peers.network.isolate("c")
            await until(lambda: peers.nodes["a"].members["c"].state.value == "dead")
            peers.network.heal()
            await until(lambda: peers.nodes["a"].members["c"].living)
            peers.network.isolate("c")
            await sleep(60)
            assert peers.nodes["a"].members["c"].state.value == "dead"
            peers.network.heal()
            await until(peers.agree)

    simulate(run)


def test_an_address_of_ones_own_among_the_seeds_is_passed_over():
    async def run() -> None:
        network = MemoryNetwork(delay=0.001)
        async with anyio.create_task_group() as tasks:
            peers = Crowd(network, tasks)
            seeds = ["x:1", "x:2"]
            with capture_events() as events:
                await peers.open("a", transport=Elsewhere(network, "x:1"), seeds=seeds)
                await peers.open("b", transport=Elsewhere(network, "x:2"), seeds=seeds)
                await until(peers.agree)
                await sleep(100)
            assert joins(events, PeerJoined, "b") == [PeerJoined("b", "x:1", 2)]
            assert joins(events, PeerJoinFailed, "b") == []
            assert joins(events, PeerJoined, "a") == [PeerJoined("a", "", 2)]
            assert peers.agree()
            tasks.cancel_scope.cancel()

    simulate(run)
