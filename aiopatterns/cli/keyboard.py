"""Keys that are pressed, one by one, without Enter.

The terminal is switched to single keys while :meth:`Keyboard.presses` is read and back when that ends,
however it does. Where there is no terminal to read from, there are no keys.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TextIO, final

from anyio import wait_readable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

__all__ = ["Keyboard", "split"]

_NAMED: Final = MappingProxyType(
    {
        b"\x1b[A": "up",
        b"\x1b[B": "down",
        b"\x1bOA": "up",
        b"\x1bOB": "down",
        b"\x1b[5~": "page up",
        b"\x1b[6~": "page down",
    }
)
_CHUNK: Final = 64
_ESCAPE: Final = 0x1B


@final
class Keyboard:
    """The keys of a terminal.

    Args:
        stream: Where keys come from, as ``sys.stdin``.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @contextmanager
    def single(self) -> Generator[bool]:
        """Let keys come one by one in a ``with`` block; False if there is no terminal."""
        try:
            import termios
            import tty
        except ImportError:  # not on Windows
            yield False
            return
        if not self._stream.isatty():
            yield False
            return
        file = self._stream.fileno()
        before = termios.tcgetattr(file)
        tty.setcbreak(file)
        try:
            yield True
        finally:
            termios.tcsetattr(file, termios.TCSADRAIN, before)

    async def presses(self) -> AsyncIterator[str]:
        """Yield keys as they are pressed: ``"q"``, ``"up"``; only inside :meth:`single`.

        Ends with the terminal.
        """
        file = self._stream.fileno()
        while True:
            await wait_readable(file)
            data = os.read(file, _CHUNK)
            if not data:
                return
            for key in split(data):
                yield key


def split(data: bytes) -> Iterator[str]:
    """Yield the keys in what a terminal has sent at once; unknown ones are passed over."""
    while data:
        if data[0] == _ESCAPE:
            found = next((each for each in _NAMED if data.startswith(each)), None)
            if found is None:
                return  # another one, of a length that we do not know
            yield _NAMED[found]
            data = data[len(found) :]
        else:
            if data[:1].isascii():
                yield data[:1].decode("ascii")
            data = data[1:]
