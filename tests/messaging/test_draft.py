"""Drafts: one message in every form that its ways need."""

from __future__ import annotations

from contextvars import copy_context

import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import CodecError
from aiopatterns.messaging.draft import Draft, Labels
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.scribe import Scribe
from aiopatterns.messaging.serving import serve
from aiopatterns.testing import simulate

SCRIBE = Scribe(MSGPACK, max_bytes=1_000)
PLAIN: Labels = ("event", None, 1, None, None)


def test_near_and_far_it_says_the_same():
    labels: Labels = ("query", "user", 2, "k", {"a": "b"})
    draft = Draft("7a", "users.get", {"id": 1}, labels, scribe=SCRIBE, reply_to="m.1")
    near, far = draft.message(), SCRIBE.envelopes.decode(draft.envelope)
    assert near == far
    assert near == Message(
        id="7a",
        type="user",
        version=2,
        kind="query",
        topic="users.get",
        key="k",
        correlation_id="7a",
        reply_to="m.1",
        headers={"a": "b"},
        payload={"id": 1},
    )


def test_the_type_is_the_topic_unless_it_is_said():
    assert Draft("7a", "users.get", 1, PLAIN, scribe=SCRIBE).message().type == "users.get"


def test_every_receiver_in_this_process_has_a_payload_of_its_own():
    draft = Draft("7a", "topic", {"list": [1]}, PLAIN, scribe=SCRIBE)
    first, second = draft.message(), draft.message()
    first.payload["list"].append(2)
    assert second.payload == {"list": [1]}


def test_the_envelope_is_written_once():
    draft = Draft("7a", "topic", 1, PLAIN, scribe=SCRIBE)
    assert draft.envelope is draft.envelope


def test_the_time_that_is_left_is_that_of_each_try():
    async def main() -> None:
        draft = Draft("7a", "topic", 1, PLAIN, scribe=SCRIBE, deadline=5.0)
        assert SCRIBE.envelopes.decode(draft.envelope).deadline == 5.0
        await sleep(3)
        assert SCRIBE.envelopes.decode(draft.envelope).deadline == 5.0

    simulate(main)


def test_it_is_on_behalf_of_what_ran_when_it_was_made():
    def inside() -> Draft:
        serve(Message(type="t", id="6f", correlation_id="c", hops=2))
        return Draft("7a", "topic", 1, PLAIN, scribe=SCRIBE)

    message = copy_context().run(inside).message()
    assert (message.correlation_id, message.causation_id, message.hops) == ("c", "6f", 3)


def test_what_cannot_be_written_is_refused_in_both_forms():
    draft = Draft("7a", "topic", object(), PLAIN, scribe=SCRIBE)
    with pytest.raises(CodecError):
        draft.message()
    with pytest.raises(CodecError):
        _ = draft.envelope
