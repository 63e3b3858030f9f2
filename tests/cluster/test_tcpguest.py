"""One peer that calls: what the node gets, what it answers, and what a broken one comes to."""

from __future__ import annotations

from contextlib import asynccontextmanager
from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET

import pytest
from anyio import BrokenResourceError, ClosedResourceError, Event, create_task_group, sleep_forever
from anyio.abc import SocketAttribute

from aiopatterns.cluster import tcpguest
from aiopatterns.cluster.tcpcounts import Counts
from aiopatterns.cluster.tcpframes import Frame, Kind
from aiopatterns.cluster.tcpguest import ANSWERING, Guest
from aiopatterns.cluster.transport import MAX_EXCHANGE, MAX_PACKET
from tests.cluster.wires import until, wires

pytestmark = pytest.mark.real


class Node:
    """The node behind the guest."""

    def __init__(self, answer=None):
        self.packets: list[bytes] = []
        self.asked: list[bytes] = []
        self.counts = Counts()
        self._answer = answer
        self.done = False

    async def answer(self, data):
        self.asked.append(data)
        return data[::-1] if self._answer is None else await self._answer(data)


@asynccontextmanager
async def hosted(node):
    """The wire of a caller whose guest runs at the node."""
    async with wires() as (near, far, stream, other), create_task_group() as tasks:
        # Small buffers, so that one who reads nothing is felt soon.
        stream.extra(SocketAttribute.raw_socket).setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)
        other.extra(SocketAttribute.raw_socket).setsockopt(SOL_SOCKET, SO_SNDBUF, 4096)
        guest = Guest(far, receive=node.packets.append, answer=node.answer, counts=node.counts)

        async def run():
            await guest.run()
            node.done = True

        tasks.start_soon(run)
        yield near, stream
        tasks.cancel_scope.cancel()


async def answers(wire, count=1):
    found: list[Frame] = []
    while len(found) < count:
        found += await wire.read(10)
    return found


async def test_packets_and_requests_reach_the_node():
    node = Node()
    async with hosted(node) as (wire, _):
        await wire.write(Frame(Kind.PACKET, 0, b"news"), Frame(Kind.REQUEST, 7, b"state"))
        assert await answers(wire) == [Frame(Kind.ANSWER, 7, b"etats")]
        assert node.packets == [b"news"]
        assert node.counts == Counts(received=1)


async def test_a_slow_answer_holds_up_nothing():
    go = Event()

    async def answer(data):
        if data == b"slow":
            await go.wait()
        return data

    node = Node(answer)
    async with hosted(node) as (wire, _):
        await wire.write(Frame(Kind.REQUEST, 1, b"slow"), Frame(Kind.REQUEST, 2, b"fast"))
        assert await answers(wire) == [Frame(Kind.ANSWER, 2, b"fast")]
        await wire.write(Frame(Kind.PACKET, 0, b"news"))
        await until(lambda: node.packets)
        go.set()
        assert await answers(wire) == [Frame(Kind.ANSWER, 1, b"slow")]


@pytest.mark.parametrize("kind", [ValueError, OSError, TimeoutError, ExceptionGroup])
async def test_a_node_that_raises_refuses(kind):
    async def answer(data):
        raise kind("no", [ValueError()]) if kind is ExceptionGroup else kind("no")

    async with hosted(Node(answer)) as (wire, _):
        await wire.write(Frame(Kind.REQUEST, 7, b"?"))
        assert await answers(wire) == [Frame(Kind.REFUSAL, 7)]


async def test_an_answer_that_takes_for_ever_is_a_refusal(monkeypatch):
    monkeypatch.setattr(tcpguest, "ANSWERED", 0.05)
    async with hosted(Node(lambda data: sleep_forever())) as (wire, _):
        await wire.write(Frame(Kind.REQUEST, 7, b"?"))
        assert await answers(wire) == [Frame(Kind.REFUSAL, 7)]


async def test_an_answer_that_is_too_large_is_a_refusal():
    async def answer(data):
        return bytes(MAX_EXCHANGE + 1)

    async with hosted(Node(answer)) as (wire, _):
        await wire.write(Frame(Kind.REQUEST, 7, b"?"))
        assert await answers(wire) == [Frame(Kind.REFUSAL, 7)]


async def test_too_many_requests_at_once_are_refused():
    go = Event()

    async def answer(data):
        await go.wait()
        return data

    node = Node(answer)
    async with hosted(node) as (wire, _):
        await wire.write(*(Frame(Kind.REQUEST, n) for n in range(ANSWERING + 3)))
        refused = await answers(wire, 3)
        assert refused == [Frame(Kind.REFUSAL, ANSWERING + n) for n in range(3)]
        go.set()
        assert len(await answers(wire, ANSWERING)) == ANSWERING
        await wire.write(Frame(Kind.REQUEST, 99, b"now"))
        assert await answers(wire) == [Frame(Kind.ANSWER, 99, b"now")]


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Kind.ANSWER, 1, b"to nobody"),
        Frame(Kind.REFUSAL, 1),
        Frame(Kind.PACKET, 0, bytes(MAX_PACKET + 1)),
    ],
    ids=["answer", "refusal", "large packet"],
)
async def test_a_frame_that_no_guest_may_send_ends_it(frame):
    node = Node()
    async with hosted(node) as (wire, _):
        await wire.write(frame)
        await until(lambda: node.done)
        assert node.counts == Counts(malformed=1)
        assert not node.packets


async def test_bytes_that_no_peer_sends_end_it():
    node = Node()
    async with hosted(node) as (_, stream):
        await stream.send(bytes(100))
        await until(lambda: node.done)
        assert node.counts == Counts(malformed=1)


async def test_one_who_hangs_up_is_gone_and_its_answers_with_it():
    node = Node(lambda data: sleep_forever())
    async with hosted(node) as (wire, stream):
        await wire.write(Frame(Kind.REQUEST, 1, b"?"))
        await until(lambda: node.asked)
        await stream.aclose()
        await until(lambda: node.done)
        assert node.counts == Counts()


async def test_one_who_is_silent_for_long_is_gone(monkeypatch):
    monkeypatch.setattr(tcpguest, "SILENT", 0.05)
    node = Node()
    async with hosted(node):
        await until(lambda: node.done)


async def test_one_who_does_not_take_its_answers_is_gone(monkeypatch):
    async def answer(data):
        return bytes(MAX_EXCHANGE)

    node = Node(answer)
    monkeypatch.setattr("aiopatterns.cluster.tcpwire.WRITTEN", 0.1)
    async with hosted(node) as (wire, stream):
        await wire.write(*(Frame(Kind.REQUEST, n) for n in range(5)))
        await until(lambda: node.done)
        del stream


async def test_a_flood_of_requests_by_one_who_reads_nothing_ends(monkeypatch):
    monkeypatch.setattr("aiopatterns.cluster.tcpwire.WRITTEN", 0.2)
    node = Node(lambda data: sleep_forever())
    async with hosted(node) as (wire, stream), create_task_group() as tasks:

        async def flood():
            with pytest.raises((OSError, BrokenResourceError, ClosedResourceError)):
                while True:
                    await wire.write(*(Frame(Kind.REQUEST, n) for n in range(10_000)))

        tasks.start_soon(flood)
        await until(lambda: node.done, within=60)
        await stream.aclose()
        assert len(node.asked) == ANSWERING
