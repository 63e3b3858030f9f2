"""Drafts: a message that is being sent, as often and in as many forms as its ways need.

To another process it goes as an envelope, written once unless it has a deadline. To a subscription
of the same broker it goes as the message itself, with a payload of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, final

from aiopatterns.core.tracing import tracer
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.serving import origin
from aiopatterns.messaging.tracing import onward

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.messaging.message import Kind
    from aiopatterns.messaging.scribe import Scribe

__all__ = ["Draft", "Labels"]

#: What a sender says of a message besides its topic and payload: kind, type (None for the topic),
#: version, key and headers. A plain tuple, for one is made with every request.
Labels: TypeAlias = "tuple[Kind, str | None, int, str | None, Mapping[str, str] | None]"

# The very object that messages without headers share, which costs them no copy.
_NO_HEADERS: Final = Message(type="none").headers


@final
class Draft:
    """A message that is being sent, on behalf of whatever runs here.

    Args:
        id: Its id.
        topic: Where it goes.
        payload: What it says.
        labels: What else there is to it.
        scribe: Writes it.
        deadline: When it is of no use any more, or None.
        reply_to: Where the answer goes, or None.

    Raises:
        RejectedError: It would have passed too many services.
    """

    __slots__ = (
        "_deadline",
        "_envelope",
        "_headers",
        "_id",
        "_labels",
        "_origin",
        "_payload",
        "_reply_to",
        "_scribe",
        "topic",
    )

    def __init__(
        self,
        id: str,
        topic: str,
        payload: object,
        labels: Labels,
        *,
        scribe: Scribe,
        deadline: float | None = None,
        reply_to: str | None = None,
    ) -> None:
        self.topic: Final = topic
        self._id = id
        self._payload = payload
        self._labels = labels
        self._scribe = scribe
        self._deadline = deadline
        self._reply_to = reply_to
        self._headers = labels[-1] if tracer() is None else onward(labels[-1])
        self._origin = origin(topic)
        self._envelope: bytes | None = None

    @property
    def envelope(self) -> bytes:
        """The message for another process; with a deadline it says how much is left by now.

        Raises:
            CodecError: It cannot be written, or is too long.
        """
        if self._envelope is None or self._deadline is not None:
            message = self._message(self._payload)
            self._envelope = self._scribe.envelopes.encode(message)
        return self._envelope

    def message(self) -> Message:
        """Return the message for this process; every call makes another one.

        Raises:
            CodecError: It cannot be written, or is too long.
        """
        return self._message(self._scribe.copy(self._payload))

    def _message(self, payload: object) -> Message:
        kind, name, version, key, _ = self._labels
        headers = self._headers
        correlation, causation, hops = self._origin
        return Message(
            id=self._id,
            type=self.topic if name is None else name,
            version=version,
            kind=kind,
            topic=self.topic,
            key=key,
            correlation_id=correlation or self._id,
            causation_id=causation,
            reply_to=self._reply_to,
            deadline=self._deadline,
            hops=hops,
            headers=_NO_HEADERS if headers is None else headers,
            payload=payload,
        )
