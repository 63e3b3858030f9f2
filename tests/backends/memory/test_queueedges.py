"""Who waits for whom."""

from __future__ import annotations

from aiopatterns.backends.memory.queueedges import Edges
from aiopatterns.backends.memory.queuejob import Job
from aiopatterns.backends.queue import NewJob


def job(name: str) -> Job:
    return Job(NewJob(name, b""), 0)


def test_an_edge_is_counted_once():
    edges, kid = Edges(), job("kid")
    edges.add(kid, "parent", strict=True)
    edges.add(kid, "parent", strict=False)
    edges.add(kid, "other", strict=True)
    assert kid.left == 2


def test_kids_come_loose_ones_first_then_by_their_ids_in_portions():
    edges = Edges()
    for name, strict in (("b", True), ("a", True), ("c", False)):
        edges.add(job(name), "parent", strict=strict)
    edges.end("parent", well=True)
    assert edges.next_ended(2) == (True, [("c", False), ("a", True)])
    assert edges.ended == {"parent": True}
    assert edges.next_ended(2) == (True, [("b", True)])
    assert edges.ended == {}


def test_those_that_ended_badly_come_first():
    edges = Edges()
    for parent in ("a", "b"):
        edges.add(job(f"kid of {parent}"), parent, strict=True)
    edges.end("a", well=True)
    edges.end("b", well=False)
    edges.end("nobody waits for it", well=False)
    assert edges.next_ended(9) == (False, [("kid of b", True)])
    assert edges.next_ended(9) == (True, [("kid of a", True)])


def test_an_id_may_end_again_in_another_way():
    edges = Edges()
    for well in (False, True, False):
        edges.add(job("kid"), "parent", strict=True)
        edges.add(job("kid"), "other", strict=True)
        edges.end("other", well=True)
        edges.end("parent", well=well)
        assert {edges.next_ended(9)[0], edges.next_ended(9)[0]} == {well, True}


def test_a_kid_that_leaves_is_not_told_and_leaves_nothing():
    edges, kid, other = Edges(), job("kid"), job("other")
    for each in (kid, other):
        edges.add(each, "parent", strict=True)
    edges.remove(kid, ["parent", "unknown"])
    assert kid.left == 0
    edges.end("parent", well=True)
    edges.remove(other, ["parent"])
    assert edges.ended == {}
    assert edges._kids == {}


def test_what_is_outdated_does_not_pile_up():
    edges = Edges()
    for n in range(1_000, 0, -1):
        edges.add(job("kid"), f"p{n}", strict=True)
        edges.end(f"p{n}", well=True)
        edges.next_ended(9)
    assert len(edges._order) <= 1
