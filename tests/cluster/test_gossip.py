"""The gossip queue."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster.gossip import GossipQueue, transmits


@pytest.mark.parametrize(
    ("members", "times"), [(1, 8), (9, 8), (10, 8), (99, 8), (100, 12), (999, 12), (1_000, 16)]
)
def test_the_number_of_transmissions_grows_with_the_logarithm(members, times):
    assert transmits(members) == times


def test_what_was_sent_least_goes_first():
    queue = GossipQueue[str]()
    queue.put("a", b"aaaa")
    assert queue.take(100, 3) == [b"aaaa"]
    queue.put("b", b"bbbb")
    assert queue.take(4, 3) == [b"bbbb"]
    queue.put("c", b"cccc")
    assert queue.take(8, 3) == [b"cccc", b"aaaa"]


def test_each_piece_is_sent_so_often_and_then_gone():
    queue = GossipQueue[str]()
    queue.put("a", b"a")
    assert [queue.take(10, 3) for _ in range(4)] == [[b"a"]] * 3 + [[]]
    assert len(queue) == 0


def test_what_is_too_large_for_the_room_waits_for_another_packet():
    queue = GossipQueue[str]()
    queue.put("large", b"x" * 50)
    queue.put("small", b"y" * 5)
    assert queue.take(20, 4) == [b"y" * 5]
    assert queue.take(60, 4) == [b"x" * 50, b"y" * 5]
    assert queue.take(0, 4) == []


def test_a_newer_piece_takes_the_place_of_the_older_and_starts_anew():
    queue = GossipQueue[str]()
    queue.put("a", b"old")
    queue.take(10, 3)
    queue.put("a", b"new")
    assert len(queue) == 1
    assert [queue.take(10, 3) for _ in range(4)] == [[b"new"]] * 3 + [[]]


def test_what_is_dropped_is_not_sent():
    queue = GossipQueue[str]()
    queue.put("a", b"a")
    queue.drop("a")
    queue.drop("b")
    assert (queue.take(10, 3), len(queue)) == ([], 0)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 30)), max_size=60))
def test_it_does_what_a_plain_model_of_it_does(steps):
    """A step puts a piece of a size under a key, or with size 0 takes what fits into 40 bytes."""
    queue = GossipQueue[str]()
    model: dict[str, list[float]] = {}
    for number, (key, size) in enumerate(steps):
        if size:
            queue.put(key, bytes(size))
            model.pop(key, None)
            model[key] = [0, number, size]
            continue
        room: float = 40
        wanted: list[str] = []
        for each in sorted(model, key=lambda each: model[each][:2]):
            if model[each][2] <= room:
                room -= model[each][2]
                wanted.append(each)
            if room <= 0:
                break
        assert queue.take(40, 3) == [bytes(int(model[each][2])) for each in wanted]
        for at, each in enumerate(wanted):
            model[each][:2] = model[each][0] + 1, number + at / 100
        model = {each: held for each, held in model.items() if held[0] < 3}
        assert len(queue) == len(model)
