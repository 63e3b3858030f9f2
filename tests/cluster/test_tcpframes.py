"""Frames and the beginning of a connection, byte by byte; whatever else arrives is a CodecError."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster.secret import PROOF_BYTES, SEAL_BYTES, Secret
from aiopatterns.cluster.tcpframes import (
    CHALLENGE_BYTES,
    HEAD_BYTES,
    MAX_ADDRESS,
    Frame,
    Frames,
    Kind,
    challenge,
    is_sealed,
    opening,
    read_hello,
    rest_of_hello,
)
from aiopatterns.cluster.transport import MAX_EXCHANGE
from aiopatterns.core.errors import CodecError, UnknownVersionError

GOLDEN = Path(__file__).parent / "golden" / "tcp-1.json"
NONCE = bytes(range(16))
FRAMES = [Frame(Kind.PACKET, 0, b"probe"), Frame(Kind.REQUEST, 7, b"state"), Frame(Kind.REFUSAL, 7)]

frames = st.lists(
    st.builds(Frame, st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=200)),
    max_size=10,
)


def seal():
    return Secret("golden").seal("caller", b"transcript")


def written(*given_frames):
    sealed = seal()
    return b"".join(frame.encode(sealed) for frame in given_frames)


def conversation() -> dict[str, str]:
    """A whole conversation, as it has been on the wire since the first release."""
    secret = Secret("golden")
    first = challenge(NONCE, sealed=True)
    hello = opening(NONCE[::-1], "10.0.0.7:7000", sealed=True)
    return {
        "challenge": first.hex(),
        "hello": (hello + secret.proof("caller", first + hello)).hex(),
        "welcome": secret.proof("called", first + hello).hex(),
        "frames": b"".join(
            [each.encode(s) for s in [secret.seal("caller", first + hello)] for each in FRAMES]
        ).hex(),
    }


def test_the_wire_stays_as_it_was_released():
    assert conversation() == json.loads(GOLDEN.read_text("utf-8"))


@given(frames, st.integers(1, 64))
def test_frames_arrive_as_they_were_however_they_are_cut(sent, size):
    data, reader, found = written(*sent), Frames(seal()), []
    for start in range(0, len(data), size):
        found += reader.feed(data[start : start + size])
    assert found == sent
    assert not reader.partial
    assert all(isinstance(each.kind, Kind) for each in found)


def test_a_frame_that_is_not_whole_is_kept():
    reader = Frames(seal())
    data = written(*FRAMES)
    assert reader.feed(data[:-1]) == FRAMES[:-1]
    assert reader.partial
    assert reader.feed(data[-1:]) == FRAMES[-1:]


@pytest.mark.parametrize("size", [0, SEAL_BYTES + 4, 2**32 - 1, MAX_EXCHANGE + 22])
def test_a_frame_of_no_size_is_refused_before_it_is_kept(size):
    with pytest.raises(CodecError, match="bytes, not"):
        Frames(seal()).feed(size.to_bytes(4, "big"))


def test_a_kind_that_nobody_knows_is_refused():
    body = bytes((9,)) + bytes(4)
    data = (SEAL_BYTES + len(body)).to_bytes(4, "big") + seal().next(body) + body
    with pytest.raises(CodecError, match="kind 9"):
        Frames(seal()).feed(data)


@given(st.binary(max_size=300), st.integers(0, 300), st.integers(1, 255))
def test_one_wrong_bit_is_found(payload, place, flip):
    data = bytearray(written(Frame(Kind.PACKET, 0, payload)))
    place = 4 + place % (len(data) - 4)
    data[place] ^= flip
    with pytest.raises(CodecError):
        Frames(seal()).feed(bytes(data))


@given(st.lists(st.binary(max_size=400), max_size=5))
def test_any_bytes_are_frames_or_a_codec_error(chunks):
    reader = Frames(seal())
    with suppress(CodecError):
        for chunk in chunks:
            assert reader.feed(chunk) == []


@pytest.mark.parametrize("sealed", [True, False])
def test_a_challenge_says_whether_there_is_a_secret(sealed):
    data = challenge(NONCE, sealed=sealed)
    assert len(data) == CHALLENGE_BYTES
    assert is_sealed(data) is sealed


def test_bytes_of_another_protocol_are_refused():
    with pytest.raises(CodecError, match="not the bytes of a peer"):
        is_sealed(b"HTTP/1.1 400 Bad Request")


def test_another_version_is_told():
    data = bytearray(challenge(NONCE, sealed=True))
    data[4] = 2
    with pytest.raises(UnknownVersionError) as caught:
        is_sealed(bytes(data))
    assert caught.value.version == 2


def test_a_hello_says_where_the_caller_is():
    hello = opening(NONCE, "10.0.0.7:7000", sealed=True) + bytes(PROOF_BYTES)
    head, rest = hello[:HEAD_BYTES], hello[HEAD_BYTES:]
    assert rest_of_hello(head) == len(rest)
    assert read_hello(rest) == ("10.0.0.7:7000", bytes(PROOF_BYTES))


@pytest.mark.parametrize("size", [0, MAX_ADDRESS + 1, 65_535])
def test_an_address_has_some_length(size):
    with pytest.raises(CodecError, match="an address has"):
        rest_of_hello(challenge(NONCE, sealed=True) + size.to_bytes(2, "big"))


def test_an_address_is_text():
    with pytest.raises(CodecError, match="ASCII"):
        read_hello(b"\xff" + bytes(PROOF_BYTES))


@given(st.binary(min_size=HEAD_BYTES, max_size=HEAD_BYTES))
def test_any_head_is_a_hello_or_a_codec_error(head):
    with suppress(CodecError):
        assert 1 <= rest_of_hello(head) <= MAX_ADDRESS + PROOF_BYTES
