"""Subscribers: which way a handler is called, and what is counted."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import TimeoutExceededError
from aiopatterns.core.telemetry import Subscription
from aiopatterns.messaging.subscriber import Subscriber, SubscriberStatistics


async def nothing(event: object) -> None:
    """Handle it."""


def make(handler: Any, on: type | str = "a.*", **terms: Any) -> Subscriber:
    defaults: dict[str, Any] = {"once": False, "priority": 0, "timeout": None, "where": None}
    return Subscriber(on, handler, **defaults | terms)


def test_an_async_function_without_conditions_is_called_directly():
    assert make(nothing).call is nothing
    for terms in ({"once": True}, {"timeout": 1}, {"where": bool}):
        assert make(nothing, **terms).call is not nothing


async def test_handlers_of_every_shape():
    seen: list[tuple[str, object]] = []

    class Handlers:
        async def method(self, event):
            seen.append(("method", event))

        def plain(self, event):
            seen.append(("plain", event))

        async def __call__(self, event):
            seen.append(("object", event))

    async def two(name, event):
        seen.append((name, event))

    handlers = Handlers()
    for handler in (
        handlers.method,
        handlers.plain,
        handlers,
        partial(two, "partial"),
        lambda event: two("lambda", event),
        lambda event: seen.append(("sync lambda", event)),
    ):
        await make(handler).call(7)
        await make(handler, where=bool).call(7)
    names = ["method", "plain", "object", "partial", "lambda", "sync lambda"]
    assert seen == [(name, 7) for name in names for _ in range(2)]


async def test_once_gives_up_its_place_before_it_is_called():
    order: list[Any] = []
    subscriber = make(order.append, once=True, where=lambda event: event > 1)
    subscriber.place = Subscription(lambda: order.append("closed"))
    await subscriber.call(1)
    assert order == []
    await subscriber.call(2)
    assert order == ["closed", 2]


async def test_a_timeout_is_for_each_call():
    subscriber = make(sleep, timeout=0.01)
    await subscriber.call(0)
    with pytest.raises(TimeoutExceededError):
        await subscriber.call(60)
    await subscriber.call(0)


def test_a_handler_that_cannot_be_awaited_cannot_have_a_timeout():
    with pytest.raises(TypeError, match="handler must be an async function, not the plain functi"):
        make(make, timeout=1)


def test_what_it_tells():
    subscriber = make(nothing, on=int, priority=3)
    assert subscriber.statistics() == SubscriberStatistics("nothing", "int", 3, 0, 0, None)
    subscriber.taken, subscriber.passed_over = 5, 2
    subscriber.failed(ValueError("first"))
    subscriber.failed(ValueError("last"))
    found = subscriber.statistics()
    assert (found.calls, found.errors, found.last_error) == (3, 2, "ValueError: last")
    assert make(partial(nothing)).statistics().handler.startswith("functools.partial(")
    assert make(nothing, on="a.>").statistics().on == "a.>"


@pytest.mark.promise("messaging-bad-input")
@pytest.mark.parametrize(
    ("terms", "error", "message"),
    [
        ({"once": 1}, TypeError, "once must be True or False, not 1"),
        ({"priority": "1"}, TypeError, "priority must be a whole number, not '1'"),
        ({"timeout": 0}, ValueError, "timeout must be a finite number > 0"),
        ({"where": 7}, TypeError, "where must be a function"),
        ({"where": nothing}, TypeError, "where must be a plain function, not the async function"),
        ({"handler": None}, TypeError, "handler must be a function, not None"),
    ],
)
def test_bad_input(terms, error, message):
    with pytest.raises(error, match=message):
        make(**{"handler": nothing} | terms)
