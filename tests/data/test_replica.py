"""What is known of a copy: usable with hysteresis, for a bounded age, and its breaks."""

from __future__ import annotations

from math import inf

from aiopatterns.core.clock import sleep
from aiopatterns.data.position import Position
from aiopatterns.data.replica import Follower, Replica, ReplicaBack, ReplicaLost, ReplicaStatistics
from aiopatterns.testing import capture_events, simulate
from tests.data.replicaplaces import Node


def follower(max_lag: float = 1.0, max_age: float = 2.0) -> Follower[Node]:
    return Follower(Node("copy"), router="r", max_lag=max_lag, max_age=max_age)


def test_a_node_is_a_replica():
    assert isinstance(Node("copy"), Replica)
    assert not isinstance(object(), Replica)


def test_nothing_is_known_at_first():
    copy = follower()
    assert not copy.usable
    assert not copy.is_within(inf)
    assert not copy.has(Position())
    assert copy.statistics() == ReplicaStatistics("copy", False, None, inf, 0)


def test_to_come_back_takes_half_the_lag():
    copy = follower()
    usable: list[bool] = []
    for lag in (0.9, 1.1, 0.9, 0.51, 0.5, 0.9):
        copy.measured(Position(1), lag)
        usable.append(copy.usable)
    assert usable == [True, False, False, False, True, True]


def test_events_come_once_for_each_change():
    copy = follower()
    with capture_events() as events:
        copy.measured(Position(1), 0.0)
        copy.failed(OSError("gone"))
        copy.failed(OSError("gone"))
        copy.measured(Position(1), 0.7)
        copy.measured(Position(1), 0.1)
        copy.measured(Position(1), 0.1)
        copy.measured(Position(1), 3.0)
    assert events == [
        ReplicaLost("r", "copy", "OSError('gone')"),
        ReplicaBack("r", "copy", 0.1),
        ReplicaLost("r", "copy", "it is 3 s behind"),
    ]


def test_without_listeners_it_is_the_same():
    copy = follower()
    copy.failed(OSError("gone"))
    copy.measured(Position(1), 0.1)
    assert copy.usable


def test_one_that_follows_nobody_is_never_read():
    copy = follower(max_lag=inf)
    copy.measured(Position(1), inf)
    assert not copy.usable
    assert not copy.is_within(inf)


def test_a_limit_of_ones_own():
    copy = follower()
    copy.measured(Position(1), 5.0)
    assert not copy.usable
    assert copy.is_within(5.0)
    assert not copy.is_within(4.9)


def test_what_was_answered_long_ago_does_not_count():
    async def age() -> list[bool]:
        copy = follower(max_age=2.0)
        copy.measured(Position(1), 0.0)
        young = copy.usable
        await sleep(2.1)
        return [young, copy.usable]

    assert simulate(age) == [True, False]


def test_epochs_count_breaks():
    copy = follower()
    epochs: list[int] = []
    for position in (5, 5, 6, 4, 9):
        copy.measured(Position(position), 0.0)
        epochs.append(copy.epoch)
    copy.failed(OSError())
    epochs.append(copy.epoch)
    copy.measured(Position(1), 0.0)
    epochs.append(copy.epoch)
    assert epochs == [0, 0, 0, 1, 1, 2, 2]
    assert copy.has(Position(1))
    assert not copy.has(Position(2))
