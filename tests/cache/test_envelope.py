"""Envelopes: what was sealed comes back, and nothing else does."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cache.envelope import (
    Envelope,
    codec_id,
    is_tombstone,
    opened,
    sealed,
    tombstone,
    version,
)

TIMES = st.integers(0, 2**52).map(lambda ms: ms / 1_000) | st.just(math.inf)
VERSIONS = st.lists(st.tuples(st.text(max_size=9), st.binary(min_size=8, max_size=8)), max_size=4)


@st.composite
def envelopes(draw) -> Envelope:
    fresh, stale = sorted((draw(TIMES), draw(TIMES)))
    payload, cost = draw(st.none() | st.binary(max_size=99)), draw(st.floats(0, 4_000))
    return Envelope(payload, fresh, stale, cost, tuple(draw(VERSIONS)))


@given(envelopes())
def test_what_was_sealed_comes_back(envelope):
    found = opened(sealed(envelope, 2), 2)
    assert found is not None
    assert (found.payload, found.versions) == (envelope.payload, envelope.versions)
    assert found.cost == pytest.approx(envelope.cost, abs=1e-6)
    for was, now in zip(envelope[1:3], found[1:3], strict=True):
        assert now == was or was - 0.002 < now <= was  # rounded down: never longer


def test_the_form_stays_what_it_was():
    """Another release reads these bytes: they change only together with the version."""
    raw = sealed(Envelope(b"1", 1.5, 2.5, 0.25, (("t", b"VERSION8"),)), 1)
    assert raw[:2] == b"V\x01"
    assert raw[6:8] == b"\x01\x00"
    assert raw[16:].hex() == (
        "00000000000005dc00000000000009c40003d0900001000174" + b"VERSION8".hex() + "31"
    )


def test_no_two_are_alike():
    envelope = Envelope(b"1", 1, 2, 0, ())
    assert len({sealed(envelope, 1) for _ in range(1_000)}) == 1_000
    assert len({tombstone() for _ in range(1_000)}) == 1_000
    assert len({version() for _ in range(1_000)}) == 1_000


def test_extremes():
    found = opened(sealed(Envelope(b"", -5.0, math.inf, 1e9, ()), 1), 1)
    assert found is not None
    assert found.fresh_until == 0
    assert found.stale_until == math.inf
    assert found.cost == pytest.approx(4294.967295)


def test_tombstones():
    assert is_tombstone(tombstone())
    assert opened(tombstone(), 1) is None
    assert not is_tombstone(tombstone()[:-1])
    assert not is_tombstone(sealed(Envelope(None, 1, 2, 0, ()), 1))


def test_codecs_have_numbers():
    assert (codec_id("json"), codec_id("msgpack")) == (1, 2)
    assert 128 <= codec_id("mine") <= 255
    assert codec_id("mine") == codec_id("mine")
    assert opened(sealed(Envelope(b"1", 1, 2, 0, ()), 1), 2) is None


@pytest.mark.promise("cache-any-bytes")
@given(st.binary(max_size=200))
def test_any_bytes_are_no_envelope(raw):
    assert opened(raw, 1) is None
    assert opened(b"V\x01" + raw, 1) is None


@pytest.mark.promise("cache-any-bytes")
@given(envelopes(), st.data())
def test_a_damaged_envelope_is_none(envelope, data):
    raw = bytearray(sealed(envelope, 1))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    assert opened(bytes(raw), 1) is None
    assert opened(bytes(raw[:at]), 1) is None


@pytest.mark.promise("cache-any-bytes")
@given(st.binary(min_size=34, max_size=120))
def test_an_envelope_with_a_right_checksum_and_any_content_never_raises(body):
    """What a newer release, or somebody hostile, may have written."""
    from zlib import crc32

    raw = b"V\x01" + crc32(body).to_bytes(4, "big") + body
    found = opened(raw, body[0])
    assert found is None or found.fresh_until <= found.stale_until
    # Few tags, so that names and versions are read as well.
    few = body[:30] + b"\x00" + bytes([body[31] % 4]) + body[32:]
    few = few[:1] + b"\x00" + few[2:]
    opened(b"V\x01" + crc32(few).to_bytes(4, "big") + few, few[0])


@pytest.mark.promise("cache-any-bytes")
@pytest.mark.parametrize(
    "tags", [b"\x00\x01\xff" + b"VERSION8", b"\x00\x09t", b"\xff\xff", b""], ids=repr
)
def test_tags_that_are_none(tags):
    from zlib import crc32

    whole = sealed(Envelope(None, 1, 2, 0, (("t", b"VERSION8"),)), 1)
    body = whole[6 : 6 + 32] + tags
    assert len(body) == 32 + len(tags)
    assert opened(b"V\x01" + crc32(body).to_bytes(4, "big") + body, 1) is None
