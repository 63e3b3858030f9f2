from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.backends.records import (
    ANYTHING,
    DELETE,
    Anything,
    Change,
    Claimed,
    Delete,
    Entry,
    GroupTurn,
    Members,
    Notice,
    PendingEntry,
)


def test_a_mark_is_one_thing_also_after_a_journey():
    assert DELETE is Delete.DELETE
    assert ANYTHING is Anything.ANYTHING
    assert pickle.loads(pickle.dumps(DELETE)) is DELETE
    assert pickle.loads(pickle.dumps(ANYTHING)) is ANYTHING


def test_a_change_expects_nothing_unless_it_says_so():
    """None would mean that the key must be absent."""
    assert Change("k", b"v") == ("k", b"v", ANYTHING, None, None, None, None)


def test_ids_are_ordered_by_their_numbers():
    ids = ["9-0", "10-0", "9-10", "9-9", "7"]
    entries = sorted((Entry(each, b"") for each in ids), key=lambda each: each.sort_key)
    assert [each.id for each in entries] == ["7", "9-0", "9-9", "9-10", "10-0"]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_sort_key_is_what_the_id_says(first, second):
    assert Entry(f"{first}-{second}", b"").sort_key == (first, second)


def test_an_empty_turn_asks_for_nothing():
    turn = GroupTurn()
    assert (turn.limit, turn.delete, turn.idle) == (0, False, 30.0)
    assert not any((turn.acks, turn.releases, turn.retries, turn.buried, turn.renews))


def test_records_are_tuples():
    assert Notice("c", b"d") == ("c", b"d")
    assert Members(3, {"a": b""}) == (3, {"a": b""})
    assert Claimed("1-0", b"", 2) == ("1-0", b"", 2)
    assert PendingEntry("1-0", "c", 0.5, 2) == ("1-0", "c", 0.5, 2)
