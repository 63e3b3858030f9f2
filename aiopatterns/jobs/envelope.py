"""Envelopes: a call as bytes, its result and its error, all of them checked before they are read.

What lies in a queue may be old, foreign or forged. An envelope is data and nothing but data, and
opens only if everything about it is right::

    +------+---------------+------------------+-------------------------------------------+
    | form | tag           | header block     | codec's name | [name, enqueued at, args,  |
    | 1 B  | 32 B, form 2  | (core.codec)     | 1 B + text   |  kwargs] by that codec     |
    +------+---------------+------------------+-------------------------------------------+
    results: form, tag, codec's name, the value       errors: form, tag, [type, message, traceback]

**Signing.** With keys, the tag is HMAC-SHA256 over what the bytes are (a call, a result, an error)
and all that follows it. The first key signs, every key verifies, so a key is changed in two steps:
add the new one at the end everywhere, then put it first. With keys nothing unsigned is opened,
without keys nothing signed. A signature tells who wrote the bytes, not that they are new.

**Codecs.** The first codec writes, every one reads, by the name in front of the value. A codec is
changed in the same two steps.

Guarantees:

* Any bytes open or raise :class:`~aiopatterns.core.errors.CodecError`; the tag is compared, in
  constant time, before anything is decoded.
* What is longer than ``max_bytes`` is neither written nor read.
* A release reads what the release before it wrote; new fields go to the end of the arrays.

Source: RFC 2104 (HMAC).
"""

from __future__ import annotations

import hmac
import traceback as tracebacks
from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

import msgspec

from aiopatterns.core.codec import JSON, MSGPACK, Header, pack, unpack
from aiopatterns.core.errors import CodecError
from aiopatterns.core.validate import count, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiopatterns.core.codec import Codec

__all__ = ["MAX_BYTES", "Envelope", "Envelopes", "ErrorRecord"]

Key: TypeAlias = str | bytes

#: Bytes in an envelope or a result at most, unless told otherwise.
MAX_BYTES: Final = 1_048_576
_MIN_KEY: Final = 16
_PLAIN: Final = b"\x01"
_SIGNED: Final = b"\x02"
_TAG: Final = 32
# The header of most jobs: nothing is bound where they are enqueued.
_NOTHING: Final = Header()
EMPTY: Final = pack(_NOTHING, b"")
# What the bytes are, under the tag: a result never passes for a call.
_CALL: Final = b"call:"
_RESULT: Final = b"result:"
_ERROR: Final = b"error:"
# Characters of an error's message and of its traceback (the end of it) that are kept.
_MAX_MESSAGE: Final = 4_000
_MAX_TRACEBACK: Final = 16_000


class Envelope(NamedTuple):
    """One call of a job's function.

    Attributes:
        name: The job's name.
        args: Positional arguments, as the codec gives them.
        kwargs: Keyword arguments, likewise.
        enqueued_at: The server's time at which it was enqueued, in seconds since 1970.
        header: Correlation, deadline and hops.
    """

    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    enqueued_at: float
    header: Header


@final
class ErrorRecord(msgspec.Struct, frozen=True, array_like=True):
    """An error as it is kept: never the object, which could hold anything.

    Attributes:
        type: Name of its class.
        message: Its text.
        traceback: Where it was raised, or empty.
    """

    type: str
    message: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> ErrorRecord:
        """Return the record of ``error``; long texts are cut."""
        lines = tracebacks.format_exception(error) if error.__traceback__ is not None else []
        return cls(
            type(error).__name__,
            _clean(_message(error))[:_MAX_MESSAGE],
            _clean("".join(lines))[-_MAX_TRACEBACK:],
        )


class _Call(msgspec.Struct, frozen=True, array_like=True):
    """The inner array of an envelope, in the order of the wire."""

    name: str
    enqueued_at: float
    args: list[Any]
    kwargs: dict[str, Any]


