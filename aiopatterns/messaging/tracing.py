"""Spans of messages: one around each sending, one around each handling.

The span of a sending travels in the header ``traceparent`` of its messages, unless whoever sends
has set that header; the span of a handling goes on from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from aiopatterns.core.tracing import NO_SPAN, Messages, traceparent, tracer
from aiopatterns.messaging.envelope import TRACEPARENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.core.tracing import Span
    from aiopatterns.messaging.message import Message

__all__ = ["onward", "processing", "sending"]

System: TypeAlias = Literal["broker", "stream", "outbox"]


def sending(
    system: System, topic: str, action: str, subject: str | None = None, *, count: int | None = None
) -> Span:
    """Begin the span of a sending; an action ``request`` lasts until its answer.

    Args:
        system: What carries the message.
        topic: Where it goes.
        action: What the sender calls.
        subject: Type of the message.
        count: How many messages, if it is one of many.
    """
    found = tracer()
    if found is None:
        return NO_SPAN
    verb: Literal["send", "request"] = "request" if action == "request" else "send"
    return found.start(Messages(verb, system, topic, action, subject or "", batch=count))


def processing(
    system: System, message: Message, *, group: str | None = None, pattern: str | None = None
) -> Span:
    """Begin the span of a handling.

    Args:
        system: What brought the message.
        message: The message.
        group: The group that handles it.
        pattern: By which it was received.
    """
    found = tracer()
    if found is None:
        return NO_SPAN
    origin = message.headers.get(TRACEPARENT)
    step = Messages(
        "process",
        system,
        message.topic,
        "process",
        message.type,
        id=message.id,
        template=None if pattern == message.topic else pattern,
        group=group,
        correlation=message.correlation_id,
        attempt=message.attempt,
        origins=(origin,) if origin else (),
    )
    return found.start(step)


def onward(headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return the headers of a message that is sent from here: with the span that sends it."""
    parent = traceparent()
    if parent is None:
        return headers
    return {TRACEPARENT: parent} if headers is None else {TRACEPARENT: parent, **headers}
