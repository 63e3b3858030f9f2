"""What workers do to jobs: the parts that the conformance suite and the comparison do not see."""

from __future__ import annotations

import math

import pytest

from aiopatterns.backends.memory import queuemachine
from aiopatterns.backends.memory.home import MemoryHome
from aiopatterns.backends.memory.queueintake import enqueue
from aiopatterns.backends.memory.queuejob import Holder
from aiopatterns.backends.memory.queuemachine import Machine
from aiopatterns.backends.memory.queuestate import State
from aiopatterns.backends.queue import Bucket, NewJob, Settled, Turn


@pytest.fixture
def state() -> State:
    return State(MemoryHome())


@pytest.fixture
def machine(state) -> Machine:
    return Machine(state)


def test_what_a_limit_holds_back_is_looked_at_in_portions(state, machine, monkeypatch):
    monkeypatch.setattr(queuemachine, "_EXAMINED", 4)
    bucket = Bucket("one", None, 1)
    enqueue(state, [NewJob(f"j{n:02}", b"", limits=(bucket,)) for n in range(20)], 0)
    first = machine.step(Turn("w", 1, 15.0, (), 3), 0)
    assert len(first.claimed) == 1
    assert first.more
    number = 1
    while machine.step(Turn("w", number := number + 1, 15.0, (), 3), 0).more:
        assert number < 20
    assert len(state.limits.parked) == 19


def test_workers_are_taken_back_two_at_a_time(state, machine):
    for n in range(5):
        enqueue(state, [NewJob(f"j{n}", b"", attempts=2)], 0)
        machine.step(Turn(f"w{n}", 1, 1.0 + n, (), 1), 0)
    answers = [machine.step(Turn("look", n, 60.0), 10_000) for n in (1, 2, 3)]
    assert [each.more for each in answers] == [True, True, False]
    assert list(machine.holders) == ["look"]
    assert len(state.places.suspects) == 5


def test_due_jobs_are_promoted_in_portions(state, machine, monkeypatch):
    monkeypatch.setattr(queuemachine, "_PROMOTED", 2)
    enqueue(state, [NewJob(f"j{n}", b"", delay=1.0) for n in range(3)], 0)
    first = machine.step(Turn("w", 1, 60.0), 1_000)
    assert first.more
    assert len(list(state.places.in_lanes())) == 2


def test_a_crowd_leaves_in_portions(state, machine, monkeypatch):
    monkeypatch.setattr(queuemachine, "MAX_BATCH", 2)
    enqueue(state, [NewJob(f"j{n}", b"") for n in range(3)], 0)
    machine.step(Turn("w", 1, 60.0, (), 3), 0)
    assert machine.step(Turn("w", 2, 60.0, leave=True), 0).more
    assert "w" in machine.holders
    machine.step(Turn("w", 3, 60.0, leave=True), 0)
    assert machine.holders == {}
    assert [job.id for job in state.places.in_lanes()] == ["j2", "j0", "j1"]


def test_a_job_given_back_that_was_to_be_cancelled_ends(state, machine):
    ids = ["release", "retry", "leave", "crash"]
    enqueue(state, [NewJob(each, b"", keep=9.0, attempts=9) for each in ids], 0)
    machine.step(Turn("w", 1, 60.0, (), 4), 0)
    for each in ids:
        assert machine.cancel(each, 0) == ("running", "w")
    settled = [Settled("release", "release"), Settled("retry", "retry")]
    assert sorted(machine.step(Turn("w", 2, 60.0, settled), 0).cancels) == ["crash", "leave"]
    state.jobs["crash"].holder.held.pop("crash")  # it goes on at another worker, which dies
    other = Holder("dead")
    other.held["crash"] = state.jobs["crash"]
    machine.holders["dead"] = other
    machine._soonest = 0
    machine.step(Turn("w", 3, 60.0, leave=True), 0)
    assert [state.state(each, 0) for each in ids] == ["cancelled"] * 4


def test_an_appointment_ends_with_its_worker(state, machine):
    enqueue(state, [NewJob("poison", b"", attempts=9), NewJob("a", b""), NewJob("b", b"")], 0)
    machine.step(Turn("dead", 1, 1.0, (), 1), 0)
    machine.step(Turn("v", 1, 60.0, (), 1), 0)
    machine.step(Turn("w", 1, 60.0, (), 1), 0)
    assert machine.step(Turn("v", 2, 60.0, (), 1), 2_000).quarantine
    assert not machine.step(Turn("w", 2, 60.0, (), 1), 2_000).quarantine
    machine.step(Turn("v", 3, 60.0, leave=True), 2_000)
    assert machine.step(Turn("w", 3, 60.0, (), 1), 2_000).quarantine
    assert machine.idle("w", 2_000) == (True, math.inf)


def test_suspects_that_a_limit_holds_back_stay_suspects(state, machine):
    bucket = Bucket("one", None, 1)
    enqueue(state, [NewJob("poison", b"", attempts=9, limits=(bucket,))], 0)
    machine.step(Turn("dead", 1, 1.0, (), 1), 0)
    machine.step(Turn("look", 1, 60.0), 2_000)
    enqueue(state, [NewJob("other", b"", 9, limits=(bucket,))], 2_000)
    state.places.suspects, kept = [], state.places.suspects
    machine.step(Turn("busy", 1, 60.0, (), 1), 2_000)
    state.places.suspects = kept
    assert machine.step(Turn("w", 1, 60.0, (), 1), 2_000).claimed == []
    assert list(state.limits.parked) == ["poison"]
    machine.step(Turn("busy", 2, 60.0, [Settled("other", "done")]), 2_000)
    (job,) = machine.step(Turn("w", 2, 60.0, (), 5), 2_000).claimed
    assert job.alone
    assert machine.step(Turn("w", 3, 60.0, (), 5), 2_000).claimed == []


def test_an_idle_worker_looks_when_the_first_lease_of_another_ends(machine):
    assert machine.idle("w", 0) == (False, math.inf)
    machine.step(Turn("w", 1, 1.0, (), 1), 0)
    assert machine.idle("w", 0) == (False, math.inf)
    machine.step(Turn("v", 1, 2.0, (), 1), 0)
    assert machine.idle("w", 500) == (False, 1.5)
    assert machine.idle("w", 5_000) == (False, 0.0)
