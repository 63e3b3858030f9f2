"""Any bytes decode or raise CodecError, and what was written once stays readable."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core import clock
from aiopatterns.core.codec import JSON, MSGPACK, VERSION, Header, checked_codec, pack, unpack
from aiopatterns.core.context import bind_correlation, bind_deadline
from aiopatterns.core.errors import CodecError, UnknownVersionError

GOLDEN = sorted((Path(__file__).parent / "golden").glob("header-*.json"))
codecs = pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])


@dataclass
class Order:
    id: int
    lines: list[str]
    paid: bool = False


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
texts = st.none() | st.text(min_size=1)
seconds = st.none() | st.floats(0, 1e9)
headers = st.builds(Header, texts, texts, seconds, seconds, st.integers(0, 99))


@codecs
@given(plain)
def test_values_come_back(codec, value):
    assert codec.decode(codec.encode(value)) == value


@codecs
def test_a_codec_is_whatever_has_its_parts(codec):
    assert checked_codec(codec) is codec
    half: Any = type("Half", (), {"name": "half", "encode": bytes})
    wrongs: list[Any] = [half, 3, "json"]
    for wrong in wrongs:
        with pytest.raises(TypeError, match="codec must be a codec such as JSON or MSGPACK, not"):
            checked_codec(wrong)


@codecs
def test_typed_values_come_back(codec):
    order = Order(17, ["tea"], paid=True)
    assert codec.decode(codec.encode(order), Order) == order
    assert codec.decode(codec.encode((b"x", {1})), tuple[bytes, set[int]]) == (b"x", {1})
    assert codec.decoder(int | None)(codec.encode(None)) is None
    assert codec.decoder(Order) is codec.decoder(Order)


@pytest.mark.promise("core-decoders")
@codecs
@pytest.mark.parametrize("kind", [None, Order, dict[str, int], list[float], bytes], ids=str)
@given(st.binary(max_size=60))
def test_any_bytes_decode_or_raise_one_error(codec, kind, data):
    try:
        codec.decode(data) if kind is None else codec.decode(data, kind)
    except CodecError as error:
        assert error.__cause__ is not None


@codecs
@given(plain, st.data())
def test_damaged_bytes_decode_or_raise_one_error(codec, value, data):
    good = bytearray(codec.encode(value))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] = data.draw(st.integers(0, 255))
    for damaged in (bytes(good), bytes(good[:at])):
        with suppress(CodecError):
            codec.decode(damaged)


@codecs
def test_bottomless_nesting_is_an_error(codec):
    data = b"[" * 100_000 if codec is JSON else b"\x91" * 100_000
    with pytest.raises(CodecError, match="recursion"):
        codec.decode(data)
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(CodecError, match="cannot encode list"):
        codec.encode(endless)


@codecs
@pytest.mark.parametrize(
    "value", [object(), "\ud800", {object(): 1}], ids=["object", "text", "key"]
)
def test_what_cannot_be_encoded_is_an_error(codec, value):
    with pytest.raises(CodecError, match=f"as {codec.name}"):
        codec.encode(value)


def test_errors_name_format_and_type():
    with pytest.raises(CodecError, match=r"^not a json Order: .*`\$\.id`"):
        JSON.decode(b'{"id": "x", "lines": []}', Order)
    with pytest.raises(CodecError, match=r"^not a msgpack value"):
        MSGPACK.decode(b"\xc1")
    with pytest.raises(CodecError, match=r"^not a json int \| None"):
        JSON.decode(b"{}", int | None)


@codecs
@pytest.mark.promise("core-bad-input")
def test_a_type_that_cannot_be_made_is_refused(codec):
    with pytest.raises(TypeError):
        codec.decoder(set[list[int]] | list[int] | tuple[int])


@given(headers, st.binary())
def test_headers_come_back(header, payload):
    assert unpack(pack(header, payload)) == (header, payload)


@pytest.mark.promise("core-decoders")
@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda rest: bytes((VERSION, 0)) + rest))
def test_any_bytes_are_a_header_or_one_error(data):
    try:
        header, payload = unpack(data)
    except CodecError:
        return
    assert isinstance(header, Header)
    assert isinstance(payload, bytes)


@given(headers, st.data())
def test_every_truncation_of_a_header_is_an_error(header, data):
    whole = pack(header, b"")
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(CodecError, match="cut off"):
        unpack(whole[:cut])


@pytest.mark.promise("core-wire-format")
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_what_was_written_once_stays_readable(path):
    golden = json.loads(path.read_text("utf-8"))
    header, payload = unpack(bytes.fromhex(golden["bytes"]))
    assert msgspec.structs.asdict(header) == golden["header"]
    assert payload == bytes.fromhex(golden["payload"])


@pytest.mark.promise("core-wire-format")
@pytest.mark.parametrize(
    "path", [path for path in GOLDEN if f"-v{VERSION}-" in path.name], ids=lambda path: path.stem
)
def test_the_wire_format_changes_only_with_its_version(path):
    golden = json.loads(path.read_text("utf-8"))
    if golden["canonical"]:
        written = pack(Header(**golden["header"]), bytes.fromhex(golden["payload"]))
        assert written.hex() == golden["bytes"]


def test_there_are_golden_files_of_this_version_and_the_one_before():
    versions = {json.loads(path.read_text("utf-8"))["bytes"][:2] for path in GOLDEN}
    assert versions >= {f"{version:02x}" for version in range(max(1, VERSION - 1), VERSION + 1)}


@pytest.mark.parametrize("version", [0, VERSION + 1, 255])
def test_another_version_is_named(version):
    data = bytes((version,)) + pack(Header(), b"")[1:]
    with pytest.raises(UnknownVersionError) as caught:
        unpack(data)
    assert caught.value.version == version


def test_a_header_has_a_size():
    with pytest.raises(CodecError, match="at most 65535 bytes"):
        pack(Header(correlation_id="x" * 70_000), b"")


def test_a_header_takes_what_is_bound_here():
    with bind_correlation("abc"), bind_deadline(clock.monotonic() + 5):
        header = Header.here(sent_at=100.0, traceparent="00-1-2-01", hops=3)
    assert (header.correlation_id, header.traceparent, header.hops) == ("abc", "00-1-2-01", 3)
    assert header.sent_at == 100.0
    assert header.remaining == pytest.approx(5, abs=0.1)
    with bind_deadline(clock.monotonic() - 5):
        assert Header.here().remaining == 0.0
    assert Header.here() == Header()


def test_a_deadline_is_what_remains_less_the_time_on_the_way():
    def left(header, now=None):
        return header.deadline(now) - clock.monotonic()

    sent = Header(remaining=10.0, sent_at=100.0)
    assert left(sent, 104.0) == pytest.approx(6.0, abs=0.1)
    assert left(sent, 90.0) == pytest.approx(10.0, abs=0.1)  # a clock behind lengthens nothing
    assert left(sent, 200.0) == pytest.approx(-90.0, abs=0.1)
    assert left(sent) == pytest.approx(10.0, abs=0.1)
    assert left(Header(remaining=10.0), 104.0) == pytest.approx(10.0, abs=0.1)
    assert Header().deadline(104.0) is None


@pytest.mark.promise("core-bad-input")
@pytest.mark.parametrize(
    ("fields", "error", "match"),
    [
        ({"correlation_id": ""}, ValueError, "correlation_id must be a non-empty string"),
        ({"traceparent": 5}, TypeError, "traceparent must be a non-empty string"),
        ({"remaining": -1.0}, ValueError, "remaining must be a finite number >= 0"),
        ({"remaining": math.nan}, ValueError, "remaining must be"),
        ({"sent_at": math.inf}, ValueError, "sent_at must be"),
        ({"hops": -1}, ValueError, "hops must be a whole number >= 0"),
        ({"hops": 1.5}, TypeError, "hops must be a whole number"),
    ],
    ids=str,
)
def test_senseless_headers_are_refused_on_both_sides(fields, error, match):
    with pytest.raises(error, match=match):
        Header(**fields)
    values = {"correlation_id": None, "traceparent": None, "remaining": None, "sent_at": None}
    block = msgspec.msgpack.encode([*({**values, "hops": 0} | fields).values()])
    with pytest.raises(CodecError):
        unpack(bytes((VERSION, 0, len(block))) + block)


def test_a_codec_is_written_as_it_is_imported():
    assert (repr(JSON), repr(MSGPACK)) == ("JSON", "MSGPACK")
