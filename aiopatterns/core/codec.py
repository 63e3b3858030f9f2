"""Bytes: two codecs that run no code, and the one header that travels before every payload.

What comes from a queue, a socket or a cache may be old, cut off or hostile. The codecs here
decode data and nothing but data, into the type that the reader asks for, and say everything that
is wrong by one error. There is no pickle, no marshal and no eval in this library.

``JSON`` is for people and other languages, ``MSGPACK`` for speed. Both are msgspec's.

The header is the same for jobs, messages and the gateway, in front of whatever payload::

    +---------+----------------+--------------------------------------------------+---------+
    | version | header's bytes | msgpack array: correlation, traceparent,         | payload |
    | 1 byte  | 2, big-endian  | remaining seconds, server time of that, hops ... |         |
    +---------+----------------+--------------------------------------------------+---------+

A deadline is absolute in memory and on a clock that no other process has, so the wire carries
the time that remains and the *server's* time at which that was so. The reader takes off what has
passed since, by the server's clock again; a clock that is behind never lengthens the time.

Guarantees:

* Any bytes decode or raise :class:`~aiopatterns.core.errors.CodecError`; any value encodes or
  raises it. A newer version raises its subclass ``UnknownVersionError``.
* A release reads what the release before it wrote. Fields are only ever added at the end of the
  array: an older reader leaves them out, a newer one takes the default. The version byte changes
  only when that is not enough.

Not guaranteed: that a value comes back as the same type when no type is asked for. JSON has no
bytes, tuples or sets, and writes NaN as null; name the type when decoding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, final, overload

import msgspec

from aiopatterns.core.clock import monotonic
from aiopatterns.core.context import correlation_id, remaining
from aiopatterns.core.errors import CodecError, UnknownVersionError
from aiopatterns.core.validate import count, non_negative, text

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JSON", "MSGPACK", "VERSION", "Codec", "Header", "checked_codec", "pack", "unpack"]

T = TypeVar("T")

# The version that this release writes.
VERSION: Final = 1
_SIZE_BYTES: Final = 2
_START: Final = 1 + _SIZE_BYTES
_MAX_HEADER: Final = (1 << 8 * _SIZE_BYTES) - 1
# Decoders are kept for that many types; a program has as many as it has message types.
_KEPT_DECODERS: Final = 256


class Codec(Protocol):
    """How values become bytes and back; users may bring their own.

    An implementation must raise :class:`~aiopatterns.core.errors.CodecError`, and nothing else,
    for any value and any bytes.
    """

    @property
    def name(self) -> str:
        """Short name that is stored with what it wrote, such as ``"json"``."""
        ...

    def encode(self, value: object) -> bytes:
        """Return ``value`` as bytes."""
        ...

    def decoder(self, type: Any) -> Callable[[bytes], Any]:
        """Return the function that decodes bytes into ``type``."""
        ...


@final
class MsgspecCodec:
    """One of the formats of msgspec.

    Args:
        name: Name of the format.
        encode: Encodes one value.
        decoder: Makes a decoder for a type.

    Complexity: O(size).

    Example::

        JSON.encode({"id": 17})  # b'{"id":17}'
        JSON.decode(b'{"id": 17}', dict[str, int])  # {'id': 17}
    """

    __slots__ = ("_decoder", "_encode", "_untyped", "name")

    def __init__(
        self,
        name: str,
        *,
        encode: Callable[[object], bytes],
        decoder: Callable[[Any], Callable[[bytes], Any]],
    ) -> None:
        self.name: str = name
        self._encode = encode

        def make(kind: Any) -> Callable[[bytes], Any]:
            return _guarded(name, kind, decoder(kind))

        self._decoder = lru_cache(_KEPT_DECODERS)(make)
        self._untyped = make(Any)

    def __repr__(self) -> str:
        return self.name.upper()

    def encode(self, value: object) -> bytes:
        """Return ``value`` as bytes.

        Args:
            value: Numbers, strings, bytes, None, dates, collections, dataclasses, msgspec
                structs, and whatever is made of these.

        Raises:
            CodecError: The value cannot be encoded.
        """
        try:
            return self._encode(value)
        except Exception as error:
            raise CodecError(f"cannot encode {_kind(value)} as {self.name}: {error}") from error

    @overload
    def decoder(self, type: type[T]) -> Callable[[bytes], T]: ...
    @overload
    def decoder(self, type: Any) -> Callable[[bytes], Any]: ...
    def decoder(self, type: Any) -> Callable[[bytes], Any]:
        """Return the function that decodes bytes into ``type``; it raises only CodecError.

        Args:
            type: A class, or a type form such as ``int | None``; hashable.

        Raises:
            TypeError: msgspec knows no way to make this type.

        Complexity: O(1) if this codec has made a decoder for the type before.
        """
        return self._decoder(type)

    @overload
    def decode(self, data: bytes) -> Any: ...
    @overload
    def decode(self, data: bytes, type: type[T]) -> T: ...
    @overload
    def decode(self, data: bytes, type: Any) -> Any: ...
    def decode(self, data: bytes, type: Any = Any) -> Any:
        """Return the value of ``data``.

        Args:
            data: Bytes of any origin.
            type: What it must be; by default whatever it is.

        Raises:
            CodecError: ``data`` is malformed or holds something else.
            TypeError: msgspec knows no way to make this type.
        """
        decode = self._untyped if type is Any else self._decoder(type)
        return decode(data)


def checked_codec(codec: Codec) -> Codec:
    """Return ``codec`` if it is one, whoever has made it.

    Raises:
        TypeError: It is none; names the parameter ``codec``.
    """
    if not all(hasattr(codec, need) for need in ("name", "encode", "decoder")):
        msg = f"codec must be a codec such as JSON or MSGPACK, not {codec!r}"
        raise TypeError(msg)
    return codec


def _guarded(name: str, kind: object, decode: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """Let ``decode`` raise one kind of error."""

    def guarded(data: bytes) -> T:
        try:
            return decode(data)
        except Exception as error:
            wanted = "value" if kind is Any else getattr(kind, "__name__", str(kind))
            raise CodecError(f"not a {name} {wanted}: {error}") from error

    return guarded


def _kind(value: object) -> str:
    return type(value).__name__


JSON: Final = MsgspecCodec(
    "json",
    encode=msgspec.json.Encoder().encode,
    decoder=lambda kind: msgspec.json.Decoder(kind).decode,
)
MSGPACK: Final = MsgspecCodec(
    "msgpack",
    encode=msgspec.msgpack.Encoder().encode,
    decoder=lambda kind: msgspec.msgpack.Decoder(kind).decode,
)


@final
class Header(msgspec.Struct, frozen=True, array_like=True):
    """What travels before a payload, in the order of the wire; new fields go to the end.

    Args:
        correlation_id: Id that joins everything done for one request, or None.
        traceparent: The W3C trace context of the sender, as it is, or None.
        remaining: Seconds until the deadline, 0 or more, or None for no deadline.
        sent_at: Time at which ``remaining`` was so, by the server's clock in seconds since
            1970, or None if the two ends share no server.
        hops: How many services the work has passed.

    Raises:
        ValueError: A field is out of its range.
        TypeError: A field is of another type.
    """

    correlation_id: str | None = None
    traceparent: str | None = None
    remaining: float | None = None
    sent_at: float | None = None
    hops: int = 0

    def __post_init__(self) -> None:
        """Refuse what no reader could use; decoding runs this as well."""
        correlation, hops = self.correlation_id, self.hops
        usual = (
            self.traceparent is None
            and self.remaining is None
            and self.sent_at is None
            and (correlation is None or (correlation.__class__ is str and correlation))
            and hops.__class__ is int
            and hops >= 0
        )
        if not usual:
            self._refuse()

    def _refuse(self) -> None:
        """Name what is wrong, if anything is."""
        if self.correlation_id is not None:
            text("correlation_id", self.correlation_id)
        if self.traceparent is not None:
            text("traceparent", self.traceparent)
        if self.remaining is not None:
            non_negative("remaining", self.remaining)
        if self.sent_at is not None:
            non_negative("sent_at", self.sent_at)
        count("hops", self.hops, minimum=0)

    @classmethod
    def here(
        cls, *, sent_at: float | None = None, traceparent: str | None = None, hops: int = 0
    ) -> Header:
        """Return the header of what is sent from here: the bound correlation and deadline.

        Args:
            sent_at: The server's time now, or None if the two ends share no server.
            traceparent: The W3C trace context of the current span, or None.
            hops: How many services the work has passed.
        """
        left = remaining()
        return cls(
            correlation_id=correlation_id(),
            traceparent=traceparent,
            remaining=None if left is None else max(left, 0.0),
            sent_at=sent_at,
            hops=hops,
        )

    def deadline(self, server_now: float | None = None) -> float | None:
        """Return the deadline in monotonic seconds of this process, or None.

        Args:
            server_now: The server's time now; None if the two ends share no server, and then
                the time on the way is not taken off.
        """
        if self.remaining is None:
            return None
        passed = 0.0
        if server_now is not None and self.sent_at is not None:
            passed = max(server_now - self.sent_at, 0.0)
        return monotonic() + self.remaining - passed


_header_of = MSGPACK.decoder(Header)


def pack(header: Header, payload: bytes) -> bytes:
    """Put ``header`` in front of ``payload``.

    Raises:
        CodecError: The header is longer than 65,535 bytes.

    Complexity: O(size).
    """
    block = MSGPACK.encode(header)
    if len(block) > _MAX_HEADER:
        raise CodecError(f"a header holds at most {_MAX_HEADER} bytes, not {len(block)}")
    return b"".join((bytes((VERSION,)), len(block).to_bytes(_SIZE_BYTES, "big"), block, payload))


def unpack(data: bytes) -> tuple[Header, bytes]:
    """Split what :func:`pack` wrote, in this release or the one before.

    Args:
        data: Bytes of any origin.

    Returns:
        The header and the payload.

    Raises:
        UnknownVersionError: The version byte is none that this release knows.
        CodecError: ``data`` is malformed or cut off.

    Complexity: O(size).
    """
    if len(data) < _START:
        raise CodecError(f"cut off: {len(data)} bytes hold no header")
    if data[0] != VERSION:
        raise UnknownVersionError(version=data[0])
    end = _START + (data[1] << 8 | data[2])  # big-endian; a third of the cost of int.from_bytes
    if len(data) < end:
        raise CodecError(f"cut off: the header needs {end} bytes, there are {len(data)}")
    return _header_of(data[_START:end]), data[end:]
