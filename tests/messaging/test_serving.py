"""Serving: what a message binds while it is served, and what is sent on from there."""

from __future__ import annotations

from contextvars import copy_context

import pytest

from aiopatterns.core.context import bind_correlation, correlation_id, deadline
from aiopatterns.core.errors import RejectedError
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.serving import MAX_HOPS, origin, serve


def test_outside_of_messages_only_the_correlation_goes_along():
    assert origin("topic") == (None, None, 0)
    with bind_correlation("c"):
        assert origin("topic") == ("c", None, 0)


def test_a_message_binds_what_it_bears():
    message = Message(type="t", id="7a", correlation_id="c", deadline=5.0, hops=3)

    def inside() -> None:
        serve(message)
        assert (correlation_id(), deadline()) == ("c", 5.0)
        assert origin("topic") == ("c", "7a", 4)
        serve(Message(type="t", id="7b"))  # of another program: not on behalf of what ran before
        assert origin("topic") == ("7b", "7b", 1)

    copy_context().run(inside)
    assert (correlation_id(), deadline()) == (None, None)
    assert origin("topic") == (None, None, 0)


def test_a_circle_ends():
    def inside(hops: int) -> int:
        serve(Message(type="t", hops=hops))
        return origin("users.get")[2]

    assert copy_context().run(inside, MAX_HOPS - 1) == MAX_HOPS
    with pytest.raises(RejectedError, match=r"'users\.get'.*in a circle") as refused:
        copy_context().run(inside, MAX_HOPS)
    assert refused.value.name == "users.get"
