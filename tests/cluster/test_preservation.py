"""Self-preservation: which lapses are believed, as a table of looks and against a plain model."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster import ServiceInstance
from aiopatterns.cluster.preservation import KEEP, Preservation

TTL = 10.0


def some(names: str) -> dict[str, ServiceInstance]:
    return {name: ServiceInstance("users", "localhost", 80, id=name) for name in names}


class Watched:
    """A preservation, looked at by names: ``look(at, ready, present but not ready)``."""

    def __init__(self, ratio: float = 0.85) -> None:
        self.real = Preservation(ttl=TTL, ratio=ratio)

    def look(self, at: float, ready: str, others: str = "") -> str:
        kept = self.real.look(some(ready), {*ready, *others}, now=at)
        return "".join(each.id for each in kept)


def test_one_lapse_is_believed():
    watched = Watched()
    assert watched.look(0, "abcd") == ""
    assert watched.look(1, "abc") == ""
    assert watched.real.due() == math.inf


def test_two_of_four_are_kept_until_they_come_back():
    watched = Watched()
    watched.look(0, "abcd")
    assert watched.look(1, "ab") == "cd"
    assert watched.look(2, "ab") == "cd"
    assert watched.look(3, "abd") == "c"  # 75 % are there
    assert watched.look(4, "abcd") == ""
    assert watched.real.due() == math.inf


def test_lapses_add_up_within_one_ttl_only():
    watched = Watched()
    watched.look(0, "abcdef")
    assert watched.look(1, "bcdef") == ""
    assert watched.look(1 + TTL - 0.1, "cdef") == "ab"
    watched = Watched()
    watched.look(0, "abcdef")
    assert watched.look(1, "bcdef") == ""
    assert watched.look(1 + TTL, "cdef") == ""


def test_who_says_goodbye_starts_or_drains_is_not_missed():
    watched = Watched()
    watched.look(0, "abcdef")
    assert watched.look(1, "ab", others="cdef") == ""
    assert watched.look(2, "ab") == ""  # they were not ready when they went


def test_a_goodbye_ends_being_kept():
    watched = Watched()
    watched.look(0, "abcd")
    assert watched.look(1, "a") == "bcd"
    assert watched.look(2, "a", others="c") == "bd"


def test_fewer_than_four_known_die_as_they_are_said_to():
    watched = Watched()
    watched.look(0, "abc")
    assert watched.look(1, "a") == ""


def test_at_85_percent_the_rest_is_gone():
    names = "abcdefghijklmnopqrst"  # 20
    watched = Watched()
    watched.look(0, names)
    assert watched.look(1, names[3:]) == ""  # 17 of 20
    watched = Watched()
    watched.look(0, names)
    assert watched.look(1, names[4:]) == "abcd"
    assert watched.look(2, names[3:]) == ""  # one came back
    assert watched.look(3, names[3:]) == ""


def test_newcomers_make_up_for_the_missing():
    watched = Watched()
    watched.look(0, "abcd")
    assert watched.look(1, "ab") == "cd"
    assert watched.look(2, "abefghijklmn") == ""


def test_kept_for_ten_ttl_at_most():
    watched = Watched()
    watched.look(0, "abcd")
    assert watched.look(1, "ab") == "cd"
    assert watched.real.due() == 1 + KEEP * TTL
    assert watched.look(1 + KEEP * TTL - 0.1, "ab") == "cd"
    assert watched.look(1 + KEEP * TTL, "ab") == ""
    assert watched.real.due() == math.inf


@pytest.mark.parametrize("names", ["a", "ab", "abcd"])
def test_all_gone_at_once_is_not_believed_for_a_ttl(names):
    watched = Watched()
    watched.look(0, names)
    assert watched.look(1, "") == names
    assert watched.look(1 + TTL - 0.1, "") == names
    due = 1 + (KEEP * TTL if len(names) >= 4 else TTL)
    assert watched.real.due() == due
    assert watched.look(due, "") == ""


def test_all_gone_and_the_first_back():
    watched = Watched()
    watched.look(0, "ab")
    assert watched.look(1, "") == "ab"
    assert watched.look(2, "a") == "b"
    assert watched.look(3, "ab") == ""


def test_the_last_to_say_goodbye_is_gone():
    watched = Watched()
    watched.look(0, "a")
    assert watched.look(1, "", others="a") == ""
    assert watched.look(2, "") == ""


def test_in_doubt_nobody_is_missed():
    watched = Watched()
    watched.look(0, "abc")
    assert watched.look(1, "bc") == ""
    watched.real.doubt(now=1.5)
    assert watched.look(1.5, "bc") == "a"
    assert watched.look(2, "c") == "ab"
    assert watched.real.due() == 1.5 + TTL
    # b has lapsed less than a ttl ago, but the doubt is over.
    assert watched.look(1.5 + TTL, "c") == ""
    assert watched.real.due() == math.inf


def test_a_ratio_of_0_believes_all():
    watched = Watched(ratio=0)
    watched.look(0, "abcdef")
    watched.real.doubt(now=1)
    assert watched.look(1, "") == ""


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"ttl": 0}, ValueError, "ttl must be"),
        ({"ttl": 1, "ratio": 1.1}, ValueError, "ratio must be between 0"),
        ({"ttl": 1, "ratio": "1"}, TypeError, "ratio must be"),
    ],
)
def test_bad_input(options, error, text):
    with pytest.raises(error, match=text):
        Preservation(**options)


@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 2 * TTL),
            st.sets(st.sampled_from("abcdefgh")),
            st.sets(st.sampled_from("abcdefgh")),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_what_holds_after_every_look(steps):
    watched, now, seen = Watched(), 0.0, set[str]()
    last_ready: dict[str, float] = {}
    for passed, ready, others, doubt in steps:
        now += passed
        if doubt:
            watched.real.doubt(now=now)
        kept = watched.look(now, "".join(sorted(ready)), "".join(others))
        assert sorted(kept) == list(kept)
        assert set(kept) <= seen - ready - others, "only who was ready and has no record"
        # Lapses are seen by looks, so from the last look at which one was ready, plus one step.
        assert all(now < last_ready[name] + 2 * TTL + KEEP * TTL for name in kept)
        if kept:
            assert len(ready) < 0.85 * (len(ready) + len(kept))
            assert now < watched.real.due() < math.inf
        seen |= ready
        last_ready |= dict.fromkeys(ready, now)
