"""The scribe: copies are plain data, replies of every codec are read, sizes are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from aiopatterns.core.codec import JSON, MSGPACK
from aiopatterns.core.errors import CodecError
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.scribe import Scribe


@dataclass
class Point:
    x: int


def test_a_copy_is_plain_data_of_its_own():
    scribe = Scribe(MSGPACK, max_bytes=100)
    value = {"points": [Point(1)]}
    copy = scribe.copy(value)
    assert copy == {"points": [{"x": 1}]}
    assert scribe.copy(b"bytes") == b"bytes"


@pytest.mark.parametrize("reader", [JSON, MSGPACK], ids=repr)
@pytest.mark.parametrize("writer", [JSON, MSGPACK], ids=repr)
def test_replies_and_messages_of_other_codecs_are_read(writer: Any, reader: Any):
    written = Scribe(writer, max_bytes=1_000)
    read = Scribe(reader, max_bytes=1_000)
    assert read.read(written.write({"a": [1]})) == {"a": [1]}
    data = written.envelopes.encode(Message(type="t", payload={"a": 1}))
    assert read.envelopes.decode(data).payload == {"a": 1}


def test_a_codec_of_ones_own():
    class Own:
        name = "own"

        def encode(self, value: object) -> bytes:
            return str(value).encode()

        def decoder(self, type: Any) -> Any:
            return lambda data: data.decode()

    own = Scribe(Own(), max_bytes=100)
    assert own.copy(5) == "5"
    assert own.write(5) == b"\x03own5"
    assert own.read(own.write(5)) == "5"
    assert own.read(Scribe(JSON, max_bytes=100).write([1])) == [1]
    with pytest.raises(CodecError, match="a codec that is not known: b'own'"):
        Scribe(JSON, max_bytes=100).read(own.write(5))


def test_what_is_too_long_or_cannot_be_written_is_refused():
    scribe = Scribe(MSGPACK, max_bytes=20)
    assert scribe.copy("x" * 18) == "x" * 18
    for use in (scribe.copy, scribe.write):
        with pytest.raises(CodecError, match="longer than max_bytes=20"):
            use("x" * 21)
        with pytest.raises(CodecError, match="object"):
            use(object())


@pytest.mark.promise("messaging-decoders")
@pytest.mark.parametrize("body", [b"", b"\x00", b"\xff", b"\x04json", b"\x04json{", b"\x07msgpack"])
def test_bodies_that_are_none(body: bytes):
    with pytest.raises(CodecError):
        Scribe(MSGPACK, max_bytes=20).read(body)
