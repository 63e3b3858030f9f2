"""The event bus: who is called, in which order, and what errors, cancels and nesting do to it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import weakref
from typing import Any, cast

import pytest
from anyio import Event as Bell
from anyio import create_task_group, fail_after, move_on_after
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns import EventBus as Headline
from aiopatterns.core.clock import rng, sleep, yield_now
from aiopatterns.core.context import bind_correlation, correlation_id
from aiopatterns.core.errors import QueueFullError, TimeoutExceededError
from aiopatterns.messaging import Envelopes, EventBus, HandlerFailed, Message
from aiopatterns.messaging import bus as bus_module
from aiopatterns.testing import (
    Trial,
    cancel_everywhere,
    capture_events,
    explore,
    fail_everywhere,
    simulate,
)


class Happened:
    """A base of events."""

    def __init__(self, what: object = None) -> None:
        self.what = what


class UserCreated(Happened):
    pass


class AdminCreated(UserCreated):
    pass


def balanced(bus: EventBus, **expected: int) -> None:
    found = bus.statistics()
    assert found.published == found.done + found.dropped + found.queued + found.running
    assert {name: getattr(found, name) for name in expected} == expected


def fresh(**terms: Any) -> tuple[EventBus, list[Any]]:
    """A bus, and a list for what its handlers see."""
    return EventBus(**terms), []


def idle(bus: EventBus) -> None:
    balanced(bus, queued=0, running=0)


def test_it_is_a_headline():
    assert Headline is EventBus


async def test_handlers_of_a_class_get_its_instances_and_those_of_subclasses():
    bus, seen = fresh()
    kinds: list[type] = [UserCreated, Happened, AdminCreated, object, int]
    for kind in kinds:

        def handler(event: object, kind: type = kind) -> None:
            seen.append(kind)

        bus.subscribe(kind, handler)
    await bus.publish(UserCreated())
    assert seen == [UserCreated, Happened, object]
    seen.clear()
    await bus.publish(AdminCreated())
    assert seen == [UserCreated, Happened, AdminCreated, object]
    seen.clear()
    await bus.publish(True)
    assert seen == [object, int]
    idle(bus)


async def test_handlers_of_topics_and_of_classes_in_one_order():
    bus, seen = fresh()
    bus.subscribe("user.*", lambda event: seen.append("user.*"))
    bus.subscribe(UserCreated, lambda event: seen.append("UserCreated"))
    bus.subscribe("user.created", lambda event: seen.append("user.created"))
    bus.subscribe(">", lambda event: seen.append("first"), priority=1)
    bus.subscribe("user.*", lambda event: seen.append("last"), priority=-1)
    await bus.publish(UserCreated(), topic="user.created")
    assert seen == ["first", "user.*", "UserCreated", "user.created", "last"]
    seen.clear()
    await bus.publish(UserCreated())
    assert seen == ["UserCreated"]
    seen.clear()
    await bus.publish({"id": 7}, topic="user.deleted")
    assert seen == ["first", "user.*", "last"]
    await bus.publish("nobody wants it")
    balanced(bus, published=4, done=4, unheard=1)


async def test_a_message_goes_by_its_own_topic():
    bus, seen = fresh()
    bus.subscribe("user.*", lambda message: seen.append(("topic", message.payload)))
    bus.subscribe(Message, lambda message: seen.append(("type", message.payload)))
    await bus.publish(Message(type="a", payload=1))
    await bus.publish(Message(type="a", topic="user.created", payload=2))
    await bus.publish(Message(type="a", topic="order.paid", payload=3))
    await bus.publish(Message(type="a", topic="order.paid", payload=4), topic="user.x")
    assert seen == [("type", 1), ("topic", 2), ("type", 2), ("type", 3), ("topic", 4), ("type", 4)]


async def test_subscribed_twice_called_twice():
    bus, seen = fresh()
    handler = seen.append
    with bus.subscribe(int, handler), bus.subscribe(int, handler):
        await bus.publish(1)
    await bus.publish(2)
    assert seen == [1, 1]


async def test_a_closed_subscription_is_called_no_more():
    bus, seen = fresh()

    async def first(event):
        second.close()
        second.close()

    bus.subscribe(int, first)
    second = bus.subscribe(int, seen.append)
    await bus.publish(1)  # closed while the event was with its handlers
    assert seen == []
    assert [each.handler for each in bus.statistics().subscribers] == [first.__qualname__]


async def test_a_new_handler_gets_the_next_event():
    bus, seen = fresh()

    async def first(event):
        if event == 1:
            bus.subscribe(int, seen.append)
            await bus.publish(2)

    bus.subscribe(int, first)
    await bus.publish(1)
    assert seen == [2]


async def test_nothing_is_left_of_handlers_that_are_gone():
    class Kind:
        pass

    bus = EventBus()
    handler = type("Handler", (), {"__call__": lambda self, event: None})()
    for on in (Kind, "user.*"):
        with bus.subscribe(on, handler):
            await bus.publish(Kind(), topic="user.created")
    gone = weakref.ref(handler)
    del handler
    assert bus._by_type == {}
    bus._plans.clear()
    gc.collect()
    assert gone() is None


async def test_plans_that_are_kept_are_bounded():
    bus, seen = fresh()
    bus.subscribe("a.*", seen.append)
    for number in range(2_000):
        await bus.publish(number, topic=f"a.{number}")
        assert len(bus._plans) <= 1_024
    assert seen == list(range(2_000))


async def test_once():
    bus, seen = fresh()
    bus.subscribe("a", seen.append, once=True)
    bus.subscribe(int, seen.append, once=True, where=lambda event: event > 1)
    for number in range(4):
        await bus.publish(number, topic="a")
    assert seen == [0, 2]
    assert bus.statistics().subscribers == ()


async def test_once_is_once_for_publishers_at_the_same_time():
    (bus, seen), bell = fresh(), Bell()

    async def slow(event):
        await bell.wait()

    async def greedy(event):
        await sleep(0)
        seen.append(event)

    bus.subscribe(int, slow)
    bus.subscribe(int, greedy, once=True)
    async with create_task_group() as group:
        for number in range(5):
            group.start_soon(bus.publish, number)
        await sleep(0.001)
        balanced(bus, published=5, running=5)
        bell.set()
    assert len(seen) == 1
    balanced(bus, done=5, running=0)


async def test_a_condition():
    bus, seen = fresh()
    bus.subscribe(int, seen.append, where=lambda event: event % 2)
    for number in range(5):
        await bus.publish(number)
    assert seen == [1, 3]
    assert bus.statistics().subscribers[0].calls == 2


# ------------------------------------------------------------------------------------- errors


@pytest.mark.promise("messaging-bus-isolation")
async def test_an_error_stops_nobody():
    bus, seen = fresh(name="shop")

    async def bad(event):
        raise ValueError("no")

    def plain(event):
        raise StopIteration

    async def slow(event):
        await sleep(60)

    bus.subscribe(int, bad)
    bus.subscribe(int, seen.append)
    bus.subscribe(int, slow, timeout=0.01)
    bus.subscribe(int, seen.append, where=lambda event: [][event])
    bus.subscribe("a", plain)
    bus.subscribe(int, seen.append)
    with capture_events() as events:
        await bus.publish(1, topic="a")
    assert seen == [1, 1]
    failed = [each for each in events if isinstance(each, HandlerFailed)]
    assert [type(each.error) for each in failed] == [
        ValueError,
        TimeoutExceededError,
        IndexError,
        RuntimeError,  # what Python makes of StopIteration
    ]
    assert {(each.bus, each.topic) for each in failed} == {("shop", "a")}
    assert failed[0].handler == bad.__qualname__
    assert failed[0].name == "aiopatterns.bus.handler_failed"
    found = bus.statistics()
    assert (found.errors, found.done) == (4, 1)
    assert [each.errors for each in found.subscribers] == [1, 0, 1, 1, 1, 0]
    assert found.subscribers[0].last_error == "ValueError: no"


async def test_errors_are_logged_if_nobody_listens(caplog):
    bus = EventBus("shop")

    async def bad(event):
        raise ValueError("no")

    bus.subscribe(int, bad)
    with caplog.at_level(logging.ERROR, logger="aiopatterns"):
        await bus.publish(1)
    (record,) = caplog.records
    assert record.getMessage() == f"shop: handler {bad.__qualname__} failed"
    assert record.exc_info[0] is ValueError
    with caplog.at_level(logging.ERROR, logger="aiopatterns"), capture_events():
        await bus.publish(1)
    assert len(caplog.records) == 1


@pytest.mark.promise("messaging-bus-isolation")
async def test_errors_are_raised_if_asked_for(caplog):
    bus, seen = fresh(errors="raise")
    errors = [ValueError("a"), KeyError("b")]

    def bad(event):
        raise errors[event]

    async def nesting(event):
        await bus.publish(1)
        raise errors[0]

    bus.subscribe(int, bad)
    bus.subscribe(int, seen.append)
    bus.subscribe(str, nesting)
    with pytest.raises(ValueError) as info:
        await bus.publish(0)
    assert info.value is errors[0]
    assert info.value.__context__ is None
    with pytest.raises(ExceptionGroup) as group, capture_events() as events:
        await bus.publish("nested")
    assert group.value.exceptions == tuple(errors)
    assert "2 calls of handlers of bus failed" in str(group.value)
    assert seen == [0, 1]
    assert len(events) == 2
    assert not caplog.records
    idle(bus)


async def test_a_handler_that_cancels_itself_has_failed_and_stops_nothing():
    async def waits_for_a_cancelled_task(event: object) -> None:
        task = asyncio.ensure_future(sleep(60))
        task.cancel()
        await task

    bus, seen = EventBus(errors="raise"), list[object]()
    bus.subscribe(int, waits_for_a_cancelled_task)
    bus.subscribe(int, seen.append)
    with pytest.raises(RuntimeError, match="waits_for_a_cancelled_task cancelled itself") as raised:
        await bus.publish(1)
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)
    assert seen == [1]
    assert (bus.statistics().done, bus.statistics().errors) == (1, 1)


async def test_errors_are_not_lost_with_a_publisher_that_is_cancelled(caplog):
    bus, bell = EventBus(errors="raise"), Bell()

    def bad(event):
        raise ValueError("no")

    async def slow(event):
        await bus.publish("queued")
        await bell.wait()

    bus.subscribe(int, bad)
    bus.subscribe(int, slow)
    with move_on_after(0.01):
        await bus.publish(1)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]
    balanced(bus, published=2, dropped=2, queued=0, running=0)


# ------------------------------------------------------------------------------------- nesting


@pytest.mark.promise("messaging-bus-nested")
async def test_a_nested_publish_is_queued_and_returns_at_once():
    bus, order = fresh()

    async def first(event):
        order.append(f"first {event}")
        if event < 2:
            await bus.publish(event + 1)
            await bus.publish(event + 10)
            order.append(f"published by {event}")
            balanced(bus, running=1)

    async def second(event):
        order.append(f"second {event}")

    bus.subscribe(int, first)
    bus.subscribe(int, second)
    await bus.publish(1)
    assert order == [
        "first 1",
        "published by 1",
        "second 1",
        "first 2",
        "second 2",
        "first 11",
        "second 11",
    ]
    balanced(bus, published=3, done=3)


@pytest.mark.promise("messaging-bus-nested")
async def test_a_task_of_a_handler_publishes_into_the_line_while_it_is_open():
    (bus, order), bell = fresh(), Bell()

    async def later():
        await bell.wait()
        await bus.publish("late")
        order.append("returned")

    async with create_task_group() as group:

        async def spawning(event):
            async with create_task_group() as inner:
                inner.start_soon(bus.publish, "inner")
            order.append(bus.statistics().queued)
            group.start_soon(later)

        bus.subscribe(int, spawning)
        bus.subscribe(str, order.append)
        await bus.publish(1)
        assert order == [1, "inner"]
        bell.set()  # its delivery is over, so this one is a publish of its own
    assert order == [1, "inner", "late", "returned"]
    idle(bus)


async def test_a_chain_of_deliveries_holds_those_that_are_under_way_and_no_others():
    first, second, third = EventBus("first"), EventBus("second"), EventBus("third")
    chains: list[int] = []
    bell = Bell()

    def depth() -> int:
        delivery = bus_module._current.get()
        found = 0
        while delivery is not None:
            delivery, found = delivery.outer, found + 1
        return found

    async def onward(event: int) -> None:
        await bell.wait()  # until all deliveries that led here are over
        await third.publish(event)

    async with create_task_group() as group:
        first.subscribe(int, second.publish)

        def start(event: int) -> None:  # a lambda would return the task, to be awaited
            group.start_soon(onward, event)

        second.subscribe(int, start)
        third.subscribe(int, lambda event: chains.append(depth()))
        await first.publish(1)
        bell.set()
    await third.publish(2)
    assert chains == [1, 1]


async def test_two_buses_that_publish_on_each_other_do_not_recurse():
    one, other, order = EventBus("one"), EventBus("other"), []

    async def from_one(event):
        order.append(f"one {event}")
        if event < 3:
            await other.publish(event)
            order.append(f"other is done with {event}")

    async def from_other(event):
        order.append(f"other {event}")
        await one.publish(event + 1)

    one.subscribe(int, from_one)
    other.subscribe(int, from_other)
    await one.publish(1)
    assert order == [
        "one 1",
        "other 1",
        "other is done with 1",
        "one 2",
        "other 2",
        "other is done with 2",
        "one 3",
    ]
    idle(one)
    idle(other)


@pytest.mark.promise("messaging-bus-nested")
async def test_events_that_follow_from_each_other_for_ever_come_to_an_end():
    bus, errors = EventBus(max_depth=10), []

    async def again(event):
        try:
            await bus.publish(event + 1)
        except RecursionError as error:
            errors.append(error)
            raise

    bus.subscribe(int, again)
    with capture_events() as events:
        await bus.publish(0)
    assert "more than max_depth=10 events have followed from each other, the last a int" in str(
        errors[0]
    )
    assert len(errors) == len(events) == 1
    balanced(bus, published=11, done=11, errors=1)


async def test_what_is_in_line_is_bounded():
    bus, refused = EventBus("shop", max_queued=3), []

    async def many(event):
        for number in range(5):
            try:
                await bus.publish(str(number))
            except QueueFullError as error:
                refused.append(error)

    bus.subscribe(int, many)
    await bus.publish(1)
    assert [error.name for error in refused] == ["shop", "shop"]
    assert "max_queued=3 events of handlers are in line" in str(refused[0])
    balanced(bus, published=4, done=4, unheard=3)


async def test_a_topic_that_is_none_is_refused_where_it_is_published():
    bus, errors = EventBus(), []

    async def nesting(event):
        topics: list[Any] = ["a..b", ["a"]]
        for topic in topics:
            try:
                await bus.publish("x", topic=topic)
            except (ValueError, TypeError) as error:
                errors.append(type(error))

    bus.subscribe(int, nesting)
    await bus.publish(1)
    assert errors == [ValueError, TypeError]
    balanced(bus, published=1, done=1)


async def test_the_loop_gets_a_turn():
    bus, turns = EventBus(), 0
    bus.subscribe(int, lambda event: None)

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await yield_now()

    async with create_task_group() as group:
        group.start_soon(count_turns)
        for number in range(1_000):
            await bus.publish(number)
        outside = turns

        async def many(event):
            for number in range(1_000):
                await bus.publish(number)

        bus.subscribe(str, many)
        await bus.publish("nested")
        assert outside >= 10
        assert turns - outside >= 10
        group.cancel_scope.cancel()


async def test_who_subscribes_while_a_publisher_gives_a_turn_gets_its_event():
    bus, seen = fresh()
    subscription = bus.subscribe(int, lambda event: seen.append("old"))

    async def change():
        await yield_now()
        subscription.close()
        bus.subscribe(int, lambda event: seen.append("new"))

    for _ in range(bus._until_turn - 1):
        await bus.publish("nobody wants it")
    async with create_task_group() as group:
        group.start_soon(change)
        await yield_now()
        await bus.publish(1)
    assert seen == ["new"]


# ------------------------------------------------------------------------------- what is around


async def test_handlers_run_in_the_context_of_the_publisher():
    variable = contextvars.ContextVar("variable", default=0)
    bus, seen = fresh()

    def handler(event):
        seen.append((variable.get(), correlation_id()))
        variable.set(9)

    bus.subscribe(int, handler)
    variable.set(7)
    with bind_correlation("req-1"):
        await bus.publish(1)
    assert seen == [(7, "req-1")]
    assert variable.get() == 9


async def test_a_deadline_of_the_publisher_reaches_the_handlers():
    bus, seen = fresh()
    bus.subscribe(int, lambda event: sleep(60))
    bus.subscribe(int, seen.append)
    with pytest.raises(TimeoutError):
        with fail_after(0.01):
            await bus.publish(1)
    assert seen == []
    balanced(bus, dropped=1, running=0)


async def test_one_bus_serves_loops_one_after_the_other():
    bus, seen = fresh()
    bus.subscribe(int, seen.append)
    await bus.publish(1)
    assert seen == [1]


def test_a_bus_may_be_used_on_one_loop_after_the_other():
    bus, seen = fresh()
    bus.subscribe(int, seen.append, timeout=None)
    bus.subscribe(int, sleep, timeout=100)

    async def scenario() -> None:
        await bus.publish(1)

    simulate(scenario)
    simulate(scenario)
    assert seen == [1, 1]
    idle(bus)


async def test_an_outbox_may_relay_into_it():
    """Messages that come as bytes from elsewhere are handed over by their topics."""
    bus, seen = fresh()
    bus.subscribe("order.>", lambda message: seen.append(message.payload))
    envelopes = Envelopes()
    data = envelopes.encode(Message(type="order", topic="order.paid", payload={"id": 17}))
    await bus.publish(envelopes.decode(data))
    assert seen == [{"id": 17}]


def test_its_repr():
    bus = EventBus("shop")
    bus.subscribe(int, print)
    assert repr(bus) == "EventBus('shop', 1 subscribed)"


# ------------------------------------------------------------------- any await, any call, any seed


def publishing(bus: EventBus, seen: list[object]) -> None:
    """Handlers of all kinds: plain, async, nested, timed, once."""

    async def nesting(event):
        await yield_now()
        if event < 3:
            await bus.publish(event + 1, topic="more")
        await yield_now()

    async def slow(event):
        await sleep(0.01)
        seen.append(event)

    bus.subscribe(int, nesting)
    bus.subscribe(int, seen.append)
    bus.subscribe("more", slow, timeout=1)
    bus.subscribe("more", slow, once=True)


@pytest.mark.promise("messaging-bus-cancel", "messaging-bus-accounts")
def test_cancelled_at_every_await():
    def scenario() -> Trial:
        bus, seen = fresh(errors="raise")
        publishing(bus, seen)

        async def check() -> None:
            idle(bus)
            before = bus.statistics()
            seen.clear()
            await bus.publish(5)  # goes on as if nothing had been
            assert seen == [5]
            balanced(bus, done=before.done + 1, dropped=before.dropped)

        return Trial(bus.publish(1), check)

    kinds: Any = ("native", "scope", "timeout", "native-twice")
    cancel_everywhere(scenario, kinds=kinds, minimum=8)


@pytest.mark.promise("messaging-bus-fail-everywhere", "messaging-bus-accounts")
@pytest.mark.parametrize("errors", ["report", "raise"])
def test_handlers_may_fail_at_every_call(errors):
    def scenario(fault) -> Trial:
        bus, seen = fresh(errors=errors)

        async def nesting(event):
            fault()
            if event < 2:
                await bus.publish(event + 1)
            fault()

        def where(event):
            fault()
            return True

        bus.subscribe(int, nesting)
        bus.subscribe(int, lambda event: fault())
        bus.subscribe(int, seen.append, where=where)
        bus.subscribe(int, seen.append)

        async def work() -> None:
            with capture_events():
                await bus.publish(1)

        def check() -> None:
            idle(bus)
            found = bus.statistics()
            assert found.done == found.published
            assert found.errors <= 1
            assert len(seen) == 2 * found.done - sum(each.errors for each in found.subscribers[2:3])

        return Trial(work(), check)

    fail_everywhere(scenario, minimum=6)


@pytest.mark.promise("messaging-bus-seeds", "messaging-bus-accounts")
def test_two_hundred_schedules():
    async def scenario() -> None:
        bus = EventBus(max_queued=50)
        started: list[tuple[int, int]] = []
        ended: list[tuple[int, int]] = []
        subscriptions = []

        def handler(number: int) -> Any:
            async def handle(event: int) -> None:
                balanced(bus)
                started.append((number, event))
                if rng().random() < 0.5:
                    await sleep(rng().choice([0, 0.01]))
                if event < 1_000 and rng().random() < 0.2:
                    await bus.publish(event + 1_000)
                if rng().random() < 0.1:
                    raise ValueError
                ended.append((number, event))
                balanced(bus)

            return handle

        for number in range(4):
            subscriptions.append(bus.subscribe(int, handler(number)))
        once: list[int] = []
        bus.subscribe(int, once.append, once=True)

        async def publisher(first: int) -> None:
            for event in range(first, first + 5):
                with move_on_after(rng().choice([0.005, 1.0])):
                    await bus.publish(event)
                balanced(bus)

        async with create_task_group() as group:
            for first in (0, 100, 200):
                group.start_soon(publisher, first)
            await sleep(0.01)
            subscriptions.pop().close()
            closed_at = len(started)
        assert all(number != 3 for number, _ in started[closed_at:])
        idle(bus)
        assert len(once) == 1
        for number in range(3):  # of one publisher, in its order
            for first in (0, 100, 200):
                mine = [e for n, e in started if n == number and first <= e < first + 5]
                assert mine == sorted(mine)
        found = bus.statistics()
        assert (
            len(ended)
            <= len(started)
            == sum(each.calls for each in found.subscribers)
            + (sum(number == 3 for number, _ in started))
        )

    logging.getLogger("aiopatterns").disabled = True
    try:
        explore(scenario, range(200))
    finally:
        logging.getLogger("aiopatterns").disabled = False


KINDS: list[type] = [Happened, UserCreated, AdminCreated, object]
ONS = st.sampled_from([*KINDS, "a", "a.*", "a.b", ">", "*.b"])
SPECS = st.lists(
    st.tuples(ONS, st.integers(-1, 1), st.booleans(), st.booleans()), min_size=1, max_size=8
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from([Happened, UserCreated, AdminCreated]),
        st.sampled_from([None, "a", "a.b", "c.b"]),
        st.integers(0, 7),
    ),
    max_size=8,
)
PATTERNS = {
    "a": {"a"},
    "a.*": {"a.b"},
    "a.b": {"a.b"},
    ">": {"a", "a.b", "c.b"},
    "*.b": {"a.b", "c.b"},
}


@pytest.mark.promise("messaging-bus-model", "messaging-bus-isolation")
@given(SPECS, EVENTS)
def test_the_bus_does_what_a_list_of_handlers_does(specs, events):
    """Beside a plain model: subscriptions that come, go, fail, and are called once."""

    async def scenario() -> None:
        bus = EventBus()
        called: list[int] = []
        model: list[tuple[int, Any, int, bool]] = []
        places = {}

        def handler(number: int, fails: bool) -> Any:
            def handle(event: object) -> None:
                called.append(number)
                if fails:
                    raise ValueError

            return handle

        for number, (on, priority, once, fails) in enumerate(specs):
            places[number] = bus.subscribe(on, handler(number, fails), priority=priority, once=once)
            model.append((number, on, priority, once))
        for kind, topic, closing in events:
            called.clear()
            await bus.publish(kind(), topic=topic)
            due = [
                each
                for each in sorted(model, key=lambda each: -each[2])
                if (
                    topic in PATTERNS[each[1]]
                    if isinstance(each[1], str)
                    else issubclass(kind, each[1])
                )
            ]
            assert called == [each[0] for each in due]
            model = [each for each in model if not (each in due and each[3])]
            if closing in places:
                places.pop(closing).close()
                model = [each for each in model if each[0] != closing]
            assert len(bus.statistics().subscribers) == len(model)
        idle(bus)

    logging.getLogger("aiopatterns").disabled = True
    try:
        simulate(scenario)
    finally:
        logging.getLogger("aiopatterns").disabled = False


@pytest.mark.promise("messaging-bad-input")
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"name": ""}, ValueError, "name must be a non-empty string"),
        ({"errors": "log"}, ValueError, "errors must be one of 'report', 'raise', not 'log'"),
        ({"max_depth": 0}, ValueError, "max_depth must be a whole number >= 1"),
        ({"max_queued": 1.5}, TypeError, "max_queued must be a whole number >= 1"),
    ],
)
def test_bad_input(given, error, message):
    with pytest.raises(error, match=message):
        EventBus(**given)


@pytest.mark.promise("messaging-bad-input")
@pytest.mark.parametrize(
    ("on", "error", "message"),
    [
        (7, TypeError, "on must be a class, or a topic that may have wildcards, not 7"),
        (list[int], TypeError, "on must be a class"),
        (int | str, TypeError, "on must be a class"),
        ("a..b", ValueError, "on must be tokens between dots"),
        ("", ValueError, "on must be a non-empty string"),
    ],
)
async def test_bad_subscriptions(on, error, message):
    bus = EventBus()
    with pytest.raises(error, match=message):
        bus.subscribe(on, print)
    with pytest.raises(TypeError, match="handler must be a function"):
        bus.subscribe(int, cast("Any", None))
    assert bus.statistics().subscribers == ()
    with pytest.raises(TypeError, match="topic must be a non-empty string"):
        await bus.publish(1, topic=cast("Any", 7))
    with pytest.raises(ValueError, match="topic must be tokens"):
        await bus.publish(1, topic="a.*")
    balanced(bus, published=0)
