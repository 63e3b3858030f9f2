"""Envelopes: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.codec import JSON, MSGPACK, Header, pack, unpack
from aiopatterns.core.errors import CodecError, UnknownVersionError
from aiopatterns.messaging.envelope import MAX_BYTES, Envelopes
from aiopatterns.messaging.message import KINDS, Message
from aiopatterns.testing import simulate

GOLDEN = Path(__file__).parent / "golden"

TEXT = st.text(min_size=1, max_size=9)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.builds(
    Message,
    type=TEXT,
    id=TEXT,
    version=st.integers(1, 99),
    kind=st.sampled_from(KINDS),
    topic=st.text(max_size=9),
    key=st.none() | TEXT,
    correlation_id=st.none() | TEXT,
    causation_id=st.none() | TEXT,
    reply_to=st.none() | TEXT,
    attempt=st.integers(1, 99),
    hops=st.integers(0, 99),
    headers=st.dictionaries(TEXT | st.just("traceparent"), st.text(max_size=9), max_size=3),
    payload=PLAIN,
)
MAKERS = st.sampled_from([Envelopes(JSON), Envelopes(MSGPACK), Envelopes((MSGPACK, JSON))])
SIMPLE = Message(type="order.created", id="7a", payload={"id": 17})


@given(MAKERS, MESSAGES)
def test_what_goes_in_comes_out(envelopes, message):
    assert envelopes.decode(envelopes.encode(message)) == message


def attempt(envelopes, data):
    """Decode ``data``; only one kind of error may come."""
    try:
        assert isinstance(envelopes.decode(data), Message)
    except CodecError:
        return


@pytest.mark.promise("messaging-decoders")
@given(MAKERS, st.binary(max_size=80))
def test_any_bytes_open_or_raise_one_error(envelopes, data):
    empty = pack(Header(), b"")
    for head in (b"", b"\x01", empty, empty + b"\x04json", empty + b"\x07msgpack"):
        attempt(envelopes, head + data)
        attempt(envelopes, head + b"\x9b" + data)
        attempt(envelopes, head + b'["' + data)


@pytest.mark.promise("messaging-decoders")
@given(MAKERS, MESSAGES, st.data())
def test_changed_bytes_open_or_raise_one_error(envelopes, message, data):
    body = bytearray(envelopes.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    attempt(envelopes, bytes(body))
    attempt(envelopes, bytes(body[: data.draw(st.integers(0, len(body)))]))


WRONG: list[Any] = ["", None, 0, -1, 1.5, True, [], {}, {"": "x"}, {"a": 1}, 10**30, "x"]


@pytest.mark.promise("messaging-decoders")
@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=repr)
@pytest.mark.parametrize("at", range(10))
def test_a_field_that_is_wrong_is_refused_or_harmless(codec, at):
    envelopes = Envelopes(codec)
    right = ["7a", "order", 1, "event", "t", "k", "r", "c", 1, {"a": "b"}, {"id": 17}]
    mark = bytes((len(codec.name),)) + codec.name.encode()
    for wrong in WRONG:
        try:
            body = codec.encode([*right[:at], wrong, *right[at + 1 :]])
        except CodecError:  # such a number cannot be written at all
            continue
        attempt(envelopes, pack(Header(), mark + body))


@pytest.mark.promise("messaging-decoders")
@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=repr)
def test_hostile_bytes(codec):
    mark = bytes((len(codec.name),)) + codec.name.encode()
    deep = b"[" * 100_000 if codec is JSON else b"\x91" * 100_000
    huge = b'{"a":' + b"9" * 5_000 + b"}" if codec is JSON else b"\xdf\xff\xff\xff\xff"
    for body in (deep, huge, b"", b"\xc1", b"\xff" * 50):
        with pytest.raises(CodecError):
            Envelopes(codec).decode(pack(Header(), mark + body))


@pytest.mark.promise("messaging-decoders")
def test_bytes_of_a_newer_release_say_so():
    data = Envelopes().encode(SIMPLE)
    with pytest.raises(UnknownVersionError) as info:
        Envelopes().decode(b"\x02" + data[1:])
    assert info.value.version == 2


def test_a_message_that_breaks_the_rules_is_no_message():
    body = JSON.encode(["7a", "order", 0, "event", "", None, None, None, 1, {}, None])
    with pytest.raises(CodecError, match="not a message: version must be a whole number >= 1"):
        Envelopes().decode(pack(Header(), b"\x04json" + body))


def test_the_trace_travels_in_the_header_block():
    message = Message(type="a", headers={"traceparent": "00-a-b-01", "x": "y"})
    data = Envelopes().encode(message)
    assert unpack(data)[0].traceparent == "00-a-b-01"
    assert b"traceparent" not in unpack(data)[1]
    assert Envelopes().decode(data).headers == {"traceparent": "00-a-b-01", "x": "y"}


def test_a_deadline_travels_as_the_time_that_is_left():
    async def scenario() -> None:
        envelopes = Envelopes()
        message = Message(type="a", deadline=monotonic() + 5)
        alone = envelopes.encode(message)
        stamped = envelopes.encode(message, sent_at=1_000.0)
        assert unpack(alone)[0].remaining == 5
        assert unpack(alone)[0].sent_at is None
        await sleep(2)
        assert envelopes.decode(alone).deadline == monotonic() + 5
        assert envelopes.decode(stamped, server_now=1_002.0).deadline == monotonic() + 3
        assert envelopes.decode(stamped, server_now=990.0).deadline == monotonic() + 5
        assert envelopes.decode(stamped).deadline == monotonic() + 5
        await sleep(10)
        late = envelopes.encode(message)
        assert unpack(late)[0].remaining == 0
        assert envelopes.decode(late).deadline == monotonic()

    simulate(scenario)


def test_without_a_deadline_no_time_is_sent():
    assert unpack(Envelopes().encode(SIMPLE, sent_at=5.0))[0].sent_at is None


def test_a_codec_is_changed_in_two_steps():
    before, both, flipped, after = (
        Envelopes(codecs) for codecs in (JSON, (JSON, MSGPACK), [MSGPACK, JSON], [MSGPACK])
    )
    assert (before.codec, flipped.codec) == (JSON, MSGPACK)
    for writer, reader in [(before, both), (both, before), (both, flipped), (flipped, both)]:
        assert reader.decode(writer.encode(SIMPLE)) == SIMPLE
    assert after.decode(flipped.encode(SIMPLE)) == SIMPLE
    with pytest.raises(CodecError, match="written by a codec that is not accepted here: b'json'"):
        after.decode(both.encode(SIMPLE))


def test_what_is_too_long_is_neither_written_nor_read():
    small, large = Envelopes(max_bytes=100), Envelopes()
    assert (small.max_bytes, large.max_bytes) == (100, MAX_BYTES)
    assert small.decode(small.encode(SIMPLE)) == SIMPLE
    long = Message(type="a", payload="x" * 100)
    with pytest.raises(CodecError, match=r"a message of 1\d\d bytes is longer than max_bytes=100"):
        small.encode(long)
    with pytest.raises(CodecError, match="longer than max_bytes=100"):
        small.decode(large.encode(long))


@pytest.mark.parametrize("field", [{"payload": object()}, {"topic": "\udc80"}, {"hops": 2**70}])
@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=repr)
def test_what_cannot_be_encoded_is_a_codec_error(codec, field):
    with pytest.raises(CodecError):
        Envelopes(codec).encode(Message(type="a", **field))
    with pytest.raises(CodecError, match="a header holds at most"):
        Envelopes(codec).encode(Message(type="a", correlation_id="x" * 70_000))


def test_a_codec_of_the_users_own():
    class Shouting:
        name = "shout"

        def encode(self, value):
            return JSON.encode(value).upper()

        def decoder(self, type):
            inner = JSON.decoder(type)
            return lambda data: inner(data.lower())

    envelopes = Envelopes(Shouting())
    assert envelopes.decode(envelopes.encode(SIMPLE)) == SIMPLE


@dataclass
class Order:
    id: int
    at: datetime
    raw: bytes = b""


class Line(msgspec.Struct):
    order: Order


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=repr)
def test_payloads_of_types_come_back_as_plain_data_and_are_made_into_types(codec):
    order = Order(17, datetime(2026, 11, 25, tzinfo=UTC), b"abc")
    envelopes = Envelopes(codec)
    received = envelopes.decode(envelopes.encode(Message(type="line", payload=Line(order)))).payload
    assert received["order"]["id"] == 17
    assert envelopes.convert(received, Line) == Line(order)
    assert Envelopes.convert([1, 2], tuple[int, int]) == (1, 2)
    with pytest.raises(CodecError, match="the payload is not a Line: Expected `int`, got `str`"):
        envelopes.convert({"order": {"id": "x"}}, Line)
    with pytest.raises(CodecError, match="the payload is not a tuple"):
        Envelopes.convert([1], tuple[int, int])
    with pytest.raises(TypeError):
        Envelopes.convert(1, 7)


@pytest.mark.promise("messaging-bad-input")
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"codec": "json"}, TypeError, "codec must be a codec such as JSON"),
        ({"codec": None}, TypeError, "codec must be a codec such as JSON"),
        ({"codec": []}, ValueError, "codec must be one codec or several of different names"),
        ({"codec": [JSON, JSON]}, ValueError, "of different names, not \\['json', 'json'\\]"),
        ({"max_bytes": 0}, ValueError, "max_bytes must be a whole number >= 1"),
        ({"max_bytes": "1"}, TypeError, "max_bytes must be a whole number >= 1"),
    ],
)
def test_bad_input(given, error, message):
    with pytest.raises(error, match=message):
        Envelopes(**given)


@pytest.mark.promise("messaging-wire-format")
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("envelope-*.json")), ids=lambda path: path.stem)
def test_what_was_written_once_stays_readable(path):
    """Files of releases are never changed; a new format gets a new file beside them."""
    golden: dict[str, Any] = json.loads(path.read_text("utf-8"))
    envelopes = Envelopes((JSON, MSGPACK))
    message = Message(**golden["message"])
    stored = base64.b64decode(golden["stored"])
    assert envelopes.decode(stored) == message
    if golden["writes"]:  # this release still writes it so
        codec = {"json": JSON, "msgpack": MSGPACK}[golden["codec"]]
        assert Envelopes(codec).encode(message) == stored
    wider = base64.b64decode(golden["wider"])  # with fields that a later release has added
    assert envelopes.decode(wider) == message


def test_there_are_golden_files_of_both_codecs():
    assert len(list(GOLDEN.glob("envelope-*.json"))) >= 2


def test_whatever_the_code_of_a_type_raises_the_payload_is_refused():
    @dataclass
    class Picky:
        id: int

        def __post_init__(self) -> None:
            raise [KeyError("id"), ValueError("id"), TypeError("id")][self.id]

    for number in range(3):
        with pytest.raises(CodecError, match=r"the payload is not a Picky: .*id"):
            Envelopes.convert({"id": number}, Picky)


def test_names_of_codecs_that_are_too_long():
    class Wordy:
        name = "x" * 256

        def encode(self, value: object) -> bytes:
            return b""

        def decoder(self, type: Any) -> Any:
            return lambda data: data

    with pytest.raises(ValueError, match=r"codec\.name must be at most 255 bytes, not 256"):
        Envelopes(Wordy())
