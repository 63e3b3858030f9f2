"""Listings: what brokers tell each other stays readable, and what cannot be read lists nothing."""

from __future__ import annotations

from aiopatterns.core.codec import MSGPACK
from aiopatterns.messaging.listing import (
    MOST,
    Listed,
    Listing,
    inbox_of,
    is_member,
    read_edition,
    read_listing,
)


def test_a_listing_is_read_as_it_was_written():
    listing = Listing(3, (Listed(1, "a.*", "g"), Listed(2, ">")))
    assert read_listing(listing.encode()) == listing
    assert listing.encode() == b"\x92\x03\x92\x94\x01\xa3a.*\xa1g\xc3\x94\x02\xa1>\xc0\xc3"


def test_fields_of_a_newer_release_are_left_out_and_missing_ones_have_defaults():
    assert read_listing(MSGPACK.encode([5, [[1, "a", None, True, "new"]], "new"])) == Listing(
        5, (Listed(1, "a"),)
    )
    assert read_listing(MSGPACK.encode([5])) == Listing(5)


def test_what_cannot_be_read_lists_nothing():
    for data in (b"", b"\xff", MSGPACK.encode({"a": 1}), MSGPACK.encode([1, [["no number"]]])):
        assert read_listing(data) == Listing()


def test_what_frames_cannot_hold_lists_nothing():
    for number in (-1, 1 << 32, 1 << 63):
        assert read_listing(MSGPACK.encode([1, [[number, "t"]]])) == Listing()
    for size, listed in ((MOST, MOST), (MOST + 1, 0)):
        data = MSGPACK.encode([1, [[number, "t"] for number in range(size)]])
        assert len(read_listing(data).subscriptions) == listed


def test_the_edition_alone():
    assert read_edition(Listing(3, (Listed(1, "t"),)).encode()) == 3
    assert read_edition(b"whatever") == 0


def test_ids_of_brokers():
    assert is_member("5f" * 12)
    assert not is_member("x" * 65)
    assert not is_member("\u00e9")


def test_an_inbox_is_found_by_the_id():
    assert inbox_of("abc") == "broker:abc"
