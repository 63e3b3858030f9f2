"""Buckets: places, order and turns."""

from __future__ import annotations

import random

import pytest

from aiopatterns.backends.memory.home import MemoryHome
from aiopatterns.backends.memory.queuejob import Job, Place
from aiopatterns.backends.memory.queuelimits import Limits
from aiopatterns.backends.memory.queueplaces import Places
from aiopatterns.backends.queue import Bucket, NewJob
from aiopatterns.core.rate import Rate

ONE = Bucket("one", None, 1)
TWO = Bucket("two", None, 2)
SLOW = Bucket("slow", Rate(1, per=10))


class Rig:
    """Limits with a lane, taken from as a worker does."""

    def __init__(self) -> None:
        self.places = Places()
        self.limits = Limits(MemoryHome(), self.places)
        self.now = 0

    def add(self, name: str, *limits: Bucket, priority: int = 0) -> Job:
        job = Job(NewJob(name, b"", priority, limits=limits), 0)
        self.places.append(job)
        return job

    def claim(self, most: int = 9) -> list[str]:
        started = []
        for priority in range(9, -1, -1):
            while self.places.lanes[priority] and most:
                for job in self.places.take(priority, most):
                    if self.limits.admit(job, self.now):
                        job.place = Place.RUN
                        started.append(job.id)
                        most -= 1
                self.limits.flush()
        return started

    def end(self, job: Job) -> None:
        self.limits.free(job)
        self.limits.flush()


def test_those_held_back_keep_their_order():
    rig = Rig()
    jobs = [rig.add(name, ONE) for name in "abcd"]
    assert rig.claim() == ["a"]
    assert [job.id for job in rig.limits.by_order()] == ["b", "c", "d"]
    for job, follower in zip(jobs, "bcd", strict=False):
        rig.end(job)
        rig.add(f"newcomer of {follower}", ONE)
        assert rig.claim() == [follower]


def test_a_higher_priority_is_let_out_first():
    rig = Rig()
    first = rig.add("first", ONE)
    rig.claim()
    rig.add("low", ONE)
    rig.add("high", ONE, priority=9)
    assert rig.claim() == []
    rig.end(first)
    assert rig.claim() == ["high"]


def test_a_place_that_one_cannot_use_goes_to_the_next():
    """The first in line needs another bucket too, and that is full."""
    rig = Rig()
    runs_one, runs_two = rig.add("a", ONE), rig.add("b", TWO)
    other_two = rig.add("c", TWO)
    assert rig.claim() == ["a", "b", "c"]
    rig.add("both", ONE, TWO)
    rig.add("next", ONE)
    assert rig.claim() == []
    rig.end(runs_one)
    assert rig.claim() == ["next"]
    rig.end(runs_two)
    rig.end(other_two)
    assert rig.claim() == []


def test_a_cancelled_one_passes_its_offer_on():
    rig = Rig()
    first = rig.add("first", ONE)
    rig.claim()
    second, third = rig.add("second", ONE), rig.add("third", ONE)
    assert rig.claim() == []
    rig.end(first)
    assert second.place is Place.LANE
    rig.places.remove(second)
    rig.limits.offer(second)
    rig.limits.flush()
    assert rig.claim() == ["third"]
    assert third.place is Place.RUN


def test_a_cancelled_parked_one_leaves_nothing():
    rig = Rig()
    first = rig.add("first", ONE)
    rig.claim()
    second, third = rig.add("second", ONE), rig.add("third", ONE)
    rig.claim()
    rig.limits.remove(third)
    rig.limits.remove(second)
    assert rig.limits.parked == {}
    assert rig.limits._parked == {}
    rig.end(first)
    assert rig.limits._busy == {}


def test_a_raised_limit_is_used_in_full():
    rig = Rig()
    first = rig.add("first", Bucket("b", None, 1))
    rig.claim()
    for n in range(3):
        rig.add(f"j{n}", Bucket("b", None, 1 if n < 1 else 3))
    assert rig.claim() == ["j1", "j2"]
    rig.end(first)
    assert rig.claim() == []  # the first in line wants to be the only one
    assert list(rig.limits.parked) == ["j0"]


