"""What peers say, in bytes: golden files, round trips, and bytes of strangers."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster import Member, MemberState
from aiopatterns.cluster.instance import LONGEST
from aiopatterns.cluster.messages import (
    MAX_BROADCAST,
    MAX_MEMBERS,
    MAX_MESSAGE,
    VERSION,
    Accepted,
    Ack,
    Check,
    Have,
    Heard,
    Letter,
    Packet,
    Ping,
    Proxy,
    Refused,
    Request,
    Rumour,
    Share,
    Sync,
    Synced,
    Update,
    answer_of,
    encode,
    packet_of,
    packet_with,
    piece,
    request_of,
)
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import CodecError, UnknownVersionError

GOLDEN = Path(__file__).parent / "golden"
ME = Member("a", "10.0.0.1:7946", MemberState.ALIVE, 1_700_000_000_000, 0.0)
UPDATES: list[Update] = [
    Update("b", "10.0.0.2:7946", 1_700_000_000_001, 0),
    Update("c", "[::1]:7946", 1_700_000_000_002, 1, "a"),
]
RUMOURS = [Rumour("c", 1_700_000_000_002, 3, b"\xa5hello")]
HAVE = [Have("a", 1_700_000_000_000, 7), Have("c", 1_700_000_000_002, 1, [3, 4])]
HEADS = {
    "ping": Ping(17, "b"),
    "ack": Ack(17),
    "proxy": Proxy(17, "c", "10.0.0.3:7946"),
    "heard": Heard(17),
    "none": None,
}
BODIES: dict[str, Sync | Check | Share | Letter] = {
    "sync": Sync(UPDATES, HAVE, joining=True),
    "check": Check("b", 1_700_000_000_001),
    "share": Share(RUMOURS),
    "letter": Letter("b", b"\xa5hello"),
}
ANSWERS: dict[str, Accepted | Synced | Refused] = {
    "accepted": Accepted(1_700_000_000_000),
    "synced": Synced(UPDATES, HAVE, RUMOURS),
    "refused": Refused("taken", "10.0.0.9:7946"),
}


def packet(head) -> bytes:
    return packet_with(
        "prod",
        ME,
        head=head,
        updates=[piece(each) for each in UPDATES],
        rumours=[piece(each) for each in RUMOURS],
    )


def written() -> dict[str, bytes]:
    """One of each message, by the name of its golden file."""
    made = {f"peer-v1-packet-{name}": packet(head) for name, head in HEADS.items()}
    for name, body in BODIES.items():
        made[f"peer-v1-request-{name}"] = encode(Request("prod", "a", "10.0.0.1:7946", body))
    return made | {f"peer-v1-answer-{name}": encode(each) for name, each in ANSWERS.items()}


@pytest.mark.promise("cluster-peer-wire")
@pytest.mark.parametrize("name", written())
def test_golden_messages_are_read_and_written(name):
    golden = bytes.fromhex((GOLDEN / f"{name}.hex").read_text("ascii"))
    assert golden == written()[name]
    kind = name.split("-")[3]
    if "packet" in name:
        found = packet_of(golden)
        assert found == Packet(
            "prod", "a", "10.0.0.1:7946", ME.incarnation, HEADS[kind], UPDATES, RUMOURS
        )
    elif "request" in name:
        assert request_of(golden) == Request("prod", "a", "10.0.0.1:7946", BODIES[kind])
    else:
        assert answer_of(golden) == ANSWERS[kind]


@pytest.mark.promise("cluster-peer-wire")
def test_fields_that_a_later_release_adds_are_left_out():
    fields = MSGPACK.decode(packet(HEADS["ping"])[1:])
    fields[4].append("later")
    fields[5][0].append("later")
    newer = bytes((VERSION,)) + MSGPACK.encode([*fields, "later"])
    assert packet_of(newer) == packet_of(packet(HEADS["ping"]))


@pytest.mark.promise("cluster-peer-wire")
@pytest.mark.parametrize("decode", [packet_of, request_of, answer_of])
def test_a_newer_version_has_an_error_of_its_own(decode):
    with pytest.raises(UnknownVersionError) as caught:
        decode(bytes((VERSION + 1,)) + packet(None)[1:])
    assert caught.value.version == VERSION + 1


@pytest.mark.promise("cluster-peer-wire")
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"\x01" + tail))
def test_bytes_of_strangers_decode_or_raise_one_error(data):
    for decode in (packet_of, request_of, answer_of):
        with contextlib.suppress(CodecError):
            decode(data)


@pytest.mark.promise("cluster-peer-wire")
@given(st.sampled_from(sorted(written())), st.integers(0, 400), st.integers(0, 255))
def test_one_changed_or_missing_byte_decodes_or_raises_one_error(name, at, byte):
    whole = written()[name]
    at %= len(whole)
    for data in (whole[:at], whole[:at] + bytes((byte,)) + whole[at + 1 :]):
        for decode in (packet_of, request_of, answer_of):
            with contextlib.suppress(CodecError):
                decode(data)


@pytest.mark.promise("cluster-peer-wire")
@pytest.mark.parametrize(
    "claim",
    [
        ["", "b:1", 1, 0],
        ["b" * (LONGEST + 1), "b:1", 1, 0],
        ["b", "", 1, 0],
        ["b", "b" * (LONGEST + 9), 1, 0],
        ["b", "b:1", -1, 0],
        ["b", "b:1", 2**53 + 1, 0],
        ["b", "b:1", 1, 4],
        ["b", "b:1", 1, 1, "a" * (LONGEST + 1)],
        ["b", "b:1", 1.5, 0],
        ["b", "b:1"],
    ],
)
def test_claims_out_of_their_bounds_are_refused(claim):
    data = bytes((VERSION,)) + MSGPACK.encode(["prod", "a", "a:1", 1, None, [claim], []])
    with pytest.raises(CodecError):
        packet_of(data)


@pytest.mark.parametrize(
    "body",
    [
        Share([Rumour("a", 1, 1, bytes(MAX_BROADCAST + 1))]),
        Share([Rumour("a", 1, 0, b"")]),
        Letter("b", bytes(MAX_MESSAGE + 1)),
        Sync([UPDATES[0]] * (MAX_MEMBERS + 1), []),
        Sync([], [Have("a", 1, 1, [1] * (MAX_MEMBERS + 1))]),
    ],
)
def test_bodies_out_of_their_bounds_are_refused(body):
    with pytest.raises(CodecError):
        request_of(encode(Request("prod", "a", "a:1", body)))


def test_an_answer_to_a_sync_names_who_answers():
    with pytest.raises(CodecError):
        answer_of(encode(Synced([], [], [])))


def test_a_packet_is_as_large_as_its_pieces_and_little_more():
    pieces = len(b"".join([*map(piece, UPDATES), *map(piece, RUMOURS)]))
    names = sum(map(len, ("prod", ME.name, ME.address)))
    assert pieces + names < len(packet(HEADS["proxy"])) <= pieces + names + 64


def test_pieces_are_what_the_whole_would_be():
    whole = Packet("prod", "a", ME.address, ME.incarnation, Ack(17), UPDATES, RUMOURS)
    assert packet(Ack(17)) == b"\x01" + msgspec.msgpack.encode(whole)
