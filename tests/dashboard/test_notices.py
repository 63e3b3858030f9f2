from __future__ import annotations

from aiopatterns.dashboard.notices import told
from aiopatterns.dashboard.overview import Overview
from tests.dashboard.views import overview, owner, queue, worker


def lines(before: Overview, now: Overview) -> list[tuple[str, str, str]]:
    return [(each.level, each.event, each.source) for each in told(before, now)]


def test_the_first_look_and_no_change_tell_nothing():
    seen = overview(queues=[queue("a")], workers=[worker("1")], owners=[owner("2", "open")])
    assert told(None, seen) == []
    assert told(seen, seen) == []


def test_workers_come_and_go():
    before, now = overview(workers=[worker("1")]), overview(7.0, workers=[worker("2")])
    assert lines(before, now) == [
        ("info", "worker.joined", "h 1"),
        ("warning", "worker.left", "h 1"),
    ]
    assert {each.at for each in told(before, now)} == {7.0}


def test_queues_are_found_paused_deserted_and_lose_jobs():
    before = overview(queues=[queue("a", dead=1)])
    now = overview(queues=[queue("a", dead=4, paused=True, workers=0), queue("b")])
    assert lines(before, now) == [
        ("warning", "queue.paused", "a"),
        ("error", "queue.dead_letters", "a"),
        ("error", "queue.deserted", "a"),
        ("info", "queue.seen", "b"),
    ]
    assert "3 more dead letters in queue a, 4 in all" in [each.text for each in told(before, now)]
    assert lines(now, before) == [("info", "queue.resumed", "a")]


def test_a_state_that_changes_is_told():
    before = overview(
        owners=[owner("1", "closed"), owner("2", "open"), owner("3", 7), owner("4", None)]
    )
    now = overview(
        owners=[owner("1", "open"), owner("2", "half_open"), owner("3", "open"), owner("5", "open")]
    )
    assert lines(before, now) == [
        ("warning", "breaker.open", "h 1"),
        ("info", "breaker.half_open", "h 1"),
    ]
