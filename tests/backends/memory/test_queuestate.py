"""The moves that all verbs share."""

from __future__ import annotations

import pytest

from aiopatterns.backends.memory.home import MemoryHome
from aiopatterns.backends.memory.queueintake import enqueue
from aiopatterns.backends.memory.queuestate import State
from aiopatterns.backends.queue import Bucket, NewJob, Outcome, UniqueKey


@pytest.fixture
def state() -> State:
    return State(MemoryHome())


def states(state: State, *ids: str) -> list[str]:
    return [state.state(each, 0) for each in ids]


def test_an_end_frees_the_key_keeps_the_outcome_and_tells_dependents(state):
    enqueue(
        state,
        [NewJob("a", b"", keep=9.0, unique=UniqueKey("k")), NewJob("b", b"", after=("a",))],
        0,
    )
    job = state.jobs["a"]
    state.withdraw(job)
    state.end(job, "done", b"r", 0, tries=1)
    assert state.unique.holder("k") is None
    assert state.kept.outcome("a", 0) == Outcome("done", b"r", 1)
    assert states(state, "a", "b") == ["done", "waiting"]
    assert not state.work_off(0)
    assert states(state, "b") == ["queued"]


def test_a_bad_end_cascades(state):
    enqueue(
        state, [NewJob("a", b""), NewJob("b", b"", after=("a",)), NewJob("c", b"", after=("b",))], 0
    )
    job = state.jobs["a"]
    state.withdraw(job)
    state.end(job, "dead", b"why", 0, tries=1)
    assert not state.work_off(0)
    assert states(state, "a", "b", "c") == ["dead", "unknown", "unknown"]
    assert state.jobs == {}


def test_a_cascade_is_worked_off_in_portions(state, monkeypatch):
    monkeypatch.setattr("aiopatterns.backends.memory.queuestate._DEPENDENTS", 3)
    enqueue(state, [NewJob("a", b""), *(NewJob(f"k{n}", b"", after=("a",)) for n in range(7))], 0)
    job = state.jobs["a"]
    state.withdraw(job)
    state.end(job, "done", b"", 0, tries=1)
    left = [state.work_off(0) for _ in range(3)]
    assert left == [True, True, False]
    assert len(list(state.places.in_lanes())) == 7


def test_until_its_dependents_are_told_an_id_is_known(state):
    enqueue(state, [NewJob("a", b""), NewJob("b", b"", after=("a",))], 0)
    job = state.jobs["a"]
    state.withdraw(job)
    state.end(job, "done", b"", 0, tries=1)
    assert state.is_known("a", 0)
    state.work_off(0)
    assert not state.is_known("a", 0)


@pytest.mark.parametrize(
    "job",
    [
        NewJob("a", b""),
        NewJob("a", b"", delay=5.0),
        NewJob("a", b"", after=("first",)),
        NewJob("a", b"", limits=(Bucket("b", None, 1),)),
    ],
)
def test_a_job_can_be_taken_out_of_any_place(state, job):
    enqueue(state, [NewJob("first", b"", limits=(Bucket("b", None, 1),))], 0)
    first = state.places.take(0, 1)[0]
    assert state.limits.admit(first, 0)
    enqueue(state, [job], 0)
    made = state.jobs["a"]
    if job.limits:
        assert not state.limits.admit(state.places.take(0, 1)[0], 0)
    state.withdraw(made)
    state.end(made, "cancelled", b"", 0, tries=0)
    assert list(state.jobs) == ["first"]
    assert not any((state.edges.waiting, state.limits.parked, state.places.scheduled))


def test_a_requeued_letter_starts_anew(state):
    enqueue(state, [NewJob("a", b"body", after=("gone",))], 0)
    job = state.jobs["a"]
    state.withdraw(job)
    state.end(job, "dead", b"why", 0, tries=5)
    assert state.requeue(["a", "a", "unknown"], 0) == 1
    assert states(state, "a") == ["queued"]
    assert (state.jobs["a"].tries, state.jobs["a"].body) == (0, b"body")
    assert state.kept.letters == {}
