"""What goes between the shared tier and a load."""

from __future__ import annotations

from aiopatterns.cache.fetched import Filled, Seen, Turn, unknown
from aiopatterns.cache.terms import MISSING, Life


def test_an_answer_that_there_is_none_keeps_what_was_seen():
    seen = Seen(b"tombstone", 7.0, {"": b"1"})
    found = unknown(seen)
    assert found.seen is seen
    assert not found.known
    assert found.value is MISSING
    assert found.life == Life(0.0, 0.0)


def test_a_fill_without_more_has_no_cost_and_no_tags():
    filled = Filled("k", Seen(None, 0.0, {}), None, Life(1.0, 2.0))
    assert (filled.value, filled.cost, filled.tags) == (None, 0.0, ())


def test_a_turn_is_given_back_by_its_token():
    turn = Turn(unknown(Seen(None, 0.0, None)), answered=False, token=b"mine")
    assert turn.token == b"mine"
    assert not turn.answered
