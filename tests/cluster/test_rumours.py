"""Broadcasts: known once, kept for a while, found to be lacking."""

from __future__ import annotations

from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster import rumours as module
from aiopatterns.cluster.messages import Have, Rumour, piece
from aiopatterns.cluster.rumours import KEEP, KEEP_BYTES, KEEP_COUNT, MAX_BEYOND, Rumours


def rumour(number: int, *, origin: str = "b", epoch: int = 1, payload: bytes = b"x") -> Rumour:
    return Rumour(origin, epoch, number, payload)


def having(*numbers: int) -> Rumours:
    kept = Rumours("a", 1)
    for number in numbers:
        kept.note(rumour(number), 0.0)
    return kept


def test_own_broadcasts_are_numbered_and_known():
    kept = Rumours("a", 17)
    kept.mine(b"one", 0.0)
    kept.mine(b"two", 0.0)
    assert kept.knows(Rumour("a", 17, 1, b"one"))
    assert not kept.knows(Rumour("a", 17, 3, b""))
    assert kept.digest() == [Have("a", 17, 2, [])]
    assert kept.news.take(1_000, 4) == [
        piece(Rumour("a", 17, 1, b"one")),
        piece(Rumour("a", 17, 2, b"two")),
    ]


def test_runs_of_one_node_are_told_apart():
    kept = having(1)
    assert kept.knows(rumour(1))
    assert not kept.knows(rumour(1, epoch=2))
    assert not kept.knows(rumour(1, origin="c"))


def test_gaps_are_remembered_and_closed():
    kept = having(1, 2, 5, 4)
    assert kept.digest() == [Have("b", 1, 2, [4, 5])]
    assert not kept.knows(rumour(3))
    kept.note(rumour(3), 0.0)
    assert kept.digest() == [Have("b", 1, 5, [])]


def test_a_gap_with_too_much_beyond_it_is_given_up():
    kept = having(*range(3, MAX_BEYOND + 3))
    assert kept.digest()[0].upto == 0
    kept.note(rumour(MAX_BEYOND + 10), 0.0)
    assert kept.digest() == [Have("b", 1, MAX_BEYOND + 2, [MAX_BEYOND + 10])]
    assert kept.knows(rumour(1))  # it will not come any more


def test_many_gaps_at_once_are_given_up_in_one_go():
    """One by one it would take minutes of such digests as fit into one exchange."""
    kept = Rumours("a", 1)
    many = [Have(f"n{number}", 1, 0, list(range(2, 20_000, 2))) for number in range(20)]
    began = perf_counter()
    assert kept.lacking(many) == []
    kept.adopt(many)
    assert perf_counter() - began < 5
    assert {len(each.beyond) for each in kept.digest()} == {MAX_BEYOND}


def test_one_finds_what_the_other_lacks():
    kept = having(1, 2, 3, 4)
    assert [each.number for each in kept.lacking([])] == [1, 2, 3, 4]
    assert [each.number for each in kept.lacking([Have("b", 1, 1, [3])])] == [2, 4]
    assert [each.number for each in kept.lacking([Have("b", 1, 1), Have("b", 1, 2)])] == [3, 4]
    assert kept.lacking(having(1, 2, 3, 4).digest()) == []


def test_who_joins_takes_what_was_said_for_known():
    new = having(2)
    new.adopt([Have("b", 1, 3, [5]), Have("c", 7, 1)])
    assert new.digest() == [Have("b", 1, 3, [5]), Have("c", 7, 1, [])]
    new.adopt([Have("b", 1, 0, list(range(10, 10 + MAX_BEYOND + 5)))])
    assert len(new.digest()[0].beyond) + len(new.digest()[1].beyond) <= MAX_BEYOND


def test_what_is_old_is_dropped_and_stays_known():
    kept = having(1)
    kept.note(rumour(2), KEEP)
    kept.forget(KEEP + 1)
    assert (len(kept), kept.knows(rumour(1))) == (1, True)
    assert [each.number for each in kept.lacking([])] == [2]


def test_the_store_is_bounded_in_number_and_bytes():
    kept = having(*range(1, KEEP_COUNT + 10))
    assert len(kept) == KEEP_COUNT
    assert kept.lacking([])[0].number == 10
    large = Rumours("a", 1)
    for number in range(1, 100):
        large.note(rumour(number, payload=bytes(1 << 15)), 0.0)
    assert len(large) == KEEP_BYTES >> 15


def test_what_is_no_longer_kept_is_not_told_any_more():
    kept = having(*range(1, KEEP_COUNT + 10))
    assert len(kept.news) == KEEP_COUNT
    kept.forget(KEEP + 1)
    assert (len(kept), len(kept.news)) == (0, 0)


@pytest.mark.parametrize(
    ("number", "payload"), [(KEEP_COUNT, b"x"), (KEEP_BYTES >> 15, bytes(1 << 15))]
)
def test_it_is_crowded_while_one_more_would_push_out_one_that_is_still_told(number, payload):
    kept = Rumours("a", 1)
    for _ in range(number - 1):
        kept.mine(payload, 0.0)
    assert not kept.crowded
    kept.mine(payload, 0.0)
    assert kept.crowded
    while kept.news:
        kept.news.take(1 << 16, 2)
    assert not kept.crowded


def test_runs_are_bounded_and_the_most_silent_goes(monkeypatch):
    monkeypatch.setattr(module, "MAX_RUNS", 3)
    kept = Rumours("a", 1)
    for origin in "bcdb":
        kept.note(rumour(1 if origin != "b" else len(kept) + 1, origin=origin), 0.0)
    kept.note(rumour(1, origin="e"), 0.0)
    assert [have.origin for have in kept.digest()] == ["d", "b", "e"]


@pytest.mark.promise("cluster-peer-broadcast")
@given(st.lists(st.lists(st.integers(1, 12), max_size=20), min_size=2, max_size=2))
def test_two_that_exchange_know_the_same_and_each_is_new_once(numbers):
    left, right = (having(*dict.fromkeys(each)) for each in numbers)
    for here, there in ((left, right), (right, left)):
        for each in there.lacking(here.digest()):
            assert not here.knows(each)
            here.note(each, 0.0)
    wanted = set(numbers[0]) | set(numbers[1])
    for kept in (left, right):
        assert {number for number in range(1, 13) if kept.knows(rumour(number))} == wanted
    assert left.digest() == right.digest()
