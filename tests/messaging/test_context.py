"""The context of a handler: what it says, and that what it sends goes by its broker."""

from __future__ import annotations

from typing import Any

from aiopatterns import Broker
from aiopatterns.core.context import Context as BaseContext
from aiopatterns.messaging import Context, Message


async def test_it_asks_sends_and_publishes_with_all_that_a_broker_takes():
    got: list[Message] = []

    async def note(message: Message) -> str:
        got.append(message)
        return "noted"

    labels: dict[str, Any] = {"type": "t", "version": 2, "key": "k", "headers": {"a": "b"}}
    async with Broker("memory://") as broker:
        await broker.subscribe("topic", note, group="g")
        ctx = Context(service="s", handler="h", broker=broker, state={"db": 1})
        assert isinstance(ctx, BaseContext)
        assert await ctx.request("topic", 1, timeout=1, **labels) == "noted"
        await ctx.send("topic", 2, **labels)
        await ctx.publish("topic", 3, **labels)
    assert [(each.kind, each.payload) for each in got] == [
        ("query", 1),
        ("command", 2),
        ("event", 3),
    ]
    for each in got:
        assert (each.type, each.version, each.key) == ("t", 2, "k")
        assert dict(each.headers) == {"a": "b"}


def test_the_clock_sends_no_message():
    ctx = Context(service="s", handler="h", broker=Broker("memory://"))
    assert (ctx.message, ctx.attempt, ctx.deadline, ctx.remaining, ctx.hops) == (
        None,
        1,
        None,
        None,
        0,
    )
    assert ctx.state == {}
