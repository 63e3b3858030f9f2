"""The pure core of a saga: what is to be done next, for any outcomes in any order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.codec import MSGPACK
from aiopatterns.data.sagajournal import Journal, SagaState, StepState, decide, read_journal
from aiopatterns.data.sagaplan import Plan, Step


async def nothing(_: Any) -> None:
    """Do nothing."""


def step(name: str, *after: str, pivot: bool = False, undo: bool = True) -> Step[Any]:
    return Step(name, nothing, nothing if undo else None, after, None, None, pivot)


DIAMOND = Plan[Any](1, [step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c")])
PIVOT = Plan[Any](1, [step("a"), step("p", "a", pivot=True, undo=False), step("z", "p")])


@pytest.mark.promise("data-saga-all-or-undone")
@given(st.data())
def test_for_any_outcomes_in_any_order_all_is_done_or_undone_in_reverse_order(data):
    plan, journal, busy = DIAMOND, Journal(b"", {}), set[str]()
    done: list[str] = []
    undone: list[str] = []
    while True:
        moves = decide(plan, journal, busy)
        if moves.end is not None:
            break
        for name in moves.start:
            assert all(each in done for each in plan.steps[name].after)
            assert not journal.backward
            journal.start(name)
        for name in moves.undo:
            assert not any(each in done for each in plan.following[name] if each not in undone)
        busy.update(moves.start, moves.undo)
        assert busy
        name = data.draw(st.sampled_from(sorted(busy)))
        busy.discard(name)
        if journal.notes[name].state is not StepState.STARTED:
            undone.append(name)
            journal.undone(name, StepState.COMPENSATED)
        elif (state := data.draw(st.sampled_from(["done", "failed", "unknown"]))) == "done":
            done.append(name)
            journal.done(name, 1)
        else:
            journal.failed(name, StepState(state), 1, "no")
            if state == "unknown":
                done.append(name)
    if moves.end is SagaState.COMPLETED:
        assert sorted(done) == list("abcd")
        assert not undone
    else:
        assert moves.end is SagaState.COMPENSATED
        assert sorted(undone) == sorted(done)
    assert read_journal(MSGPACK.encode(journal)) == journal


def test_what_was_under_way_when_its_process_went_is_unknown_and_undone():
    journal = Journal(b"", {})
    journal.start("a")
    journal.done("a", 1)
    journal.start("b")
    journal.take_up(DIAMOND, "gone")
    assert journal.backward
    assert journal.notes["b"].state is StepState.UNKNOWN
    assert journal.cause == "step 'b' has no known outcome: gone"
    assert decide(DIAMOND, journal, ()).undo == ["b"]


def test_behind_the_pivot_what_was_under_way_is_done_again():
    journal = Journal(b"", {})
    for name in "ap":
        journal.start(name)
        journal.done(name, 1)
    journal.start("z")
    journal.take_up(PIVOT, "gone")
    assert not journal.backward
    assert decide(PIVOT, journal, ()).start == ["z"]


def test_a_pivot_without_compensation_is_done_again_when_nobody_knows():
    journal = Journal(b"", {})
    assert not journal.is_committed(PIVOT)
    journal.start("a")
    journal.done("a", 1)
    journal.start("p")
    assert journal.is_committed(PIVOT)
    journal.take_up(PIVOT, "gone")
    assert decide(PIVOT, journal, ()).start == ["p"]


def test_what_is_stuck_is_let_go_in_the_direction_it_had():
    journal = Journal(b"", {})
    journal.start("a")
    journal.failed("a", StepState.STUCK, 3, "no")
    assert decide(PIVOT, journal, ()).end is SagaState.STUCK
    journal.release_stuck()
    assert decide(PIVOT, journal, ()).start == ["a"]
    journal.start("a")
    journal.done("a", 1)
    journal.turn_back("late")
    journal.turn_back("later")
    journal.undone("a", StepState.STUCK, "no")
    assert journal.cause == "late"
    assert decide(PIVOT, journal, ()).end is SagaState.STUCK
    journal.release_stuck()
    assert decide(PIVOT, journal, ()).undo == ["a"]


def test_nothing_is_undone_while_something_may_still_be_done():
    journal = Journal(b"", {})
    for name in "abc":
        journal.start(name)
    journal.done("a", 1)
    journal.failed("b", StepState.UNKNOWN, 1, "no")
    assert decide(DIAMOND, journal, {"c"}) == ([], [], None)


def test_outcomes_are_in_the_order_that_is_asked_for():
    journal = Journal(b"", {})
    journal.start("a")
    journal.done("a", 2)
    assert journal.outcomes(["b", "a"]) == (("b", None, 0, ""), ("a", StepState.DONE, 2, ""))
