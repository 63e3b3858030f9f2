"""Packets out: how full they are, and of what."""

from __future__ import annotations

import pytest

from aiopatterns.cluster import MemoryNetwork, Swim
from aiopatterns.cluster.membership import Membership
from aiopatterns.cluster.messages import MAX_BROADCAST, Ack, Packet, Update, packet_of
from aiopatterns.cluster.post import SMALL, Post
from aiopatterns.cluster.rumours import Rumours
from aiopatterns.cluster.transport import MAX_PACKET, MemoryTransport


class Wire:
    """A transport that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    def send(self, address: str, data: bytes) -> None:
        assert len(data) <= MAX_PACKET
        self.sent.append((address, data))

    def packets(self) -> list[tuple[str, Packet]]:
        return [(address, packet_of(data)) for address, data in self.sent]


class Office:
    """A post, and what it sends from."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, others: int) -> None:
        self.wire = Wire()
        transport = MemoryTransport(MemoryNetwork())
        monkeypatch.setattr(MemoryTransport, "send", lambda _, to, data: self.wire.send(to, data))
        self.members = Membership("me", "me:1", Swim(), now=0.0, changed=lambda *_: None)
        for number in range(others):
            self.members.heed(Update(f"n{number}", f"n{number}:1", 7, 0), 0.0)
        self.rumours = Rumours("me", 1)
        self.post = Post("prod", self.members, self.rumours, transport)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch):
    return lambda others: Office(monkeypatch, others)


def test_a_packet_says_whose_it_is_and_carries_news(make):
    office = make(2)
    office.rumours.mine(b"hello", 0.0)
    office.post.send("n0:1", Ack(5))
    ((address, packet),) = office.wire.packets()
    me = office.members.me
    assert address == "n0:1"
    assert (packet.cluster, packet.sender, packet.address) == ("prod", "me", "me:1")
    assert (packet.incarnation, packet.head) == (me.incarnation, Ack(5))
    assert {each.name for each in packet.updates} == {"me", "n0", "n1"}
    assert [each.payload for each in packet.rumours] == [b"hello"]
    assert office.post.sent == 1


def test_a_packet_with_a_head_is_small_and_what_it_has_to_tell_comes_first(make):
    office = make(200)
    office.members.accuse("n7", 1.0)
    office.post.send("n7:1", Ack(5), about="n7")
    ((_, packet),) = office.wire.packets()
    assert packet.updates[0] == Update("n7", "n7:1", 7, 1, "me")
    assert SMALL - 150 < len(office.wire.sent[0][1]) <= SMALL


def test_who_is_believed_alive_is_told_nothing_of_itself(make):
    office = make(1)
    office.members.news.take(1_000, 1)
    office.post.send("n0:1", Ack(5), about="n0")
    assert office.wire.packets()[0][1].updates == []


def test_gossip_goes_to_some_members_while_there_is_news(make):
    office = make(20)
    office.post.gossip(3)
    assert len({address for address, _ in office.wire.sent}) == 3
    while office.members.news:
        office.post.gossip(3)
    sent = office.post.sent
    office.post.gossip(3)
    assert office.post.sent == sent


def test_a_round_stops_when_all_is_told(make):
    office = make(20)
    office.members.news.take(10_000, 1)
    office.rumours.mine(b"x", 0.0)
    for _ in range(7):  # of the 8 times that it is sent in a cluster of 21
        office.rumours.news.take(10_000, 8)
    office.post.gossip(3)
    assert office.post.sent == 1


def test_alone_there_is_nobody_to_tell(make):
    office = make(0)
    office.post.gossip(3)
    assert office.wire.sent == []


def test_the_largest_broadcast_fits_and_many_fill_a_packet(make):
    office = make(2)
    for _ in range(4):
        office.rumours.mine(bytes(MAX_BROADCAST), 0.0)
    office.post.gossip(1)
    assert len(office.wire.packets()[0][1].rumours) == 1
    for _ in range(2_000):
        office.rumours.mine(bytes(100), 0.0)
    office.post.gossip(1)
    assert len(office.wire.sent[1][1]) > MAX_PACKET - 200
