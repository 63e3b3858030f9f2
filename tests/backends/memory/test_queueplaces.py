"""Lanes, suspects and due times."""

from __future__ import annotations

import random

from aiopatterns.backends.memory.queuejob import Job, Place
from aiopatterns.backends.memory.queueplaces import Places
from aiopatterns.backends.queue import NewJob


def job(name: str, priority: int = 0) -> Job:
    return Job(NewJob(name, b"", priority), 0)


def names(jobs) -> list[str]:
    return [each.id for each in jobs]


def test_a_lane_is_first_come_first_served_and_heads_go_first():
    places = Places()
    for name in "abc":
        places.append(job(name))
    places.push([job("x"), job("y")])
    assert names(places.take(0, 3)) == ["x", "y", "a"]
    assert names(places.take(0, 9)) == ["b", "c"]
    assert places.take(0, 1) == []
    assert not places.any_queued()


def test_lanes_are_listed_the_highest_first():
    places = Places()
    for name, priority in (("low", 0), ("high", 9), ("mid", 5)):
        places.append(job(name, priority))
    assert names(places.in_lanes()) == ["high", "mid", "low"]
    assert places.any_queued()


def test_suspects_stay_among_themselves():
    places = Places()
    for name, since in (("b", 2), ("a", 2), ("c", 1)):
        suspect = job(name)
        suspect.since = since
        (places.append if name == "a" else lambda each: places.push([each]))(suspect)
        assert suspect.place is Place.SUSPECT
    assert places.news
    assert not places.any_queued()
    assert [places.take_suspect() for _ in range(3)] == ["c", "a", "b"]


def test_whatever_waits_can_be_taken_out():
    places = Places()
    lane, due, suspect = job("lane"), job("due"), job("suspect")
    suspect.since = 7
    places.append(lane)
    places.schedule(due, 100)
    places.append(suspect)
    for each in (lane, due, suspect):
        places.remove(each)
    assert not places.any_queued()
    assert places.suspects == []
    assert places.next_due() is None


def test_what_runs_or_waits_for_others_is_in_no_place_here():
    places = Places()
    running = job("a")
    running.place = Place.RUN
    places.remove(running)


def test_due_jobs_are_promoted_in_order_of_time_lane_and_id():
    places = Places()
    for name, priority, at in (("b", 0, 5), ("a", 0, 5), ("c", 9, 5), ("d", 0, 4), ("e", 0, 6)):
        places.schedule(job(name, priority), at)
    assert names(places.by_due()) == ["d", "a", "b", "c", "e"]
    assert names(places.promote(5, 2)) == ["d", "a"]
    assert names(places.promote(5, 9)) == ["b", "c"]
    assert places.next_due() == 6
    assert names(places.in_lanes()) == ["c", "d", "a", "b"]


def test_outdated_due_times_are_dropped_and_do_not_pile_up():
    places = Places()
    one, other = job("one"), job("other")
    places.schedule(other, 10_000)
    for at in range(1_000, 0, -1):
        places.schedule(one, at)
        assert places.next_due() == at
    assert len(places._heap) <= 2 * 2 + 64 + 1
    places.remove(one)
    again = job("one")  # the same id, another job, the same time
    places.schedule(again, 1)
    assert places.promote(1, 9) == [again]
    assert places.next_due() == 10_000


def test_random_moves_keep_every_job_in_one_place():
    dice = random.Random(1)
    places, jobs = Places(), [job(f"j{n}", dice.randrange(10)) for n in range(30)]
    inside: set[str] = set()
    now = 0
    for _ in range(2_000):
        now += dice.randrange(2)
        each = dice.choice(jobs)
        if each.id in inside:
            places.remove(each)
            inside.discard(each.id)
        else:
            each.since = dice.choice([None, None, now])
            places.schedule(
                each, now + dice.randrange(9)
            ) if dice.random() < 0.5 else places.append(each)
            inside.add(each.id)
        places.promote(now, 3)
        found = [
            *names(places.in_lanes()),
            *places.scheduled,
            *(name for _, name in places.suspects),
        ]
        assert sorted(found) == sorted(inside)
