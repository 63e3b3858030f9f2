"""Message: what is sent, with all that its receiver may need to know about it.

One record for everything that brokers, streams, services and outboxes pass on. Who sent it, and on
whose behalf, are three ids::

    request 7a                      id=7a  correlation_id=7a  causation_id=None
      `- command it led to          id=7b  correlation_id=7a  causation_id=7a
           `- event that came of it id=7c  correlation_id=7a  causation_id=7b

The correlation joins everything that was done for one request, the causation says which message
led to this one.

A record never changes, so it may be given to any number of handlers. The payload is plain data,
the same object for all of them: handlers read it and do not write to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import inf
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, final, get_args

import msgspec
from msgspec.structs import force_setattr

from aiopatterns.core.context import new_id
from aiopatterns.core.validate import choice, count, instance, number, text

__all__ = ["KINDS", "Kind", "Message"]

Kind: TypeAlias = Literal["command", "query", "event", "reply", "error"]

#: What a message may be for.
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


@final
class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message. All fields are given by keyword; only ``type`` has to be.

    Attributes:
        type: What the payload is, such as ``"order.created"``; upcasters go by it.
        id: Id of this message, the same in every delivery of it; fresh by default.
        version: Version of the payload's form, from 1; see
            :class:`~aiopatterns.messaging.Upcasters`.
        kind: A ``"command"`` has one handler, a ``"query"`` one that answers, an ``"event"`` any
            number of them; ``"reply"`` and ``"error"`` are answers.
        topic: Where it was sent; empty as long as it was not.
        key: Messages of one key are handled in order, where order is asked for; or None.
        correlation_id: Id that joins everything done for one request, or None.
        causation_id: Id of the message that led to this one, or None.
        reply_to: Where the answer goes, or None for no answer.
        deadline: When it is of no use any more, in monotonic seconds of this process, or None.
        attempt: Which delivery this is, from 1.
        hops: How many services the work has passed.
        headers: Anything else, text to text; a copy is kept that nobody can change.
        payload: What is said: plain data when received, whatever can be encoded when sent.

    Raises:
        ValueError: A field is out of its range; the text names it.
        TypeError: A field is of another type.

    Example::

        Message(type="order.created", payload={"id": 17}, key="customer-4")
    """

    type: str
    id: str = msgspec.field(default_factory=new_id)
    version: int = 1
    kind: Kind = "event"
    topic: str = ""
    key: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    reply_to: str | None = None
    deadline: float | None = None
    attempt: int = 1
    hops: int = 0
    headers: Mapping[str, str] = _NO_HEADERS
    payload: Any = None

    def __post_init__(self) -> None:
        """Refuse what no receiver could use."""
        if not self._is_sound():
            self._refuse()
        if self.headers is not _NO_HEADERS:
            force_setattr(self, "headers", _read_only(self.headers))

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[partial[Message], tuple[()]]:
        """Copy and pickle by the fields: a read-only view of a mapping has no way of its own."""
        fields: dict[str, Any] = msgspec.structs.asdict(self)
        return partial(Message, **fields | {"headers": dict(self.headers)}), ()

    def _is_sound(self) -> bool:
        """Whether all is as it should be, but for headers: one expression, a fourth of the cost."""
        key, correlation, causation = self.key, self.correlation_id, self.causation_id
        reply_to, deadline = self.reply_to, self.deadline
        return bool(
            self.type.__class__ is self.id.__class__ is self.topic.__class__ is str
            and self.type
            and self.id
            and self.kind in KINDS
            and self.version.__class__ is self.attempt.__class__ is self.hops.__class__ is int
            and self.version > 0 < self.attempt
            and self.hops >= 0
            and (key is None or (key.__class__ is str and key))
            and (correlation is None or (correlation.__class__ is str and correlation))
            and (causation is None or (causation.__class__ is str and causation))
            and (reply_to is None or (reply_to.__class__ is str and reply_to))
            and (deadline is None or (deadline.__class__ is float and -inf < deadline < inf))
        )

    def _refuse(self) -> None:
        """Name what is wrong; nothing is, if all that was unusual are types derived from ours."""
        text("type", self.type)
        text("id", self.id)
        count("version", self.version)
        choice("kind", self.kind, KINDS)
        instance("topic", self.topic, str, "text")
        for name in ("key", "correlation_id", "causation_id", "reply_to"):
            value = getattr(self, name)
            if value is not None:
                text(name, value)
        if self.deadline is not None and not -inf < number("deadline", self.deadline) < inf:
            msg = (
                f"deadline must be a finite number, or None for no deadline, not {self.deadline!r}"
            )
            raise ValueError(msg)
        count("attempt", self.attempt)
        count("hops", self.hops, minimum=0)


def _read_only(headers: Mapping[str, str]) -> Mapping[str, str]:
    if headers.__class__ is not dict:
        instance("headers", headers, Mapping, "a mapping of text to text")
    if not headers:
        return _NO_HEADERS
    for key, value in headers.items():
        text("headers' keys", key)
        instance(f"headers[{key!r}]", value, str, "text")
    return MappingProxyType(dict(headers))
