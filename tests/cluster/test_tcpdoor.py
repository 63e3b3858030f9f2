"""Who is let in, how many, and that strangers keep no member out; hostile bytes over raw sockets."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, suppress
from errno import ECONNABORTED, EMFILE
from typing import Any

import pytest
from anyio import create_task_group, create_tcp_listener, sleep
from anyio.abc import SocketAttribute

from aiopatterns.cluster import tcpdoor, tcpwire
from aiopatterns.cluster.secret import Secret
from aiopatterns.cluster.tcpcounts import Counts, Mismatches, PeerSecretMismatch
from aiopatterns.cluster.tcpdoor import Door, PeerAcceptFailed
from aiopatterns.cluster.tcpframes import CHALLENGE_BYTES, MAGIC, Frame, Kind, challenge
from aiopatterns.cluster.tcpguest import Guest
from aiopatterns.core.clock import seeded
from aiopatterns.testing import capture_events
from tests.cluster.wires import (
    SECRET,
    closed_by_other,
    dialled,
    exactly,
    frames_from,
    introduced,
    only,
    until,
)

pytestmark = pytest.mark.real


class House:
    """A door on a listener of its own, and what has come through it."""

    def __init__(self, most=8):
        self.packets: list[bytes] = []
        self.counts = Counts()
        self.door = Door(
            "house",
            guest=self.guest,
            secret=SECRET,
            most=most,
            counts=self.counts,
            mismatches=Mismatches("house", self.counts),
        )
        self.address = ""

    def guest(self, wire):
        return Guest(wire, receive=self.packets.append, answer=self.answer, counts=self.counts)

    async def answer(self, data):
        return data[::-1]

    @asynccontextmanager
    async def open(self):
        async with await create_tcp_listener(local_host="127.0.0.1") as listeners:
            async with create_task_group() as tasks:
                listener = only(listeners)
                tasks.start_soon(self.door.accept, listener, tasks)
                self.address = f"127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
                yield self
                tasks.cancel_scope.cancel()

    async def serves(self, name="friend:1"):
        """Whether a member is still served."""
        async with await dialled(self.address) as stream:
            seal, reader = await introduced(stream, SECRET, name)
            await stream.send(Frame(Kind.REQUEST, 1, b"there?").encode(seal))
            (frame,) = await frames_from(stream, reader, 1)
            return frame == Frame(Kind.ANSWER, 1, b"?ereht")


async def test_a_member_is_let_in():
    async with House().open() as house:
        assert await house.serves()
        await until(lambda: not len(house.door))
        assert house.counts == Counts()


@pytest.mark.promise("cluster-peer-secret")
async def test_a_wrong_secret_is_counted_and_told_once_and_never_answered():
    with capture_events() as events:
        async with House().open() as house:
            for _ in range(5):
                async with await dialled(house.address) as stream:
                    with pytest.raises(tcpwire.LOST):
                        await introduced(stream, Secret("another"))
                    assert await closed_by_other(stream) == b""
            assert house.counts == Counts(mismatched=5)
            assert await house.serves()
    assert events == [PeerSecretMismatch("house", "stranger:1", incoming=True)]


HOSTILE = {
    "nothing but zeros": bytes(4096),
    "http": b"GET / HTTP/1.1\r\nHost: peer\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
    "another version": MAGIC + bytes((9, 1)) + bytes(200),
    "a long address": challenge(bytes(16), sealed=True) + b"\xff\xff" + bytes(70_000),
    "no address": challenge(bytes(16), sealed=True) + bytes(200),
    "an address that is no text": challenge(bytes(16), sealed=True) + b"\0\x04" + b"\xff" * 36,
}


@pytest.mark.promise("cluster-peer-hostile")
@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
async def test_bytes_of_strangers_are_counted_and_get_no_answer(data):
    async with House().open() as house:
        async with await dialled(house.address) as stream:
            await stream.send(data)
            said = await closed_by_other(stream)
        assert len(said) in {0, CHALLENGE_BYTES}, "a challenge at most"
        await until(lambda: house.counts == Counts(malformed=1))
        assert await house.serves()


@pytest.mark.promise("cluster-peer-hostile")
async def test_a_proof_does_not_excuse_hostile_frames():
    async with House().open() as house:
        for data in (bytes(100), b"\xff" * 100, (2**31).to_bytes(4, "big")):
            async with await dialled(house.address) as stream:
                await introduced(stream, SECRET)
                await stream.send(data)
                assert await closed_by_other(stream) == b""
        await until(lambda: house.counts == Counts(malformed=3))
        assert await house.serves()


def fuzz(count=60):
    """Random bytes, some of which begin as they should; the same in every run."""
    dice = seeded(7)
    starts = [b"", MAGIC, challenge(bytes(16), sealed=True), challenge(bytes(16), sealed=False)]
    for _ in range(count):
        data = dice.choice(starts) + dice.randbytes(dice.randrange(300))
        yield data, dice.randrange(len(data) + 1), dice.random() < 0.5


@pytest.mark.promise("cluster-peer-hostile")
async def test_whatever_a_stranger_says_the_door_stays_open():
    async with House().open() as house:
        for data, cut, proved in fuzz():
            async with await dialled(house.address) as stream:
                if proved:
                    await introduced(stream, SECRET)
                with suppress(*tcpwire.LOST):
                    await stream.send(data[:cut] or b"?")
                    await stream.send(data[cut:] or b"?")
        assert await house.serves()
        await until(lambda: not len(house.door))
        assert not house.packets
        assert house.counts.malformed


@pytest.mark.promise("cluster-peer-hostile")
async def test_slow_strangers_have_an_end_and_keep_nobody_out(monkeypatch):
    monkeypatch.setattr(tcpwire, "HANDSHAKE", 0.3)
    async with House().open() as house, create_task_group() as tasks:

        async def drip():
            async with await dialled(house.address) as stream:
                with suppress(*tcpwire.LOST):
                    for byte in challenge(bytes(16), sealed=True):
                        await stream.send(bytes((byte,)))
                        await sleep(0.05)
                    pytest.fail("nobody may take so long")

        for _ in range(10):
            tasks.start_soon(drip)
        assert await house.serves()
    assert house.counts == Counts()


@pytest.mark.promise("cluster-peer-hostile")
async def test_a_crowd_of_strangers_keeps_no_member_out(monkeypatch):
    monkeypatch.setattr(tcpdoor, "STRANGERS", 5)
    async with House().open() as house, AsyncExitStack() as crowd:
        streams = [await crowd.enter_async_context(await dialled(house.address)) for _ in range(12)]
        for stream in streams:
            with suppress(*tcpwire.LOST):
                await exactly(stream, CHALLENGE_BYTES)
        assert await house.serves()
        assert house.counts == Counts(crowded=8), "the first seven, and one for the member"
        for stream in streams[:8]:
            assert await closed_by_other(stream) == b""


async def test_a_guest_who_comes_again_takes_its_own_place():
    async with House(most=1).open() as house:
        async with await dialled(house.address) as former, await dialled(house.address) as latter:
            await introduced(former, SECRET, "friend:1")
            await until(lambda: len(house.door) == 1)
            seal, _ = await introduced(latter, SECRET, "friend:1")
            assert await closed_by_other(former) == b""
            await latter.send(Frame(Kind.PACKET, 0, b"news").encode(seal))
            await until(lambda: house.packets)
            assert len(house.door) == 1
        assert house.counts == Counts(received=1)


async def test_too_many_guests_are_not_let_in():
    async with House(most=2).open() as house, AsyncExitStack() as stack:
        streams = []
        for number in range(3):
            stream = await stack.enter_async_context(await dialled(house.address))
            await introduced(stream, SECRET, f"friend:{number}")
            streams.append(stream)
            await until(lambda n=number: len(house.door) == min(n + 1, 2))
        assert await closed_by_other(streams[2]) == b""
        assert house.counts == Counts(crowded=1)


class Listener:
    """Stands for a listener that fails some times before it listens."""

    def __init__(self, listener, *numbers):
        self.listener = listener
        self.numbers = list(numbers)

    async def accept(self):
        if self.numbers:
            raise OSError(self.numbers.pop(0), "cannot accept")
        return await self.listener.accept()


async def test_a_machine_without_sockets_is_told_once_and_asked_again(monkeypatch):
    monkeypatch.setattr(tcpdoor, "PAUSE", 0.01)
    house = House()
    with capture_events() as events:
        async with await create_tcp_listener(local_host="127.0.0.1") as listeners:
            async with create_task_group() as tasks:
                real = only(listeners)
                failing: Any = Listener(real, EMFILE, EMFILE, ECONNABORTED)
                tasks.start_soon(house.door.accept, failing, tasks)
                house.address = f"127.0.0.1:{real.extra(SocketAttribute.local_port)}"
                assert await house.serves()
                tasks.cancel_scope.cancel()
    assert events == [PeerAcceptFailed("house", f"[Errno {EMFILE}] cannot accept")]
