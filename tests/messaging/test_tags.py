"""Tags: noted at functions, found at objects, refused when no service could do them."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns import Timeout
from aiopatterns.messaging import command, event, every, query
from aiopatterns.messaging.serving import MAX_HOPS
from aiopatterns.messaging.tags import CONCURRENCY, Tag, tagged


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


class Base:
    @command("a.do", stack=Timeout(1), concurrency=2, key=lambda message: message.key)
    async def do(self) -> str:
        return "done"

    @query("a.get")
    async def get(self) -> str:
        return "base"

    @staticmethod
    @event("a.*")
    async def static() -> None: ...

    @classmethod
    @every(2.5, stack=Timeout(2))
    async def clock(cls) -> None: ...

    untagged = property(lambda self: 1 / 0)  # is not looked at


class Derived(Base):
    @query("a.other")
    async def get(self) -> str:
        return "derived"


def test_tags_are_found_in_the_order_of_definition():
    found = [(tag.kind, tag.topic or tag.interval, fn.__name__) for tag, fn in tagged(Base())]
    assert found == [
        ("command", "a.do", "do"),
        ("query", "a.get", "get"),
        ("event", "a.*", "static"),
        ("timer", 2.5, "clock"),
    ]


async def test_a_subclass_has_the_last_word():
    found: dict[str, Any] = {fn.__name__: (tag, fn) for tag, fn in tagged(Derived())}
    tag, method = found["get"]
    assert tag.topic == "a.other"
    assert await method() == "derived"
    assert await found["do"][1]() == "done"


def test_a_tag_has_all_that_was_said():
    tags = {fn.__name__: tag for tag, fn in tagged(Base())}
    assert tags["do"].concurrency == 2
    assert repr(tags["do"].stack) == "Timeout(1)"
    assert tags["do"].key is not None
    assert repr(tags["clock"].stack) == "Timeout(2)"
    assert tags["get"] == Tag(kind="query", topic="a.get")


def test_a_circle_of_services_fits_into_one_handler():
    assert CONCURRENCY > MAX_HOPS


@pytest.mark.promise("messaging-bad-input")
@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (lambda: command("a.*"), ValueError, "topic"),
        (lambda: query("$SRV.PING.x"), ValueError, "topic must not begin with"),
        (lambda: event("a.>.b"), ValueError, "topic"),
        (lambda: every(float("nan")), ValueError, "seconds"),
        (lambda: command("a")(wrong(None)), TypeError, "fn must be"),
    ],
    ids=range(5),
)
def test_bad_input_is_named(make, kind, match):
    with pytest.raises(kind, match=match):
        make()


def test_no_object_no_tags():
    assert list(tagged(object())) == []
    assert list(tagged(3)) == []
