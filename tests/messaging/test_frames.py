"""Frames: what was packed opens again, and any other bytes are refused by one kind of error."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiopatterns.core.errors import CodecError, UnknownVersionError
from aiopatterns.messaging.frames import (
    Delivery,
    Outcome,
    Reply,
    open_frame,
    pack_delivery,
    pack_reply,
)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=300), st.binary())
def test_a_delivery_opens_to_what_was_packed(numbers: list[int], envelope: bytes):
    assert open_frame(pack_delivery(numbers, envelope)) == Delivery(tuple(numbers), envelope)


@given(st.integers(0, 2**64 - 1), st.sampled_from(Outcome), st.binary())
def test_a_reply_opens_to_what_was_packed(number: int, outcome: Outcome, body: bytes):
    assert open_frame(pack_reply(number, outcome, body)) == Reply(number, outcome, body)


@pytest.mark.promise("messaging-wire-format")
def test_the_bytes_stay_as_they_are():
    assert pack_delivery([7], b"rest") == b"\x01\x00\x01\x00\x00\x00\x07rest"
    assert pack_delivery([7, 258], b"") == b"\x01\x00\x02\x00\x00\x00\x07\x00\x00\x01\x02"
    assert pack_reply(5, Outcome.ERROR, b"!") == b"\x02\x00\x00\x00\x00\x00\x00\x00\x05\x01!"


@pytest.mark.promise("messaging-decoders")
@given(st.binary(max_size=40))
@example(b"")
@example(b"\x01")
@example(b"\x01\x00\x00")
@example(b"\x01\x00\x02\x00\x00\x00\x01")
@example(b"\x02\x00\x00\x00\x00\x00\x00\x00\x05")
@example(b"\x02\x00\x00\x00\x00\x00\x00\x00\x05\x03")
@example(b"\x03rest")
def test_any_bytes_open_or_raise_one_kind_of_error(data: bytes):
    try:
        frame = open_frame(data)
    except CodecError as error:
        newer = data[:1] not in (b"\x01", b"\x02") or (data[:1] == b"\x02" and len(data) >= 10)
        assert isinstance(error, UnknownVersionError) == newer
    else:
        assert isinstance(frame, Delivery | Reply)