def test_a_rate_gives_turns_evenly_and_in_order():
    rig = Rig()
    jobs = [rig.add(f"j{n}", SLOW) for n in range(4)]
    assert rig.claim() == ["j0"]
    assert [(job.id, job.at) for job in rig.places.by_due()] == [
        ("j1", 10_000),
        ("j2", 20_000),
        ("j3", 30_000),
    ]
    assert all(job.turn for job in jobs[1:])
    rig.now = 10_000
    rig.places.promote(rig.now, 9)
    rig.add("newcomer", SLOW)
    assert rig.claim() == ["j1"]
    assert rig.places.scheduled["newcomer"].at == 40_000


def test_missed_turns_are_not_made_up_for():
    rig = Rig()
    for n in range(5):
        rig.add(f"j{n}", SLOW)
    assert rig.claim() == ["j0"]
    rig.now = 100_000
    rig.places.promote(rig.now, 9)
    assert rig.claim() == ["j1"]
    moved = [(job.id, job.at) for job in rig.places.by_due()]
    assert moved == [("j2", 110_000), ("j3", 120_000), ("j4", 130_000)]


def test_one_that_a_late_start_holds_up_stays_before_all_that_have_a_turn():
    rig = Rig()
    for n in range(4):
        rig.add(f"j{n}", SLOW)
    rig.claim()
    rig.now = 10_005
    rig.places.promote(rig.now, 9)
    assert rig.claim() == ["j1"]
    rig.now = 20_000
    rig.places.promote(rig.now, 9)
    assert rig.claim() == []
    assert [(job.id, job.at) for job in rig.places.by_due()] == [("j2", 20_005), ("j3", 30_000)]


def test_a_bursty_rate_lets_its_amount_start_at_once():
    rig = Rig()
    for n in range(5):
        rig.add(f"j{n}", Bucket("pair", Rate(2, per=60)))
    assert rig.claim() == ["j0", "j1"]
    assert [job.at for job in rig.places.by_due()] == [30_000, 60_000, 90_000]


def test_two_rates_are_spent_together():
    rig = Rig()
    rig.add("a", SLOW)
    rig.claim()
    rig.add("b", SLOW, Bucket("pair", Rate(2, per=60)))
    assert rig.claim() == []
    rig.limits.forget(rig.places.scheduled["b"])
    assert not rig.places.scheduled["b"].turn


@pytest.mark.promise("backends-queue-limits")
@pytest.mark.parametrize("seed", range(20))
def test_no_schedule_exceeds_a_rate(seed):
    dice = random.Random(seed)
    rig, waiting = Rig(), 0
    starts: list[int] = []
    while len(starts) < 60:
        rig.now += dice.choice([0, 100, 1_000, 7_000, 60_000])
        for _ in range(dice.randrange(4)):
            waiting += 1
            rig.add(f"j{waiting}", Bucket("pair", Rate(2, per=20)))
        rig.places.promote(rig.now, 200)
        starts += [rig.now for _ in rig.claim(dice.randrange(5))]
    for n in range(2, len(starts)):
        # Two at once, then one each ten seconds: any k + 1 starts take (k - 1) * 10 s at least.
        for m in range(n - 2):
            assert starts[n] - starts[m] >= (n - m - 1) * 10_000


@pytest.mark.promise("backends-queue-limits")
@pytest.mark.parametrize("seed", range(20))
def test_nobody_is_forgotten_and_no_bucket_overrun(seed):
    dice = random.Random(seed)
    rig, running, total, done = Rig(), [], 0, 0
    buckets = [ONE, TWO, Bucket("three", None, 3)]
    for _ in range(400):
        if total < 100:
            total += 1
            chosen = dice.sample(buckets, dice.randint(1, 2))
            rig.add(f"j{total}", *chosen, priority=dice.randrange(3))
        known = {job.id: job for job in rig.places.in_lanes()} | rig.limits.parked
        running += [
            known.get(name) or rig.limits.parked[name] for name in rig.claim(dice.randrange(4))
        ]
        for bucket in buckets:
            assert sum(bucket in job.limits for job in running) <= (bucket.concurrency or 0)
        for job in [job for job in running if dice.random() < 0.5]:
            running.remove(job)
            rig.end(job)
            done += 1
    assert total == 100
    while running:
        rig.end(running.pop())
        done += 1
        known = {job.id: job for job in rig.places.in_lanes()} | rig.limits.parked
        running += [known[name] for name in rig.claim()]
    assert done == 100
    assert rig.limits.parked == {}
