"""Where one request or reply of the Redis protocol ends and the next begins.

A fault that hits "the reply to that script" must know which bytes are that reply, whatever the
network made of them: several replies in one chunk, or one in several. Nothing is decoded; a frame
is the bytes of one whole value (RESP2 and RESP3), nested ones included, or one line of anything
else. Each byte is looked at once, however many chunks a frame arrives in.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, final

__all__ = ["Frames", "is_push"]

_BLOBS: Final = b"$=!"
# How many further values one element of an aggregate stands for.
_AGGREGATES: Final = MappingProxyType(
    {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2, ord("|"): 2}
)
_ATTRIBUTE: Final = ord("|")
_END: Final = b"\r\n"


@final
class Frames:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_at", "_buffer", "_open")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0  # all before it is known to belong to the frame that is being read
        self._open = 1  # values that this frame still needs

    def feed(self, data: bytes) -> list[bytes]:
        """Take what has arrived and return the frames that are complete with it.

        Complexity: linear in the number of values.
        """
        self._buffer += data
        frames: list[bytes] = []
        while self._step():
            if self._open == 0:
                frames.append(bytes(self._buffer[: self._at]))
                del self._buffer[: self._at]
                self._at, self._open = 0, 1
        return frames

    def _step(self) -> bool:
        """Pass one value, without what is nested in it; False if it is not all there."""
        end = self._buffer.find(_END, self._at)
        if end < 0:
            return False
        kind = self._buffer[self._at]
        after = end + len(_END)
        length = self._length(end) if kind in _BLOBS or kind in _AGGREGATES else -1
        if kind in _BLOBS and length >= 0:
            after += length + len(_END)
        if after > len(self._buffer):
            return False
        self._at = after
        self._open += max(length, 0) * _AGGREGATES.get(kind, 0) - (kind != _ATTRIBUTE)
        return True

    def _length(self, end: int) -> int:
        """Return how much follows a header; -1 for the null of RESP2, and for what is no header."""
        digits = self._buffer[self._at + 1 : end]
        return int(digits) if digits.isdigit() else -1


def is_push(frame: bytes) -> bool:
    """Whether the server sent this unasked (RESP3): it answers no request."""
    return frame.startswith(b">")
