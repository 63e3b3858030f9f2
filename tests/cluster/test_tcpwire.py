"""How a connection between peers begins, what passes, and that every wait has its end."""

from __future__ import annotations

import socket
from math import inf

import pytest
from anyio import (
    BrokenResourceError,
    CancelScope,
    EndOfStream,
    connect_tcp,
    create_task_group,
    sleep,
)
from anyio.abc import SocketAttribute

from aiopatterns.cluster import tcpwire
from aiopatterns.cluster.secret import PROOF_BYTES, Secret
from aiopatterns.cluster.tcpaddress import host_and_port
from aiopatterns.cluster.tcpframes import (
    CHALLENGE_BYTES,
    NONCE_BYTES,
    Frame,
    Kind,
    challenge,
    opening,
)
from aiopatterns.cluster.tcpwire import call, meet
from aiopatterns.core.errors import CodecError, SecretMismatchError
from tests.cluster.wires import SECRET, closed_by_other, ends, exactly, listening_to, wires

pytestmark = pytest.mark.real


class Recorder:
    """Stands for a stream: keeps what is sent."""

    def __init__(self):
        self.sent = b""

    async def send(self, data):
        self.sent += data


async def recorded(wire, *frames) -> bytes:
    """Return what the wire would have sent."""
    stream, wire._stream = wire._stream, Recorder()
    await wire.write(*frames)
    found, wire._stream = wire._stream.sent, stream
    return found


ONE, TWO = Frame(Kind.REQUEST, 1, b"one"), Frame(Kind.PACKET, 0, b"two")


@pytest.mark.parametrize("secret", [SECRET, Secret(None)], ids=repr)
async def test_frames_pass_in_both_directions(secret):
    async with wires(secret) as (near, far, _, _):
        await near.write(ONE, TWO)
        await far.write(Frame(Kind.ANSWER, 1, b"1"))
        found = await far.read(inf)
        while len(found) < 2:
            found += await far.read(inf)
        assert found == [ONE, TWO]
        assert await near.read(inf) == [Frame(Kind.ANSWER, 1, b"1")]


async def test_many_write_at_once_and_each_frame_stays_whole():
    async with wires() as (near, far, _, _), create_task_group() as tasks:
        sent = [Frame(Kind.REQUEST, number, bytes(20_000)) for number in range(20)]
        for frame in sent:
            tasks.start_soon(near.write, frame)
        found: list[Frame] = []
        while len(found) < len(sent):
            found += await far.read(inf)
        assert sorted(found) == sent


async def test_one_who_is_silent_is_gone():
    async with wires() as (near, _, _, _):
        with pytest.raises(TimeoutError):
            await near.read(0.05)


async def test_a_frame_that_drips_has_an_end(monkeypatch):
    monkeypatch.setattr(tcpwire, "WHOLE", 0.1)
    async with wires() as (_, far, stream, _), create_task_group() as tasks:
        data = ONE.encode(SECRET.seal("caller", b""))

        async def drip():
            for byte in data:
                await stream.send(bytes((byte,)))
                await sleep(0.03)

        tasks.start_soon(drip)
        with pytest.raises(TimeoutError):
            while True:
                assert await far.read(inf) == []
        tasks.cancel_scope.cancel()


async def test_a_new_frame_has_all_its_time():
    async with wires() as (near, far, stream, _):
        data = await recorded(near, ONE, ONE, ONE)
        size = len(data) // 3
        began, found = [far._began], []
        for start, end in ((0, 9), (9, 10), (10, size + 9), (size + 9, 3 * size)):
            await stream.send(data[start:end])
            found = await far.read(inf)
            began.append(far._began)
            await sleep(0.002)
        assert found == [ONE] * 2
        assert began[0] == began[4] == inf, "no frame has begun"
        assert began[1] == began[2], "the same frame goes on"
        assert began[2] < began[3], "another has begun"


async def test_one_who_takes_nothing_is_gone(monkeypatch):
    monkeypatch.setattr(tcpwire, "WRITTEN", 0.1)
    async with wires() as (near, _, _, _):
        with pytest.raises(TimeoutError):
            for _ in range(100):
                await near.write(Frame(Kind.PACKET, 0, bytes(1_000_000)))


async def test_a_wrong_secret_is_never_answered():
    caught = []

    async def hosted(stream):
        with pytest.raises(SecretMismatchError) as error:
            await meet(stream, SECRET)
        caught.append(error.value)

    async with listening_to(hosted) as address:
        with pytest.raises(SecretMismatchError, match="does not accept the secret of this side"):
            await call(*host_and_port("", address), secret=Secret("another"), address="me:1")
    assert caught[0].address == "me:1"


