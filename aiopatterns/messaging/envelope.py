"""Envelopes: a message as bytes, and back, whatever the bytes are.

What comes from a broker, a stream or another program may be old, newer, cut off or hostile. An
envelope opens to a message, or raises one kind of error that says why; nothing is run::

    +----------------------------------+----------------+--------------------------------------+
    | header block (core.codec):       | codec's name   | array by that codec: id, type,       |
    | version, correlation,            | 1 byte + text  | version, kind, topic, key, reply to, |
    | traceparent, time left, hops     |                | causation, attempt, headers, payload |
    +----------------------------------+----------------+--------------------------------------+

A deadline travels as the time that is left and the server's time at which that was so, if sender
and receiver share a server. The header ``traceparent`` travels in the header block, where
programs that know no more than that block find it.

**Codecs.** The first codec writes, every one reads, by the name in front of the array. A codec is
changed in two steps: add the new one at the end everywhere, then put it first.

Guarantees:

* Any bytes open or raise :class:`~aiopatterns.core.errors.CodecError`; those that a newer release
  has written raise its subclass ``UnknownVersionError``.
* What is longer than ``max_bytes`` is neither written nor read.
* A release reads what the release before it wrote. New fields go to the end of the array: an
  older reader leaves them out, a newer one takes the default.

Not guaranteed: that a payload comes back as the type it was sent as. It is plain data then;
:meth:`Envelopes.convert` makes the type of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, final, overload

import msgspec

from aiopatterns.core.clock import monotonic
from aiopatterns.core.codec import JSON, Header, pack, unpack
from aiopatterns.core.errors import CodecError
from aiopatterns.core.validate import count, text
from aiopatterns.messaging.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiopatterns.core.codec import Codec

__all__ = ["MAX_BYTES", "Envelopes", "codec_mark", "split_mark"]

T = TypeVar("T")

#: Bytes in an envelope at most, unless told otherwise.
MAX_BYTES: Final = 1_048_576
#: The header that travels in the header block (W3C Trace Context).
TRACEPARENT: Final = "traceparent"
# One byte says how long the name of a codec is.
_LONGEST_NAME: Final = 255


class _Body(msgspec.Struct, frozen=True, array_like=True):
    """The inner array of an envelope, in the order of the wire; new fields go to the end."""

    id: str
    type: str
    version: int
    kind: str
    topic: str
    key: str | None
    reply_to: str | None
    causation_id: str | None
    attempt: int
    headers: dict[str, str]
    payload: Any


@final
class Envelopes:
    """Makes and opens envelopes.

    Args:
        codec: How messages become bytes; of several the first writes and all read.
        max_bytes: Size of an envelope at most.

    Raises:
        ValueError: No codec, or two of one name.
        TypeError: Something that is no codec.

    Complexity: O(size) for each call.

    Example::

        envelopes = Envelopes(MSGPACK)
        data = envelopes.encode(Message(type="order.created", payload={"id": 17}))
        assert envelopes.decode(data).payload == {"id": 17}
    """

    __slots__ = ("_codec", "_mark", "_max_bytes", "_readers")

    def __init__(
        self, codec: Codec | Sequence[Codec] = JSON, *, max_bytes: int = MAX_BYTES
    ) -> None:
        codecs = _codecs(codec)
        self._codec = codecs[0]
        self._mark = codec_mark(self._codec)
        self._readers: Mapping[bytes, Callable[[bytes], _Body]] = MappingProxyType(
            {codec_mark(each): each.decoder(_Body) for each in codecs}
        )
        self._max_bytes = count("max_bytes", max_bytes)

    @property
    def codec(self) -> Codec:
        """The codec that writes."""
        return self._codec

    @property
    def max_bytes(self) -> int:
        """Size of an envelope at most."""
        return self._max_bytes

    def encode(self, message: Message, *, sent_at: float | None = None) -> bytes:
        """Return ``message`` as bytes.

        Args:
            message: What is sent.
            sent_at: The server's time now, or None if the two ends share no server. Only a
                message with a deadline needs it.

        Raises:
            CodecError: The payload cannot be encoded, or the whole is too long.
        """
        headers, traceparent = _traced(message)
        body = (
            message.id,
            message.type,
            message.version,
            message.kind,
            message.topic,
            message.key,
            message.reply_to,
            message.causation_id,
            message.attempt,
            headers,
            message.payload,
        )
        header = _header(message, traceparent, sent_at)
        data = pack(header, self._mark + self._codec.encode(body))
        if len(data) > self._max_bytes:
            self._refuse(data)
        return data

    def decode(self, data: bytes, *, server_now: float | None = None) -> Message:
        """Return the message that ``data`` holds.

        Args:
            data: Bytes of any origin.
            server_now: The server's time now, or None if the two ends share no server; then the
                time on the way is not taken off the deadline.

        Raises:
            UnknownVersionError: A newer release has written it.
            CodecError: ``data`` is no message, is too long, or is of a codec that is not accepted.
        """
        if len(data) > self._max_bytes:
            self._refuse(data)
        header, payload = unpack(data)
        end = 1 + payload[0] if payload else 0  # of the mark; as split_mark, without a call
        decode = self._readers.get(payload[:end])
        if decode is None:
            raise CodecError(f"written by a codec that is not accepted here: {payload[1:end]!r}")
        try:
            return _message(header, decode(payload[end:]), server_now)
        except (ValueError, TypeError) as error:
            raise CodecError(f"not a message: {error}") from error

    @overload
    @staticmethod
    def convert(payload: object, type: type[T]) -> T: ...
    @overload
    @staticmethod
    def convert(payload: object, type: Any) -> Any: ...
    @staticmethod
    def convert(payload: object, type: Any) -> Any:
        """Return the plain data of a payload as ``type``.

        Args:
            payload: What was received.
            type: A dataclass, a msgspec struct, or any type form that msgspec knows.

        Raises:
            CodecError: The payload is something else, or the type's own code refuses it.
            TypeError: msgspec knows no way to make this type.
        """
        try:
            return msgspec.convert(payload, type)
        except TypeError:
            raise
        except Exception as error:
            wanted = getattr(type, "__name__", str(type))
            raise CodecError(f"the payload is not a {wanted}: {error}") from error

    def _refuse(self, data: bytes) -> NoReturn:
        raise CodecError(
            f"a message of {len(data)} bytes is longer than max_bytes={self._max_bytes}; keep its"
            f" payload under a key of backend.kv, with a ttl, and send the key"
        )


def _traced(message: Message) -> tuple[dict[str, str], str | None]:
    """Return the headers, and the one that travels in the header block, if it says anything."""
    if not message.headers:
        return {}, None
    headers = dict(message.headers)
    traceparent = headers.get(TRACEPARENT)
    if traceparent:
        del headers[TRACEPARENT]
    return headers, traceparent or None


def _header(message: Message, traceparent: str | None, sent_at: float | None) -> Header:
    remaining: float | None = None
    if message.deadline is not None:
        remaining = max(message.deadline - monotonic(), 0.0)
    return Header(
        message.correlation_id,
        traceparent,
        remaining,
        None if remaining is None else sent_at,
        message.hops,
    )


def _message(header: Header, body: _Body, server_now: float | None) -> Message:
    headers = body.headers
    if header.traceparent is not None:
        headers[TRACEPARENT] = header.traceparent
    kind: Any = body.kind  # the constructor refuses what is none
    return Message(
        type=body.type,
        id=body.id,
        version=body.version,
        kind=kind,
        topic=body.topic,
        key=body.key,
        correlation_id=header.correlation_id,
        causation_id=body.causation_id,
        reply_to=body.reply_to,
        deadline=None if header.remaining is None else header.deadline(server_now),
        attempt=body.attempt,
        hops=header.hops,
        headers=headers,
        payload=body.payload,
    )


def split_mark(payload: bytes) -> tuple[bytes, bytes]:
    """Return the codec's mark and what it wrote; a mark that is cut off is no codec's."""
    end = 1 + payload[0] if payload else 0
    return payload[:end], payload[end:]


def codec_mark(codec: Codec) -> bytes:
    """Return what stands in front of all that ``codec`` has written: its name, 1 byte + text."""
    name = text("codec.name", codec.name).encode()
    if len(name) > _LONGEST_NAME:
        msg = f"codec.name must be at most {_LONGEST_NAME} bytes, not {len(name)}"
        raise ValueError(msg)
    return bytes((len(name),)) + name


def _codecs(codec: Codec | Sequence[Codec]) -> tuple[Codec, ...]:
    """Return the codecs, at least one, each of a name of its own."""
    found = tuple(codec) if isinstance(codec, Sequence) else (codec,)
    for each in found:
        if not all(hasattr(each, need) for need in ("name", "encode", "decoder")):
            msg = f"codec must be a codec such as JSON or MSGPACK, or several of them, not {each!r}"
            raise TypeError(msg)
    names = [each.name for each in found]
    if not found or len(set(names)) < len(names):
        msg = f"codec must be one codec or several of different names, not {names!r}"
        raise ValueError(msg)
    return found
