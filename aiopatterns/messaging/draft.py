"""Drafts: a message that is being sent, as often and in as many forms as its ways need.

To another process it goes as an envelope. To a subscription of the same broker it goes as the
message itself, with its payload written and read once by the codec: so a handler gets plain data
of its own, the same as from afar, and a payload that could not travel is refused here as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.core.context import correlation_id
from aiopatterns.core.errors import CodecError
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.serving import causation_id, hops_onward

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.messaging.envelope import Envelopes
    from aiopatterns.messaging.message import Kind

__all__ = ["Draft", "Labels"]


@final
class Labels:
    """What a sender says of a message besides its topic and payload.

    Args:
        kind: What it is for.
        type: What the payload is; None for the topic.
        version: Version of the payload's form.
        key: Its key, or None.
        headers: Anything else.
    """

    __slots__ = ("headers", "key", "kind", "type", "version")

    def __init__(
        self,
        kind: Kind,
        *,
        type: str | None,
        version: int,
        key: str | None,
        headers: Mapping[str, str] | None,
    ) -> None:
        self.kind: Final = kind
        self.type: Final = type
        self.version: Final = version
        self.key: Final = key
        self.headers: Final = headers or {}


@final
class Draft:
    """A message that is being sent, on behalf of whatever runs here.

    Args:
        id: Its id.
        topic: Where it goes.
        payload: What it says.
        labels: What else there is to it.
        envelopes: How it is written.
        deadline: When it is of no use any more, or None.
        reply_to: Where the answer goes, or None.

    Raises:
        RejectedError: It would have passed too many services.
    """

    __slots__ = (
        "_causation",
        "_correlation",
        "_deadline",
        "_envelope",
        "_envelopes",
        "_hops",
        "_id",
        "_labels",
        "_payload",
        "_reply_to",
        "topic",
    )

    def __init__(
        self,
        id: str,
        topic: str,
        payload: object,
        labels: Labels,
        *,
        envelopes: Envelopes,
        deadline: float | None = None,
        reply_to: str | None = None,
    ) -> None:
        self.topic: Final = topic
        self._id = id
        self._payload = payload
        self._labels = labels
        self._envelopes = envelopes
        self._deadline = deadline
        self._reply_to = reply_to
        self._correlation = correlation_id() or id
        self._causation = causation_id()
        self._hops = hops_onward(topic)
        self._envelope: bytes | None = None

    @property
    def envelope(self) -> bytes:
        """The message for another process.

        Raises:
            CodecError: It cannot be written, or is too long.
        """
        if self._envelope is None:
            self._envelope = self._envelopes.encode(self._message(self._payload))
        return self._envelope

    def message(self) -> Message:
        """Return the message for this process; every call makes another one.

        Raises:
            CodecError: It cannot be written, or is too long.
        """
        codec = self._envelopes.codec
        data = codec.encode(self._payload)
        if len(data) > self._envelopes.max_bytes:
            raise CodecError(
                f"a payload of {len(data)} bytes is longer than"
                f" max_bytes={self._envelopes.max_bytes}"
            )
        return self._message(codec.decoder(Any)(data))

    def _message(self, payload: object) -> Message:
        labels = self._labels
        return Message(
            id=self._id,
            type=labels.type or self.topic,
            version=labels.version,
            kind=labels.kind,
            topic=self.topic,
            key=labels.key,
            correlation_id=self._correlation,
            causation_id=self._causation,
            reply_to=self._reply_to,
            deadline=self._deadline,
            hops=self._hops,
            headers=labels.headers,
            payload=payload,
        )
