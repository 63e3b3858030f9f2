"""What type checkers must know about peers; checked, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

from aiopatterns import PeerNode
from aiopatterns.cluster import (
    Member,
    MemberState,
    MemoryNetwork,
    MemoryTransport,
    PeerStatistics,
    Swim,
    TCPStatistics,
    TCPTransport,
    Transport,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.core import Subscription


async def handle(sender: str, message: dict[str, int]) -> None:
    print(sender, message["price"])


def length(sender: str, message: Any) -> int:
    return len(sender) + len(message)


def changed(member: Member) -> None:
    print(member.name, member.living)


def on(transport: Transport) -> PeerNode:
    return PeerNode("a", transport=transport, swim=Swim(probe=1, timeout=0.5, gossip=0.1))


async def peers() -> None:
    network = MemoryNetwork(seed=7, loss=0.1, delay=0.002)
    network.isolate("a")
    network.heal()
    node = on(MemoryTransport(network))
    assert_type(node.on_message(handle), Subscription)
    with node.on_message(length), node.on_change(changed):
        async with node as entered:
            assert_type(entered, PeerNode)
            assert_type(entered.members, Mapping[str, Member])
            assert_type(entered.members["a"].state, MemberState)
            assert_type(entered.members["a"].address, str)
            assert_type(entered.address, str)
            assert_type(entered.statistics(), PeerStatistics)
            await entered.broadcast({"price": 3})
            await entered.send("b", ["only", "you"], timeout=1)


async def over_tcp() -> None:
    transport = TCPTransport("127.0.0.1", 0)
    async with on(transport), PeerNode("b", transport=TCPTransport(), secret=b"x", seeds=("a:1",)):
        assert_type(transport.address, str)
        assert_type(transport.statistics(), TCPStatistics)