async def test_an_end_before_the_proof_was_looked_at_is_no_wrong_secret():
    """Who is called may be leaving, or have too many strangers; that says nothing of the secret."""
    called = CancelScope()

    async def hosted(stream):
        with called:
            await meet(stream, SECRET)

    async with listening_to(hosted) as address:
        async with await connect_tcp(*host_and_port("", address)) as stream:
            await exactly(stream, CHALLENGE_BYTES)
            called.cancel()
            with pytest.raises(BrokenResourceError):  # and not EndOfStream
                await stream.receive()


@pytest.mark.parametrize(
    ("called", "caller", "text"),
    [
        (SECRET, Secret(None), "the peer has a secret and this side has none"),
        (Secret(None), SECRET, "the peer has no secret and this side has one"),
    ],
)
async def test_a_secret_on_one_side_only_is_told(called, caller, text):
    caught = []

    async def hosted(stream):
        with pytest.raises(SecretMismatchError):
            await meet(stream, called)
        caught.append(True)
        await closed_by_other(stream)

    async with listening_to(hosted) as address:
        with pytest.raises(SecretMismatchError, match=text):
            await call(*host_and_port("", address), secret=caller, address="me:1")
        while not caught:
            await sleep(0.005)


async def test_the_called_side_proves_itself_as_well():
    async def hosted(stream):
        await stream.send(challenge(bytes(NONCE_BYTES), sealed=True))
        await stream.receive()
        await stream.send(bytes(PROOF_BYTES))  # it says yes to everybody
        await closed_by_other(stream)

    async with listening_to(hosted) as address:
        with pytest.raises(SecretMismatchError, match="does not know the secret of this side"):
            await call(*host_and_port("", address), secret=SECRET, address="me:1")


async def test_a_proof_that_was_recorded_is_worth_nothing():
    outcomes = []

    async def hosted(stream):
        try:
            await meet(stream, SECRET)
            outcomes.append("accepted")
        except SecretMismatchError:
            outcomes.append("refused")

    async with listening_to(hosted) as address:
        place = host_and_port("", address)
        async with await connect_tcp(*place) as stream:
            first = await exactly(stream, CHALLENGE_BYTES)
            hello = opening(bytes(NONCE_BYTES), "me:1", sealed=True)
            proof = SECRET.proof("caller", first + hello)
            await stream.send(hello + proof)
            await exactly(stream, PROOF_BYTES)
        async with await connect_tcp(*place) as stream:
            await exactly(stream, CHALLENGE_BYTES)
            await stream.send(hello + proof)
            assert await closed_by_other(stream) == b""
    assert outcomes == ["accepted", "refused"]


async def test_frames_that_were_recorded_are_worth_nothing():
    async with wires() as (near, far, stream, _):
        await stream.send(await recorded(near, TWO) * 2)
        with pytest.raises(CodecError, match="wrong seal"):
            while True:
                await far.read(inf)


async def test_a_place_without_a_peer_is_told():
    async def hosted(stream):
        await stream.send(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
        await closed_by_other(stream)

    async with listening_to(hosted) as address:
        with pytest.raises(CodecError, match="not the bytes of a peer"):
            await call(*host_and_port("", address), secret=SECRET, address="me:1")


async def test_the_system_gives_up_what_nobody_acknowledges():
    async with wires() as (_, _, stream, _):
        raw = stream.extra(SocketAttribute.raw_socket)
        for level, option, value in tcpwire._OPTIONS:
            assert raw.getsockopt(level, option) == value
        assert bool(tcpwire._OPTIONS) == hasattr(socket, "TCP_USER_TIMEOUT"), "Linux has it"


async def test_one_who_accepts_and_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(tcpwire, "HANDSHAKE", 0.1)
    async with listening_to(closed_by_other) as address:
        with pytest.raises(TimeoutError):
            await call(*host_and_port("", address), secret=SECRET, address="me:1")


async def test_one_who_calls_and_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(tcpwire, "HANDSHAKE", 0.1)
    async with ends() as (_, called):
        with pytest.raises(TimeoutError):
            await meet(called, SECRET)


async def test_one_who_hangs_up_at_once_is_no_stranger():
    async with ends() as (caller, called):
        await caller.aclose()
        with pytest.raises((EndOfStream, BrokenResourceError)):
            await meet(called, SECRET)
