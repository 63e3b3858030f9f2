"""The way to one peer: what is sent and asked, what is told when it breaks, and when it ends."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from anyio import Event, create_task_group, get_cancelled_exc_class, sleep, sleep_forever

from aiopatterns.cluster import tcplink
from aiopatterns.cluster.secret import Secret
from aiopatterns.cluster.tcpframes import Frame, Kind
from aiopatterns.cluster.tcplink import Link
from aiopatterns.cluster.tcpwire import meet
from aiopatterns.core.errors import SecretMismatchError, TimeoutExceededError
from tests.cluster.wires import SECRET, closed_by_other, listening_to, until

pytestmark = pytest.mark.real

NOWHERE = "127.0.0.1:1"


class Peer:
    """The other side: meets callers, keeps what they say and answers as it is told."""

    def __init__(self, answers=True, secret=SECRET):
        self.frames: list[Frame] = []
        self.answers = answers
        self.secret = secret
        self.calls = 0
        self.off = 0  # how far the number of an answer is off

    async def __call__(self, stream):
        self.calls += 1
        try:
            wire, _ = await meet(stream, self.secret)
            while True:
                for frame in await wire.read(60):
                    self.frames.append(frame)
                    if self.answers and frame.kind is Kind.REQUEST:
                        await wire.write(self.reply(frame))
        except Exception:
            return  # it has hung up

    def reply(self, frame):
        if frame.payload == b"no":
            return Frame(Kind.REFUSAL, frame.number)
        return Frame(Kind.ANSWER, frame.number + self.off, frame.payload[::-1])


class Ends:
    """What a link tells at its end."""

    def __init__(self):
        self.told = []

    def __call__(self, link, error):
        self.told.append(error)


@asynccontextmanager
async def linked(handle, *, secret=SECRET, address=None):
    ends = Ends()
    async with listening_to(handle) as where, create_task_group() as tasks:
        link = Link(address or where, secret=secret, own="me:1", ended=ends)
        tasks.start_soon(link.run)
        yield link, ends
        link.end(None)


async def test_packets_arrive_in_their_order():
    peer = Peer()
    async with linked(peer) as (link, ends):
        assert not any(link.send(bytes((n,))) for n in range(50))
        assert link.busy
        assert link.waiting == 50
        await until(lambda: len(peer.frames) == 50)
        await until(lambda: not link.busy)
        assert [frame.payload[0] for frame in peer.frames] == [*range(50)]
        assert peer.calls == 1
    assert ends.told == [None]


async def test_the_oldest_packet_goes_when_too_many_wait():
    peer = Peer()
    async with linked(peer) as (link, _):
        full = [link.send(bytes((n,))) for n in range(tcplink.WAITING + 3)]
        assert full == [False] * tcplink.WAITING + [True] * 3
        await until(lambda: len(peer.frames) == tcplink.WAITING)
        assert peer.frames[0].payload == bytes((3,))


async def test_an_answer_finds_its_question():
    async with linked(Peer()) as (link, _), create_task_group() as tasks:
        found = {}

        async def ask(text):
            found[text] = await link.ask(text, 10)

        for text in (b"one", b"two", b"three"):
            tasks.start_soon(ask, text)
        await until(lambda: len(found) == 3)
        assert found == {b"one": b"eno", b"two": b"owt", b"three": b"eerht"}


async def test_a_refusal_is_an_error_of_the_question_alone():
    async with linked(Peer()) as (link, ends):
        with pytest.raises(ConnectionAbortedError, match="refuses to answer"):
            await link.ask(b"no", 10)
        assert await link.ask(b"yes", 10) == b"sey"
        assert not ends.told


async def test_one_who_says_nothing_is_given_up():
    peer = Peer(answers=False)
    async with linked(peer) as (link, ends):
        link.send(b"connect")
        await until(lambda: peer.frames)
        with pytest.raises(TimeoutExceededError, match=r"no answer from .* within 0\.05 s") as told:
            await link.ask(b"anybody?", 0.05)
        assert told.value.timeout == 0.05
        assert isinstance(ends.told[0], TimeoutError)


async def test_one_who_is_far_away_has_time_to_connect():
    """A question that was too hasty does not end the try; the next one finds a connection."""
    peer, go = Peer(), Event()

    async def far(stream):
        await go.wait()
        await peer(stream)

    async with linked(far) as (link, ends):
        with pytest.raises(TimeoutExceededError):
            await link.ask(b"anybody?", 0.05)
        assert not ends.told
        go.set()
        assert await link.ask(b"now", 10) == b"won"


async def test_one_who_is_only_slow_is_kept():
    peer = Peer()
    peer.off = 1
    async with linked(peer) as (link, ends):
        with pytest.raises(TimeoutExceededError):
            await link.ask(b"anybody?", 0.5)
        assert not ends.told, "something was heard meanwhile"
        peer.off = 0
        assert await link.ask(b"now", 10) == b"won"


async def test_a_question_that_nobody_waits_for_is_not_sent():
    peer = Peer()
    async with linked(peer) as (link, _):
        async with create_task_group() as tasks:
            tasks.start_soon(link.ask, b"never mind", 10)
            await sleep(0)
            tasks.cancel_scope.cancel()
        assert await link.ask(b"but", 10) == b"tub"
        assert [frame.payload for frame in peer.frames] == [b"but"]


async def test_a_place_where_nobody_listens_is_told():
    async with linked(Peer(), address=NOWHERE) as (link, ends):
        link.send(b"lost")
        with pytest.raises(ConnectionError, match=f"{NOWHERE} cannot be reached") as caught:
            await link.ask(b"anybody?", 10)
        assert caught.value.__cause__ is ends.told[0]
        assert link.waiting == 1, "the packet is counted as lost by who was told"


async def test_a_wrong_secret_is_told():
    async with linked(Peer(), secret=Secret("another")) as (link, ends):
        with pytest.raises(SecretMismatchError, match="does not accept the secret") as caught:
            await link.ask(b"anybody?", 10)
        assert caught.value.address in str(caught.value)
        assert isinstance(ends.told[0], SecretMismatchError)


async def test_what_is_no_peer_is_told():
    async def other(stream):
        await stream.send(b"220 mail.example ESMTP ready\r\n")
        await closed_by_other(stream)

    async with linked(other) as (link, _):
        with pytest.raises(ConnectionAbortedError, match="is no peer: these are not the bytes"):
            await link.ask(b"anybody?", 10)


async def test_a_connection_that_breaks_is_told_to_all_who_wait():
    async def dying(stream):
        wire, _ = await meet(stream, SECRET)
        for _ in await wire.read(60):
            await stream.aclose()

    async with linked(dying) as (link, ends), create_task_group() as tasks:
        caught = []

        async def ask():
            with pytest.raises(ConnectionError) as error:
                await link.ask(b"anybody?", 10)
            caught.append(error.value)

        tasks.start_soon(ask)
        tasks.start_soon(ask)
        await until(lambda: len(caught) == 2)
        assert caught[0] is not caught[1]
        assert len(ends.told) == 1


async def test_bytes_that_no_peer_sends_end_it():
    async def broken(stream):
        await meet(stream, SECRET)
        await stream.send(bytes(100))
        await closed_by_other(stream)

    async with linked(broken) as (link, _):
        with pytest.raises(ConnectionAbortedError, match="is no peer"):
            await link.ask(b"anybody?", 10)


async def test_a_link_without_a_word_ends(monkeypatch):
    monkeypatch.setattr(tcplink, "IDLE", 0.05)
    peer = Peer()
    async with linked(peer) as (link, ends):
        link.send(b"one")
        await until(lambda: ends.told)
        assert ends.told == [None]
        assert [frame.payload for frame in peer.frames] == [b"one"]


async def test_a_link_on_which_somebody_waits_is_not_idle(monkeypatch):
    monkeypatch.setattr(tcplink, "IDLE", 0.02)
    peer = Peer(answers=False)
    async with linked(peer) as (link, ends), create_task_group() as tasks:
        tasks.start_soon(link.ask, b"anybody?", 60)
        await until(lambda: peer.frames)
        await sleep(0.1)
        assert not ends.told
        tasks.cancel_scope.cancel()


async def test_one_who_takes_nothing_is_lost(monkeypatch):
    monkeypatch.setattr("aiopatterns.cluster.tcpwire.WRITTEN", 0.1)

    async def stuck(stream):
        await meet(stream, SECRET)
        await sleep_forever()

    async with linked(stuck) as (link, ends):
        while not ends.told:
            link.send(bytes(60_000))
            await sleep(0.001)
        assert isinstance(ends.told[0], TimeoutError)


async def test_a_cancelled_question_leaves_nothing():
    peer = Peer(answers=False)
    async with linked(peer) as (link, _):
        async with create_task_group() as tasks:

            async def ask():
                with pytest.raises(get_cancelled_exc_class()):
                    await link.ask(b"anybody?", 60)
                raise get_cancelled_exc_class()

            tasks.start_soon(ask)
            await until(lambda: peer.frames)
            tasks.cancel_scope.cancel()
        assert not link._asked


@pytest.mark.promise("cluster-bad-input")
async def test_what_is_no_address_is_refused():
    with pytest.raises(ValueError, match="address must be"):
        Link("here", secret=SECRET, own="me:1", ended=Ends())
