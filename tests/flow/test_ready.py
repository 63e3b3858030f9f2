"""The line of tasks that could start: ranks, slots, and resources all or nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.flow.ready import Ready


@dataclass(eq=False)
class Item:
    number: int
    priority: int = 0
    resources: dict[str, int] = field(default_factory=dict)
    slot: int = -1

    @property
    def rank(self):
        return (-self.priority, 0, self.number)


def test_the_best_first_as_many_as_there_are_slots():
    ready: Ready[Item] = Ready(2, {})
    assert not ready
    assert ready.take() is None
    low, high, middle = Item(1), Item(2, 9), Item(3, 5)
    for item in (low, high, middle):
        ready.offer(item)
    assert ready.take() is high
    assert ready.take() is middle
    assert ready.take() is None
    assert not ready
    assert (high.slot, middle.slot) == (0, 1)
    ready.release(high)
    assert ready
    assert ready.take() is low
    assert low.slot == 0


def test_what_lacks_a_resource_is_overtaken_and_comes_back():
    ready: Ready[Item] = Ready(4, {"db": 2})
    first, second = Item(1, 9, {"db": 2}), Item(2, 8, {"db": 1})
    third, fourth = Item(3, 1, {"db": 1, "disk": 1}), Item(4, 0)
    for item in (first, second, third, fourth):
        ready.offer(item)
    assert ready.take() is first
    assert ready.take() is fourth
    assert ready.take() is None
    ready.release(first)
    assert ready.take() is second
    assert ready.take() is third
    ready.release(second)
    ready.release(third)
    ready.release(fourth)
    assert ready.take() is None


@pytest.mark.promise("flow-conservation")
@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(st.integers(-2, 2), st.integers(0, 3), st.integers(0, 2), st.integers(0, 1)),
        min_size=1,
        max_size=25,
    ),
    st.randoms(use_true_random=False),
)
def test_nothing_is_exceeded_and_everything_runs_in_the_end(limit, wanted, dice):
    capacity = {"a": 3, "b": 2, "c": 1}
    ready: Ready[Item] = Ready(limit, {"a": 3, "b": 2})
    left = []
    for number, (priority, *amounts) in enumerate(wanted):
        needs = {name: n for name, n in zip("abc", amounts, strict=True) if n}
        left.append(Item(number, priority, needs))
    running: list[Item] = []
    done = 0
    while done < len(wanted):
        if left and dice.random() < 0.5:
            ready.offer(left.pop())
        while dice.random() < 0.7 and (item := ready.take()) is not None:
            running.append(item)
        assert len({item.slot for item in running}) == len(running) <= limit
        for name, most in capacity.items():
            assert sum(item.resources.get(name, 0) for item in running) <= most
        if running and dice.random() < 0.5:
            ready.release(running.pop(dice.randrange(len(running))))
            done += 1
        if not running and not left and done < len(wanted):
            item = ready.take()
            assert item is not None, "something is left, nothing runs, and nothing can start"
            running.append(item)
