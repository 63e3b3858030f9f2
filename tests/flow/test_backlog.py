"""The backlog against a plain model: a sorted list, and a set of held keys."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.flow.backlog import Backlog, Lane
from aiopatterns.flow.handle import HandleStatus, Terms


def make(index, priority=0, key=None):
    terms = None if priority == 0 and key is None else Terms(priority, key)
    ticket = SimpleNamespace(index=index, state=HandleStatus.QUEUED, terms=terms, priority=priority)
    ticket.key = key
    return ticket


class Model:
    """What waits, as one list; who is blocked follows from the list and the held keys."""

    def __init__(self):
        self.waiting = []
        self.running = []

    def ready(self):
        taken = {each.key for each in self.running if each.key is not None}
        ready = []
        for each in sorted(self.waiting, key=lambda each: each.index):
            if each.key is None or each.key not in taken:
                ready.append(each)
                taken.add(each.key) if each.key is not None else None
        return sorted(ready, key=lambda each: (-each.priority, each.index))


operations = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(-2, 2), st.sampled_from([None, None, "a", "b"])),
        st.tuples(st.just("pop"), st.just(0), st.none()),
        st.tuples(st.just("discard"), st.integers(0, 50), st.none()),
        st.tuples(st.just("end"), st.integers(0, 50), st.none()),
        st.tuples(st.just("again"), st.integers(0, 50), st.none()),
        st.tuples(st.just("look"), st.just(0), st.none()),
    ),
    max_size=60,
)


@given(operations)
def test_the_order_is_that_of_the_model(history):
    backlog: Any = Backlog()
    model: Any = Model()
    for number, (verb, value, key) in enumerate(history):
        if verb == "push":
            ticket = make(number, value, key)
            model.waiting.append(ticket)
            assert backlog.push(ticket) == (ticket in model.ready())
        elif verb == "pop":
            ready = model.ready()
            ticket = backlog.pop()
            assert ticket is (ready[0] if ready else None)
            if ticket is not None:
                model.waiting.remove(ticket)
                model.running.append(ticket)
        elif verb == "discard" and model.waiting:
            ticket = model.waiting.pop(value % len(model.waiting))
            held = ticket.key is not None and not ticket.terms.blocked
            ticket.state = HandleStatus.CANCELLED
            backlog.discard(ticket.terms)
            if held:
                backlog.release(ticket.key)
        elif verb == "end" and model.running:
            ticket = model.running.pop(value % len(model.running))
            if ticket.key is not None:
                backlog.release(ticket.key)
        elif verb == "again" and model.running:
            ticket = model.running.pop(value % len(model.running))
            model.waiting.append(ticket)
            backlog.put_back(ticket)
        elif verb == "look":
            assert {id(each) for each in backlog.firsts()} <= {id(each) for each in model.ready()}
        check(backlog, model)
    while (ticket := backlog.pop()) is not None:
        assert ticket is model.ready()[0]
        model.waiting.remove(ticket)
        model.running.append(ticket)
    for ticket in model.running:
        if ticket.key is not None:
            backlog.release(ticket.key)


def check(backlog, model):
    assert backlog.ready == len(model.ready())
    assert {id(each) for each in backlog} == {id(each) for each in model.waiting}
    held = {each.key for each in (*model.waiting, *model.running)} - {None}
    assert backlog.keys == len(held)


def test_the_state_of_a_key_goes_with_its_last_item():
    backlog: Any = Backlog()
    first, second = make(0, 0, "key"), make(1, 0, "key")
    assert backlog.push(first)
    assert not backlog.push(second)
    assert backlog.pop() is first
    assert backlog.pop() is None
    assert backlog.release("key") is second
    assert backlog.pop() is second
    assert backlog.release("key") is None
    assert backlog.keys == 0


def test_cancelled_items_are_swept_out():
    lane: Any = Lane()
    tickets = [make(n) for n in range(1000)]
    for ticket in tickets[:500]:
        lane.line.append(ticket)
    for ticket in tickets[500:]:
        lane.put_back(ticket)
    for ticket in tickets[::2] + tickets[1:-1:2]:
        ticket.state = HandleStatus.CANCELLED
        lane.discard()
    assert len(lane.line) + len(lane.back) < 40
    assert lane.live == 1
    assert list(lane) == [tickets[-1]]
    assert lane.first() is lane.pop() is tickets[-1]
    assert lane.first() is None


def test_an_empty_lane_of_a_priority_is_dropped():
    backlog: Any = Backlog()
    for priority in range(-50, 50):
        backlog.push(make(priority + 50, priority))
    order = [backlog.pop().priority for _ in range(100)]
    assert order == sorted(range(-50, 50), reverse=True)
    assert backlog.pop() is None
    assert not backlog._lanes
