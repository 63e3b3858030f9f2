"""How jobs come in: recognised, refused a second time, or placed."""

from __future__ import annotations

import pytest

from aiopatterns.backends.memory.home import MemoryHome
from aiopatterns.backends.memory.queueintake import enqueue
from aiopatterns.backends.memory.queuestate import State
from aiopatterns.backends.queue import Bucket, Enqueued, NewJob, UniqueKey


@pytest.fixture
def state() -> State:
    return State(MemoryHome())


def test_a_known_id_makes_nothing(state):
    assert enqueue(state, [NewJob("a", b"1"), NewJob("a", b"2")], 0) == [
        Enqueued("a", True),
        Enqueued("a", False),
    ]
    assert state.jobs["a"].body == b"1"


def test_a_time_may_be_absolute(state):
    enqueue(state, [NewJob("past", b"", at=1.0), NewJob("future", b"", delay=9.0, at=3.0)], 2_000)
    assert state.state("past", 0) == "queued"
    assert state.places.scheduled["future"].at == 3_000


def test_dependents_of_what_ended_badly_never_start(state):
    enqueue(state, [NewJob("a", b"", keep=9.0)], 0)
    job = state.jobs["a"]
    state.withdraw(job)
    state.end(job, "cancelled", b"", 0, tries=0)
    (answer,) = enqueue(state, [NewJob("b", b"", keep=9.0, after=("a",), unique=UniqueKey("k"))], 0)
    assert answer.created
    assert state.state("b", 0) == "cancelled"
    assert state.unique.holder("k") is None


def test_a_parent_whose_dependents_are_not_all_told_yet_counts_as_it_ended(state):
    for name, well in (("good", "done"), ("bad", "dead")):
        enqueue(state, [NewJob(name, b""), NewJob(f"kid of {name}", b"", after=(name,))], 0)
        job = state.jobs[name]
        state.withdraw(job)
        state.end(job, well, b"", 0, tries=1)
    enqueue(
        state, [NewJob("x", b"", after=("good",)), NewJob("y", b"", keep=1.0, after=("bad",))], 0
    )
    assert state.state("x", 0) == "queued"
    assert state.state("y", 0) == "cancelled"


@pytest.mark.parametrize("other", ["drop", "throttle"])
def test_modes_that_replace_do_not_change_a_job_of_another_mode(state, other):
    enqueue(state, [NewJob("a", b"1", unique=UniqueKey("k", other))], 0)
    for mode in ("debounce", "keep_last"):
        (answer,) = enqueue(state, [NewJob("b", b"2", delay=9.0, unique=UniqueKey("k", mode))], 0)
        assert answer == Enqueued("a", False)
    assert state.jobs["a"].body == b"1"
    assert state.state("a", 0) == "queued"


def test_a_debounced_job_is_postponed_wherever_it_is(state):
    key = UniqueKey("k", "debounce", 5.0)
    enqueue(state, [NewJob("parent", b""), NewJob("a", b"1", after=("parent",), unique=key)], 0)
    enqueue(state, [NewJob("b", b"2", unique=key)], 3_000)
    assert (state.jobs["a"].at, state.jobs["a"].body) == (8_000, b"2")
    state.withdraw(parent := state.jobs["parent"])
    state.end(parent, "done", b"", 9_000, tries=1)
    state.work_off(9_000)
    assert state.state("a", 0) == "queued"
    enqueue(state, [NewJob("c", b"3", unique=key)], 9_000)
    assert (state.places.scheduled["a"].at, state.jobs["a"].body) == (14_000, b"3")


def test_a_debounced_job_without_delay_keeps_its_place(state):
    key = UniqueKey("k", "debounce")
    enqueue(
        state, [NewJob("a", b"1", unique=key), NewJob("b", b""), NewJob("c", b"2", unique=key)], 0
    )
    assert [(job.id, job.body) for job in state.places.in_lanes()] == [("a", b"2"), ("b", b"")]


def test_a_postponed_job_passes_its_offer_on(state):
    bucket, key = Bucket("one", None, 1), UniqueKey("k", "debounce", 5.0)
    enqueue(state, [NewJob("first", b"", limits=(bucket,))], 0)
    first = state.places.take(0, 1)[0]
    assert state.limits.admit(first, 0)
    enqueue(state, [NewJob("a", b"", limits=(bucket,), unique=key._replace(window=0.0))], 0)
    enqueue(state, [NewJob("next", b"", limits=(bucket,))], 0)
    for job in state.places.take(0, 2):
        assert not state.limits.admit(job, 0)
    state.limits.free(first)
    state.limits.flush()
    assert state.state("a", 0) == "queued"
    enqueue(state, [NewJob("again", b"", unique=key)], 0)
    assert state.state("a", 0) == "scheduled"
    assert [job.id for job in state.places.in_lanes()] == ["next"]
