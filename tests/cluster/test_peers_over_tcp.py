"""Peers over TCP in one process: who may join, what a wrong secret comes to, and broken seeds."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from aiopatterns.cluster import (
    MemberState,
    MemoryNetwork,
    MemoryTransport,
    PeerNode,
    PeerSecretMismatch,
    Secret,
    Swim,
    TCPTransport,
)
from aiopatterns.cluster.tcpframes import Frame, Kind
from aiopatterns.core.clock import seeded
from aiopatterns.core.errors import NoEndpointError, SecretMismatchError
from aiopatterns.testing import capture_events
from tests.cluster.wires import (
    closed_by_other,
    dialled,
    frames_from,
    introduced,
    listening_to,
    until,
)

SWIM = Swim(probe=0.2, timeout=0.1, gossip=0.03, sync=1)


def node(name, *, host="127.0.0.1", seeds=(), secret=None, **more):
    return PeerNode(
        name, transport=TCPTransport(host, **more), seeds=seeds, swim=SWIM, secret=secret
    )


@pytest.mark.promise("cluster-peer-public", "cluster-bad-input")
@pytest.mark.parametrize(
    ("host", "advertise"),
    [
        ("10.0.0.7", None),
        ("node.example", None),
        ("0.0.0.0", None),
        ("::", None),
        ("0.0.0.0", "10.0.0.7"),
        ("127.0.0.1", "a.b"),
    ],
)
def test_a_peer_that_others_can_reach_demands_a_secret(host, advertise):
    with pytest.raises(ValueError, match="secret must be given"):
        node("a", host=host, advertise=advertise)
    assert node("a", host=host, advertise=advertise, secret="x").name == "a"


@pytest.mark.promise("cluster-bad-input")
@pytest.mark.parametrize("seed", ["nowhere", "here:x", ""])
def test_a_seed_that_is_no_address_is_refused(seed):
    with pytest.raises(ValueError, match="seeds must be"):
        node("a", seeds=[seed])


@pytest.mark.real
@pytest.mark.parametrize("secret", [None, "x", b"bytes"], ids=repr)
async def test_peers_find_each_other_and_talk(secret):
    got: list[object] = []
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(node("a", secret=secret))
        nodes = [a]
        for name in "bc":
            each = node(name, seeds=[nodes[-1].address], secret=secret)
            each.on_message(lambda sender, message: got.append((sender, message)))
            nodes.append(await stack.enter_async_context(each))
        await until(lambda: all(len(each.members) == 3 for each in nodes))
        await a.broadcast({"price": 3})
        await until(lambda: got == [("a", {"price": 3})] * 2)
        await a.send("c", "hello")
        await until(lambda: got[2:] == [("a", "hello")])
        with pytest.raises(NoEndpointError, match="'d' is not known"):
            await a.send("d", "anybody?")


@pytest.mark.real
@pytest.mark.promise("cluster-peer-secret", "cluster-bad-input")
@pytest.mark.parametrize(
    ("theirs", "mine", "text"),
    [
        ("x", "y", "the peer does not accept the secret of this side"),
        ("x", None, "the peer has a secret and this side has none"),
        (None, "x", "the peer has no secret and this side has one"),
    ],
)
async def test_a_wrong_secret_is_one_clear_error_of_who_joins(theirs, mine, text):
    with capture_events() as events:
        async with node("a", secret=theirs) as a:
            joiner = node("b", seeds=[a.address], secret=mine)
            with pytest.raises(SecretMismatchError, match=text) as caught:
                async with joiner:
                    pytest.fail("it has not joined")
            assert caught.value.address == a.address
            assert set(a.members) == {"a"}
            assert a.statistics().rejected == 0, "nothing has come through"
    told = [each for each in events if isinstance(each, PeerSecretMismatch)]
    assert sorted((each.node, each.incoming) for each in told) == [("a", True), ("b", False)]


@pytest.mark.promise("cluster-peer-secret")
async def test_in_memory_a_wrong_secret_is_the_same_error():
    network = MemoryNetwork()
    async with PeerNode("a", transport=MemoryTransport(network), secret="x") as a:
        joiner = PeerNode("b", transport=MemoryTransport(network), seeds=["a"], secret="y")
        with pytest.raises(SecretMismatchError):
            async with joiner:
                pytest.fail("it has not joined")
        assert set(a.members) == {"a"}


@pytest.mark.real
@pytest.mark.promise("cluster-peer-hostile")
async def test_strangers_at_the_door_change_nothing():
    async with node("a", secret="x") as a, node("b", seeds=[a.address], secret="x") as b:
        await until(lambda: len(a.members) == 2)
        for data in (b"GET / HTTP/1.1\r\nHost: peer\r\n\r\n", bytes(1000), b"aiop" + bytes(500)):
            async with await dialled(a.address) as stream:
                await stream.send(data)
                await closed_by_other(stream)
        assert set(a.members) == {"a", "b"}
        assert all(each.state is MemberState.ALIVE for each in a.members.values())
        await b.send("a", "still there?")


@pytest.mark.real
@pytest.mark.promise("cluster-peer-hostile")
async def test_a_member_that_talks_nonsense_changes_nothing():
    dice = seeded(7)
    async with node("a", secret="x") as a, await dialled(a.address) as stream:
        seal, reader = await introduced(stream, Secret("x"))
        for number in range(50):
            nonsense = bytes((dice.randrange(3),)) + dice.randbytes(dice.randrange(200))
            kind = Kind.REQUEST if number % 2 else Kind.PACKET
            await stream.send(Frame(kind, number, nonsense).encode(seal))
        answers = await frames_from(stream, reader, 25)
        assert {answer.kind for answer in answers} == {Kind.REFUSAL}
        await until(lambda: a.statistics().rejected == 50)
        assert set(a.members) == {"a"}


@pytest.mark.real
async def test_a_seed_that_is_no_peer_is_passed_over():
    async def other(stream):
        await stream.send(b"SSH-2.0-OpenSSH_9.2p1\r\n")
        await closed_by_other(stream)

    async with listening_to(other) as wrong, node("a") as a:
        async with node("b", seeds=["127.0.0.1:1", wrong, a.address]) as b:
            assert set(b.members) == {"a", "b"}
        async with node("c", seeds=[wrong]) as alone:
            assert set(alone.members) == {"c"}