_error_of = MSGPACK.decoder(ErrorRecord)
_CRASHED: Final = ErrorRecord("WorkerCrashedError", "its worker died under it, too many times")


@final
class Envelopes:
    """Makes and opens the envelopes of one queue.

    Args:
        codec: How values become bytes; of several the first writes and all read.
        signing: Keys of at least 16 bytes, the first signs and all verify; none: nothing is
            signed.
        max_bytes: Size of an envelope or a result at most.

    Raises:
        ValueError: No codec, two of one name, a key that is too short.

    Complexity: O(size) for each call.
    """

    __slots__ = ("_codec", "_decoders", "_mark", "_max_bytes", "_readers", "_signing")

    def __init__(
        self,
        codec: Codec | Sequence[Codec] = JSON,
        *,
        signing: Sequence[Key] = (),
        max_bytes: int = MAX_BYTES,
    ) -> None:
        codecs = _codecs(codec)
        self._codec = codecs[0]
        self._mark = _mark(self._codec)
        self._readers: Mapping[bytes, Codec] = MappingProxyType({_mark(c): c for c in codecs})
        self._decoders = {_mark(c): c.decoder(_Call) for c in codecs}
        self._signing = tuple(_key(each) for each in _keys(signing))
        self._max_bytes = count("max_bytes", max_bytes)

    @property
    def codec(self) -> Codec:
        """The codec that writes."""
        return self._codec

    def encode(self, envelope: Envelope) -> bytes:
        """Return ``envelope`` as bytes.

        Raises:
            CodecError: An argument cannot be encoded, or the whole is too long.
        """
        encode = self.encoder(pack(envelope.header, b""), envelope.enqueued_at)
        return encode(envelope.name, envelope.args, envelope.kwargs)

    def encoder(
        self, block: bytes, enqueued_at: float
    ) -> Callable[[str, Sequence[Any], Mapping[str, Any]], bytes]:
        """Return what makes envelopes of calls that share a header; for many at once.

        Args:
            block: The header as ``pack(header, b"")`` gives it.
            enqueued_at: The server's time.

        Returns:
            A function of a job's name, positional and keyword arguments; it raises as
            :meth:`encode`.
        """
        head, encode = block + self._mark, self._codec.encode
        plain, room = _PLAIN + head, self._max_bytes - len(head)

        def encode_call(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
            data = encode((name, enqueued_at, args, kwargs))
            if len(data) <= room and not self._signing:
                return plain + data
            return self._seal(_CALL, self._sized("call", head + data))

        return encode_call

    def decode(self, body: bytes) -> Envelope:
        """Return the envelope that ``body`` holds.

        Raises:
            CodecError: ``body`` is no envelope, is too long, is signed by nobody known here, or
                is of a codec that is not accepted.
        """
        data = self._sized("call", self._open(_CALL, body))
        if data.startswith(EMPTY):
            header, payload = _NOTHING, data[len(EMPTY) :]
        else:
            header, payload = unpack(data)
        mark, inner = _split(payload)
        decode = self._decoders.get(mark)
        if decode is None:
            raise _foreign(mark)
        call: _Call = decode(inner)
        return Envelope(call.name, call.args, call.kwargs, call.enqueued_at, header)

    def encode_result(self, value: object) -> bytes:
        """Return a job's result as bytes.

        Raises:
            CodecError: ``value`` cannot be encoded, or is too long.
        """
        return self._seal(_RESULT, self._sized("result", self._mark + self._codec.encode(value)))

    def decode_result(self, data: bytes, type: Any = Any) -> Any:
        """Return the result that ``data`` holds.

        Args:
            data: What :meth:`encode_result` gave.
            type: What it must be; by default whatever it is.

        Raises:
            CodecError: ``data`` is no result, or one of another type.
        """
        mark, value = _split(self._sized("result", self._open(_RESULT, data)))
        codec = self._readers.get(mark)
        if codec is None:
            raise _foreign(mark)
        return codec.decoder(type)(value)

    def encode_error(self, record: ErrorRecord) -> bytes:
        """Return an error's record as bytes."""
        return self._seal(_ERROR, MSGPACK.encode(record))

    def decode_error(self, data: bytes) -> ErrorRecord:
        """Return the record that ``data`` holds.

        Raises:
            CodecError: ``data`` is no record.
        """
        return _error_of(self._open(_ERROR, data))

    def read_error(self, data: bytes) -> ErrorRecord:
        """Return the record that ``data`` holds, or one that says why there is none.

        No data at all is what the queue itself writes of a job whose worker died too often.
        """
        if not data:
            return _CRASHED
        try:
            return self.decode_error(data)
        except CodecError as error:
            return ErrorRecord.of(error)

    def _sized(self, what: str, data: bytes) -> bytes:
        if len(data) > self._max_bytes:
            raise CodecError(
                f"a {what} of {len(data)} bytes is longer than max_bytes={self._max_bytes}; keep it"
                f" under a key of backend.kv, with a ttl, and pass the key"
            )
        return data

    def _seal(self, what: bytes, data: bytes) -> bytes:
        if not self._signing:
            return _PLAIN + data
        return b"".join((_SIGNED, _tag(self._signing[0], what, data), data))

    def _open(self, what: bytes, sealed: bytes) -> bytes:
        """Return what was sealed, if this queue may read it."""
        form = sealed[:1]
        if form == _PLAIN and not self._signing:
            return sealed[1:]
        if form == _SIGNED and self._signing:
            tag, data = sealed[1 : 1 + _TAG], sealed[1 + _TAG :]
            if any(hmac.compare_digest(tag, _tag(key, what, data)) for key in self._signing):
                return data
            raise CodecError("signed by none of the keys of this queue, or changed since")
        if form in {_PLAIN, _SIGNED}:
            have = "is not signed, but this queue has keys"
            raise CodecError("is signed, but this queue has no key" if form == _SIGNED else have)
        raise CodecError(f"neither a signed nor a plain envelope: it begins with {form!r}")


def _tag(key: bytes, what: bytes, data: bytes) -> bytes:
    return hmac.digest(key, what + data, "sha256")


def _split(payload: bytes) -> tuple[bytes, bytes]:
    """Return the codec's mark and what it wrote; a mark that is cut off is no codec's."""
    end = 1 + payload[0] if payload else 0
    return payload[:end], payload[end:]


def _mark(codec: Codec) -> bytes:
    name = text("codec.name", codec.name).encode()
    return bytes((len(name),)) + name


def _foreign(mark: bytes) -> CodecError:
    return CodecError(f"written by a codec that this queue does not accept: {mark[1:]!r}")


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


def _keys(signing: Sequence[Key]) -> Sequence[Key]:
    if isinstance(signing, (str, bytes)) or not isinstance(signing, Sequence):
        msg = f"signing must be a sequence of keys, the first of which signs, not one {_kind(signing)}"
        raise TypeError(msg)
    return signing


def _key(key: Key) -> bytes:
    """Return a key as bytes; its value is shown in no message."""
    found = key.encode() if isinstance(key, str) else key
    if not isinstance(found, bytes):
        msg = f"signing must hold keys of str or bytes, not {_kind(key)}"
        raise TypeError(msg)
    if len(found) < _MIN_KEY:
        msg = f"signing must hold keys of at least {_MIN_KEY} bytes, not {len(found)}"
        raise ValueError(msg)
    return found


def _kind(value: object) -> str:
    """Return the type of what may be a secret."""
    return type(value).__name__


def _message(error: BaseException) -> str:
    """Return the text of a user's error, whose ``__str__`` may fail as well."""
    try:
        return str(error)
    except Exception as broken:
        return f"(its message raised {type(broken).__name__})"


def _clean(value: str) -> str:
    """Return text that UTF-8 can hold."""
    return value.encode("utf-8", "replace").decode()
