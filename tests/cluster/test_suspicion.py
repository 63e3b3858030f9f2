"""How long a suspect has."""

from __future__ import annotations

from math import log

import pytest

from aiopatterns.cluster.suspicion import CONFIRMATIONS, Suspicion


def suspicion(**change) -> Suspicion:
    return Suspicion("a", 10.0, **{"low": 2.0, "high": 5.0} | change)


def test_each_accuser_shortens_the_time_down_to_its_minimum():
    suspect = suspicion(needed=3)
    assert (suspect.accuser, suspect.deadline) == ("a", 15.0)
    for confirmations, name in enumerate("bcd", 1):
        assert suspect.confirm(name)
        share = log(confirmations + 1) / log(4)
        assert suspect.deadline == pytest.approx(15.0 - 3.0 * share)
    assert suspect.deadline == pytest.approx(12.0)


def test_the_same_accuser_and_more_than_needed_are_no_news():
    suspect = suspicion()
    assert not suspect.confirm("a")
    assert suspect.deadline == 15.0
    assert all(suspect.confirm(str(each)) for each in range(CONFIRMATIONS))
    assert not suspect.confirm("one more")
    assert suspect.deadline == pytest.approx(12.0)


def test_where_nobody_can_confirm_the_time_is_the_minimum():
    suspect = suspicion(needed=0)
    assert suspect.deadline == 12.0
    assert not suspect.confirm("b")


def test_time_in_which_this_node_was_stuck_is_given_back():
    suspect = suspicion()
    suspect.extend(4.0)
    assert suspect.deadline == 19.0
    suspect.confirm("b")
    suspect.confirm("c")
    assert suspect.deadline == pytest.approx(16.0)


def test_a_suspect_is_asked_once_more_before_its_time_is_over():
    suspect = suspicion()
    assert not suspect.last_call(13.9, 1.0)
    assert suspect.last_call(14.0, 1.0)
    assert not suspect.last_call(14.5, 1.0)
    assert suspect.deadline == 15.0


def test_nobody_is_declared_dead_before_it_could_answer():
    suspect = suspicion()
    suspect.confirm("b")
    suspect.confirm("c")
    assert suspect.last_call(12.5, 1.0)  # its time is over already
    assert suspect.deadline == 13.5
    more = suspicion()
    assert more.last_call(14.2, 1.0)
    assert more.confirm("b")  # counts, and does not take back what it was given
    assert more.deadline == 15.2
