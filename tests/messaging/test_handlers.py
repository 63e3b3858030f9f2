"""Handlers: names that replicas agree on, groups, one command of a topic."""

from __future__ import annotations

import anyio
import pytest

from aiopatterns import Broker, Timeout, TimeoutExceededError
from aiopatterns.messaging import Context
from aiopatterns.messaging.handlers import Handlers
from aiopatterns.messaging.tags import Tag


async def note(payload: object) -> None: ...


class Caller:
    async def __call__(self) -> None: ...


def test_names_follow_from_the_code():
    handlers = Handlers("audit")
    for topic in ("a", "b", "c"):
        handlers.add(Tag(kind="event", topic=topic), note)
    handlers.add(Tag(kind="timer", interval=1), Caller())
    handlers.add(Tag(kind="command", topic="a"), lambda: None)
    assert [each.name for each in handlers] == ["note", "note-2", "note-3", "Caller", "<lambda>"]
    groups = [each.group for each in handlers]
    assert groups == ["audit/note", "audit/note-2", "audit/note-3", "audit", "audit"]
    assert len(handlers) == 5


async def test_a_stack_of_its_own_goes_before_that_of_the_service():
    async def slow() -> None:
        await anyio.sleep(60)

    handlers = Handlers("a")
    handlers.add(Tag(kind="command", topic="a", stack=Timeout(0.02)), slow)
    handlers.add(Tag(kind="command", topic="b"), slow)
    ctx = Context(service="a", handler="slow", broker=Broker("memory://"))
    own, services = [each.plan(Timeout(0.01)) for each in handlers]
    with pytest.raises(TimeoutExceededError, match=r"0\.02 s"):
        await own.begin(ctx, None)
    with pytest.raises(TimeoutExceededError, match=r"0\.01 s"):
        await services.begin(ctx, None)


@pytest.mark.promise("messaging-bad-input")
def test_a_topic_is_commanded_once():
    handlers = Handlers("a")
    handlers.add(Tag(kind="command", topic="a"), note)
    with pytest.raises(ValueError, match="topic must be new in service 'a'"):
        handlers.add(Tag(kind="query", topic="a"), note)
    assert len(handlers) == 1
