"""The switchboard: one link for each peer, the least used one goes, and nothing outlives it."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from anyio import create_task_group, sleep

from aiopatterns.cluster import tcpboard
from aiopatterns.cluster.secret import Secret
from aiopatterns.cluster.tcpboard import Place, Switchboard
from aiopatterns.cluster.tcpcounts import Counts, PeerSecretMismatch
from aiopatterns.core.errors import ClosedError, SecretMismatchError
from aiopatterns.core.lifecycle import OwnerState
from aiopatterns.testing import capture_events
from tests.cluster.wires import SECRET, closed_by_other, listening_to, until

pytestmark = pytest.mark.real

NOWHERE = "127.0.0.1:1"


class Node:
    """A node that keeps what it gets and answers with its name."""

    def __init__(self, name, *, secret=SECRET, most=8, host="127.0.0.1", port=0, known_port=0):
        self.packets: list[bytes] = []
        self.counts = Counts()
        self.board = Switchboard(
            name,
            Place(host, port, host, known_port, most),
            receive=self.packets.append,
            answer=self.answer,
            secret=secret,
            counts=self.counts,
        )

    async def answer(self, data):
        return f"{self.board.name} got {data.decode()}".encode()


async def test_packets_and_questions_reach_the_other_side():
    a, b = Node("a"), Node("b")
    async with a.board, b.board:
        a.board.send(b.board.address, b"news")
        assert await a.board.exchange(b.board.address, b"it", 10) == b"b got it"
        assert await b.board.exchange(a.board.address, b"that", 10) == b"a got that"
        await until(lambda: b.packets == [b"news"])
        assert a.board.statistics() == b.board.statistics() == (1, 1)
        assert a.counts == Counts(sent=1)
        assert b.counts == Counts(received=1)
    assert a.board.statistics() == b.board.statistics() == (0, 0)


async def test_it_can_be_opened_again():
    a, b = Node("a"), Node("b")
    for _ in range(2):
        async with a.board, b.board:
            assert await a.board.exchange(b.board.address, b"it", 10) == b"b got it"
        assert a.board.state is OwnerState.STOPPED


async def test_a_peer_that_comes_back_is_reached_again():
    a = Node("a")
    async with a.board:
        b = Node("b")
        async with b.board:
            address = b.board.address
            assert await a.board.exchange(address, b"it", 10) == b"b got it"
        await until(lambda: a.board.statistics() == (0, 0))
        with pytest.raises(ConnectionError, match="cannot be reached"):
            await a.board.exchange(address, b"it", 10)
        async with Node("b2", port=int(address.rpartition(":")[2])).board as again:
            assert again.address == address
            assert await a.board.exchange(address, b"it", 10) == b"b2 got it"


async def test_the_link_that_was_not_used_for_longest_makes_room():
    a, peers = Node("a", most=2), [Node(name) for name in "bcd"]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(a.board)
        b, c, d = [(await stack.enter_async_context(each.board)).address for each in peers]
        for address in (b, c, b, d):
            await a.board.exchange(address, b"it", 10)
        assert list(a.board._links) == [b, d]


async def test_what_had_to_make_room_is_told():
    a = Node("a", most=1)
    async with Node("b").board as b, a.board, create_task_group() as tasks:
        caught = []

        async def ask():
            with pytest.raises(ConnectionError, match="too many connections") as error:
                await a.board.exchange(b.address, b"it", 10)
            caught.append(error.value)

        tasks.start_soon(ask)
        await sleep(0)
        a.board.send(NOWHERE, b"news")
        await until(lambda: caught)


async def test_packets_to_nowhere_are_lost_and_counted():
    a = Node("a")
    async with a.board:
        a.board.send("no address", b"?")
        assert a.counts == Counts(dropped=1)
        a.board.send(NOWHERE, b"?")
        a.board.send(NOWHERE, b"?")
        await until(lambda: a.counts == Counts(sent=2, dropped=3))
        assert a.board.statistics() == (0, 0)


@pytest.mark.promise("cluster-peer-secret")
async def test_nothing_passes_between_different_secrets():
    a, b = Node("a"), Node("b", secret=Secret("another"))
    with capture_events() as events:
        async with a.board, b.board:
            a.board.send(b.board.address, b"news")
            await until(lambda: a.counts.mismatched == 1)
            with pytest.raises(SecretMismatchError):
                await a.board.exchange(b.board.address, b"it", 10)
            assert b.counts == Counts(mismatched=2)
            assert a.counts == Counts(sent=1, dropped=1, mismatched=2)
            assert not b.packets
            here, there = a.board.address, b.board.address
    assert sorted(events, key=repr) == [
        PeerSecretMismatch("a", there, incoming=False),
        PeerSecretMismatch("b", here, incoming=True),
    ]


async def test_a_farewell_gets_out():
    for _ in range(5):
        a, b = Node("a"), Node("b")
        async with b.board:
            async with a.board:
                for number in range(50):
                    a.board.send(b.board.address, bytes((number,)))
            await until(lambda other=b: len(other.packets) == 50)


async def test_leaving_waits_for_nobody_who_does_not_answer(monkeypatch):
    monkeypatch.setattr(tcpboard, "FAREWELL", 0.05)
    a = Node("a")
    async with listening_to(closed_by_other) as silent, a.board:
        a.board.send(silent, b"lost")
    assert a.board.state is OwnerState.STOPPED
    assert a.counts == Counts(sent=1, dropped=1)


async def test_who_waits_when_it_is_left_is_told():
    async def never(data):
        await sleep(60)

    a, b = Node("a"), Node("b")
    b.board._answer = never
    async with b.board, create_task_group() as tasks:
        caught = []

        async def ask():
            with pytest.raises(ConnectionError, match="this node has left") as error:
                await a.board.exchange(b.board.address, b"it", 60)
            caught.append(error.value)

        async with a.board:
            tasks.start_soon(ask)
            await until(lambda: b.board.statistics() == (1, 0))
        await until(lambda: caught)


async def test_nothing_is_sent_after_the_end():
    a = Node("a")
    async with a.board:
        pass
    with pytest.raises(ClosedError):
        a.board.send(NOWHERE, b"?")


async def test_a_place_that_is_taken_is_an_error_at_once():
    async with Node("a").board as a:
        other = Node("b", port=int(a.address.rpartition(":")[2]))
        with pytest.raises(OSError, match="in use"):
            async with other.board:
                pytest.fail("it is not open")
        assert other.board.state is OwnerState.STOPPED


async def test_the_address_is_where_others_reach_it():
    async with Node("a", known_port=9).board as board:
        assert board.address == "127.0.0.1:9"
    async with Node("a", host="localhost").board as board:
        assert board.address.startswith("localhost:")
