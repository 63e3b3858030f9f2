"""Checkpoints: what both sides remember of how far one has what the other had."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.data.checkpoint import History, note_name

NUMBERS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 99))


def test_names_of_notes_differ_for_all_pairs_and_ways():
    pairs = [("a", "b"), ("b", "a"), ("a' to 'b", "c"), ("a", "b' to 'c")]
    assert len({note_name(*pair) for pair in pairs}) == len(pairs)


def test_the_lower_number_of_a_common_session_is_sure():
    target = History().with_reached("one", 300).with_reached("two", 500)
    source = History().with_reached("one", 300).with_reached("two", 400)
    assert target.common(source) == source.common(target) == 400
    assert target.common(History({"one": 300})) == 300
    assert target.common(History({"three": 900})) == 0
    assert History().common(target) == 0


@given(left=NUMBERS, right=NUMBERS)
def test_a_start_is_never_beyond_what_both_have_noted(left, right):
    start = History(left).common(History(right))
    assert start == max(
        (min(left[key], right[key]) for key in left.keys() & right.keys()), default=0
    )


def test_the_oldest_sessions_are_forgotten():
    history = History()
    for number in range(60):
        history = history.with_reached(f"s{number}", number)
    assert list(history.reached.items()) == [(f"s{number}", number) for number in range(10, 60)]
    again = history.with_reached("s10", 99)
    assert len(again.reached) == 50
    assert list(again.reached)[-1] == "s10"


@pytest.mark.parametrize("damaged", [None, b"", b"\xff", b"\x81\xa7reached\x01"])
def test_no_note_and_a_damaged_one_are_an_empty_history(damaged):
    assert History.unpack(damaged) == History()


def test_packed_and_unpacked_it_is_the_same():
    history = History({"a": 1, "b": 2})
    assert History.unpack(history.pack()) == history
    assert list(History.unpack(history.pack()).reached) == ["a", "b"]
