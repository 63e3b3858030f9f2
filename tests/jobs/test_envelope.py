"""Envelopes: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.codec import JSON, MSGPACK, Header
from aiopatterns.core.errors import CodecError, Reject
from aiopatterns.jobs.envelope import MAX_BYTES, Envelope, Envelopes, ErrorRecord

GOLDEN = Path(__file__).parent / "golden"
OLD, NEW = b"old key of 16 bytes", "new key of 16 bytes"

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
HEADERS = st.builds(
    Header,
    correlation_id=st.none() | st.text(min_size=1, max_size=9),
    remaining=st.none() | st.floats(0, 1e6),
    sent_at=st.none() | st.floats(0, 2e9),
    hops=st.integers(0, 99),
)
ENVELOPES = st.builds(
    Envelope,
    name=st.text(min_size=1, max_size=9),
    args=st.lists(PLAIN, max_size=3),
    kwargs=st.dictionaries(st.text(max_size=5), PLAIN, max_size=3),
    enqueued_at=st.floats(0, 2e9),
    header=HEADERS,
)
MAKERS = st.sampled_from(
    [
        Envelopes(JSON),
        Envelopes(MSGPACK),
        Envelopes((MSGPACK, JSON), signing=[NEW, OLD]),
        Envelopes(JSON, signing=[OLD]),
    ]
)
SIMPLE = Envelope("f", [1, "a"], {"b": None}, 1_700_000_000.5, Header())


@given(MAKERS, ENVELOPES)
def test_what_goes_in_comes_out(envelopes, envelope):
    assert envelopes.decode(envelopes.encode(envelope)) == envelope


@given(MAKERS, PLAIN)
def test_results_come_back(envelopes, value):
    assert envelopes.decode_result(envelopes.encode_result(value)) == value


@given(MAKERS, st.text(), st.text(), st.text())
def test_errors_come_back(envelopes, kind, message, traceback):
    record = ErrorRecord(kind, message, traceback)
    assert envelopes.decode_error(envelopes.encode_error(record)) == record
    assert envelopes.read_error(envelopes.encode_error(record)) == record


def test_results_are_decoded_into_a_type():
    envelopes = Envelopes()
    data = envelopes.encode_result({"a": (1, 2)})
    assert envelopes.decode_result(data) == {"a": [1, 2]}
    assert envelopes.decode_result(data, dict[str, tuple[int, int]]) == {"a": (1, 2)}
    with pytest.raises(CodecError):
        envelopes.decode_result(data, int)


def attempt_all(envelopes, data):
    """Decode ``data`` as everything; only one kind of error may come."""
    for decode in (envelopes.decode, envelopes.decode_result, envelopes.decode_error):
        try:
            decode(data)
        except CodecError:
            continue
    envelopes.read_error(data)


@pytest.mark.promise("jobs-decoders")
@given(MAKERS, st.binary(max_size=80))
def test_any_bytes_decode_or_raise_one_error(envelopes, data):
    for form in (b"", b"\x01", b"\x02", b"\x01\x01\x00\x06\x95\xc0\xc0\xc0\xc0\x00"):
        attempt_all(envelopes, form + data)


@pytest.mark.promise("jobs-decoders")
@given(MAKERS, ENVELOPES, st.data())
def test_changed_bytes_decode_or_raise_one_error(envelopes, envelope, data):
    body = bytearray(envelopes.encode(envelope))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    attempt_all(envelopes, bytes(body))
    attempt_all(envelopes, bytes(body[: data.draw(st.integers(0, len(body)))]))


@pytest.mark.promise("jobs-signed")
@given(ENVELOPES, st.data())
def test_a_signed_envelope_that_was_changed_is_not_opened(envelope, data):
    envelopes = Envelopes(signing=[NEW])
    body = bytearray(envelopes.encode(envelope))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CodecError):
        envelopes.decode(bytes(body))


@pytest.mark.promise("jobs-signed")
def test_what_is_signed_is_checked_before_it_is_decoded():
    class Watching:
        name = "json"
        asked = 0

        def encode(self, value):
            return JSON.encode(value)

        def decoder(self, type):
            inner = JSON.decoder(type)

            def decode(data):
                Watching.asked += 1
                return inner(data)

            return decode

    foreign = Envelopes(Watching(), signing=["another key of 16 bytes"]).encode(SIMPLE)
    envelopes = Envelopes(Watching(), signing=[NEW])
    with pytest.raises(CodecError, match="signed by none of the keys"):
        envelopes.decode(foreign)
    with pytest.raises(CodecError, match="is not signed, but this queue has keys"):
        envelopes.decode(Envelopes().encode(SIMPLE))
    with pytest.raises(CodecError, match="is signed, but this queue has no key"):
        Envelopes(Watching()).decode(foreign)
    assert Watching.asked == 0
    assert envelopes.decode(envelopes.encode(SIMPLE)) == SIMPLE


@pytest.mark.promise("jobs-signed")
def test_a_result_does_not_pass_for_a_call():
    envelopes = Envelopes(signing=[NEW])
    body = envelopes.encode(SIMPLE)
    with pytest.raises(CodecError, match="signed by none"):
        envelopes.decode_result(body)
    with pytest.raises(CodecError, match="signed by none"):
        envelopes.decode_error(envelopes.encode_result(1))


def test_a_key_is_changed_in_two_steps():
    rotation: list[list[str | bytes]] = [[OLD], [OLD, NEW], [NEW, OLD], [NEW]]
    before, both, flipped, after = (Envelopes(signing=keys) for keys in rotation)
    for writer, reader in [(before, both), (both, before), (both, flipped), (flipped, both)]:
        assert reader.decode(writer.encode(SIMPLE)) == SIMPLE
    assert after.decode(flipped.encode(SIMPLE)) == SIMPLE
    with pytest.raises(CodecError):
        after.decode(both.encode(SIMPLE))


def test_a_codec_is_changed_in_two_steps():
    before, both, flipped, after = (
        Envelopes(codecs) for codecs in (JSON, (JSON, MSGPACK), [MSGPACK, JSON], [MSGPACK])
    )
    assert (before.codec, flipped.codec) == (JSON, MSGPACK)
    for writer, reader in [(before, both), (both, before), (both, flipped), (flipped, both)]:
        assert reader.decode(writer.encode(SIMPLE)) == SIMPLE
    assert after.decode(flipped.encode(SIMPLE)) == SIMPLE
    with pytest.raises(CodecError, match="written by a codec that this queue does not accept"):
        after.decode(both.encode(SIMPLE))
    with pytest.raises(CodecError, match="written by a codec that this queue does not accept"):
        after.decode_result(both.encode_result(1))


@pytest.mark.parametrize("signing", [(), [NEW]])
def test_what_is_too_long_is_neither_written_nor_read(signing):
    small = Envelopes(signing=signing, max_bytes=100)
    large = Envelopes(signing=signing)
    fitting = Envelope("f", ["x" * 40], {}, 0.0, Header())
    assert small.decode(small.encode(fitting)) == fitting
    long = Envelope("f", ["x" * 400], {}, 0.0, Header())
    with pytest.raises(CodecError, match=r"a call of 4\d\d bytes is longer than max_bytes=100; ke"):
        small.encode(long)
    with pytest.raises(CodecError, match="longer than max_bytes=100"):
        small.decode(large.encode(long))
    with pytest.raises(CodecError, match="a result of 4"):
        small.encode_result("x" * 400)
    with pytest.raises(CodecError, match="a result of 4"):
        small.decode_result(large.encode_result("x" * 400))
    record = ErrorRecord("E", "x" * 400)  # an error is bounded by itself
    assert small.decode_error(small.encode_error(record)) == record
    assert MAX_BYTES == 1_048_576


@pytest.mark.parametrize("value", [object(), {1: object()}, {"a": {("x",): 1}}])
def test_what_cannot_be_encoded_is_a_codec_error(value):
    with pytest.raises(CodecError):
        Envelopes().encode(Envelope("f", [value], {}, 0.0, Header()))
    with pytest.raises(CodecError):
        Envelopes().encode_result(value)


def test_the_record_of_an_error():
    with pytest.raises(Reject) as info:
        raise Reject("never") from OSError("why")
    record = ErrorRecord.of(info.value)
    assert (record.type, record.message) == ("Reject", "never")
    assert "OSError: why" in record.traceback
    assert "in test_the_record_of_an_error" in record.traceback
    assert ErrorRecord.of(KeyError("k")) == ErrorRecord("KeyError", "'k'")


class Broken(Exception):
    def __str__(self):
        raise RuntimeError


def test_the_record_of_a_strange_error():
    assert ErrorRecord.of(Broken()).message == "(its message raised RuntimeError)"
    assert ErrorRecord.of(ValueError("\udc80")).message == "?"
    assert len(ErrorRecord.of(ValueError("x" * 100_000)).message) == 4_000

    def deep(n):
        if n:
            deep(n - 1)
        raise ValueError("x" * 50_000)

    with pytest.raises(ValueError) as info:
        deep(3)
    record = ErrorRecord.of(info.value)
    assert len(record.traceback) == 16_000
    assert Envelopes().decode_error(Envelopes().encode_error(record)) == record


def test_a_record_that_is_not_there():
    envelopes = Envelopes()
    assert envelopes.read_error(b"").type == "WorkerCrashedError"
    assert envelopes.read_error(b"nonsense").type == "CodecError"


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"codec": "json"}, TypeError, "codec must be a codec such as JSON"),
        ({"codec": None}, TypeError, "codec must be a codec such as JSON"),
        ({"codec": []}, ValueError, "codec must be one codec or several of different names"),
        (
            {"codec": [JSON, JSON]},
            ValueError,
            "several of different names, not \\['json', 'json'\\]",
        ),
        ({"signing": "one key of 16 bytes"}, TypeError, "signing must be a sequence of keys"),
        ({"signing": b"one key of 16 bytes"}, TypeError, "signing must be a sequence of keys"),
        ({"signing": ["short"]}, ValueError, "keys of at least 16 bytes, not 5"),
        ({"signing": [7]}, TypeError, "keys of str or bytes, not int"),
        ({"signing": None}, TypeError, "signing must be a sequence of keys"),
        ({"max_bytes": 0}, ValueError, "max_bytes must be a whole number >= 1"),
        ({"max_bytes": "1"}, TypeError, "max_bytes must be a whole number >= 1"),
    ],
)
def test_bad_input(given, error, message):
    with pytest.raises(error, match=message):
        Envelopes(**given)


def test_a_key_is_in_no_message_and_no_repr():
    with pytest.raises(ValueError) as info:
        Envelopes(signing=["tiny-secret"])
    assert "secret" not in str(info.value)
    assert "old key" not in repr(Envelopes(signing=[OLD]))


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


@pytest.mark.promise("jobs-wire-format")
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_written_once_stays_readable(path):
    """Files of releases are never changed; a new format gets a new file beside them."""
    golden: dict[str, Any] = json.loads(path.read_text("utf-8"))
    envelopes = Envelopes((JSON, MSGPACK), signing=golden["signing"])
    call = golden["call"]
    header = Header(**call["header"])
    envelope = Envelope(call["name"], call["args"], call["kwargs"], call["enqueued_at"], header)
    stored = {name: base64.b64decode(data) for name, data in golden["stored"].items()}
    assert envelopes.decode(stored["call"]) == envelope
    assert envelopes.decode_result(stored["result"]) == golden["result"]
    assert envelopes.decode_error(stored["error"]) == ErrorRecord(*golden["error"])
    if golden["writes"]:  # this release still writes it so
        codec = {"json": JSON, "msgpack": MSGPACK}[golden["codec"]]
        writer = Envelopes(codec, signing=golden["signing"])
        assert writer.encode(envelope) == stored["call"]
        assert writer.encode_result(golden["result"]) == stored["result"]
        assert writer.encode_error(ErrorRecord(*golden["error"])) == stored["error"]
    wider = base64.b64decode(golden["wider"])  # with a field that a later release has added
    assert envelopes.decode(wider) == envelope
