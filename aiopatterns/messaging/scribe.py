"""Scribe: how a broker writes messages and replies, and reads them.

A message to another process is an envelope, and the body of a reply is the codec's name (1 byte +
text) and what it wrote, so that brokers of different codecs understand each other.

What stays in this process is written and read once all the same: so a handler and a requester get
plain data of their own, the same as from afar, and what could not travel is refused here as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.core.codec import JSON, MSGPACK
from aiopatterns.core.errors import CodecError
from aiopatterns.messaging.envelope import Envelopes, codec_mark, split_mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.core.codec import Codec

__all__ = ["Scribe"]


@final
class Scribe:
    """Writes and reads for one broker.

    Args:
        codec: Writes; JSON and msgpack are read as well.
        max_bytes: Size of a message or reply at most.
    """

    __slots__ = ("_decode", "_encode", "_mark", "_max_bytes", "_readers", "envelopes")

    def __init__(self, codec: Codec, *, max_bytes: int) -> None:
        others = (each for each in (MSGPACK, JSON) if each.name != getattr(codec, "name", None))
        codecs = (codec, *others)
        self.envelopes: Final[Envelopes] = Envelopes(codecs, max_bytes=max_bytes)
        self._max_bytes = max_bytes
        self._mark = codec_mark(codec)
        self._encode: Callable[[object], bytes] = codec.encode
        self._readers = {codec_mark(each): each.decoder(Any) for each in codecs}
        self._decode = self._readers[self._mark]

    def copy(self, value: object) -> Any:
        """Return ``value`` as plain data, as another process would read it.

        Raises:
            CodecError: It cannot be written, or is too long.
        """
        data = self._encode(value)
        return self._decode(data if len(data) <= self._max_bytes else self._sized(data))

    def write(self, value: object) -> bytes:
        """Return ``value`` as the body of a reply.

        Raises:
            CodecError: It cannot be written, or is too long.
        """
        return self._sized(self._mark + self._encode(value))

    def read(self, body: bytes) -> Any:
        """Return the value that the body of a reply holds.

        Raises:
            CodecError: It holds none, or by a codec that is not known here.
        """
        mark, inner = split_mark(body)
        read = self._readers.get(mark)
        if read is None:
            raise CodecError(f"the reply was written by a codec that is not known: {mark[1:]!r}")
        return read(inner)

    def _sized(self, data: bytes) -> bytes:
        if len(data) > self._max_bytes:
            raise CodecError(f"{len(data)} bytes are longer than max_bytes={self._max_bytes}")
        return data
