"""A file that is there as a whole or not at all.

A report that takes a minute to make must not fail in its last line because its folder cannot be
written, and must never be left half-written. So the place is reserved before the work begins::

    Output(path)          write(text)                      path holds the text
    reserve() ----------> fill, flush to disk, rename ---> or what it held before
        |                     |
        OSError               OSError: the temporary file is gone

Guarantees: whoever reads ``path`` sees the old content or the new one. After an error, a
cancellation or :meth:`Output.discard` nothing is left of the reservation.

Non-guarantees: a killed program leaves the temporary file, ``.<name>.<letters>.tmp`` beside
``path``. Where ``path`` is no regular file (a pipe, ``/dev/stdout``) the text is written to it as
it is, since such a thing must not be replaced.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Output"]


@final
class Output:
    """A place for one text.

    Args:
        path: Where the text shall be. A link is followed, so that it stays a link.

    Use it as a context manager: leaving the block discards what was not written.
    """

    __slots__ = ("_reserved", "_target", "path")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)
        self._target = Path(os.path.realpath(self.path))
        self._reserved: Path | None = None

    def reserve(self) -> None:
        """Make sure that the text can be written, by making its temporary file.

        Raises:
            OSError: It cannot; the error names the path that was asked for.
        """
        if self._is_special():
            self._check(self._target)
            return
        if self._target.exists():
            self._check(self._target)
        self.discard()
        name = f".{self._target.name}.{secrets.token_hex(4)}.tmp"
        reserved = self._target.with_name(name)
        try:
            os.close(os.open(reserved, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            raise self._named(error) from None
        self._reserved = reserved

    def write(self, text: str) -> None:
        """Put ``text`` in its place.

        Raises:
            OSError: The disk is full, or something else is in the way; nothing is left behind.
        """
        data = text.encode("utf-8", "replace")
        try:
            if self._is_special():
                self._target.write_bytes(data)
            else:
                self._fill(data)
        except OSError as error:
            self.discard()
            raise self._named(error) from None

    def discard(self) -> None:
        """Give the place up; harmless after a write."""
        reserved, self._reserved = self._reserved, None
        if reserved is not None:
            with suppress(OSError):
                reserved.unlink()

    def __enter__(self) -> Self:
        """Reserve the place."""
        self.reserve()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Discard what was not written."""
        self.discard()

    def _fill(self, data: bytes) -> None:
        """Fill the temporary file and let it take the place."""
        if self._reserved is None:
            self.reserve()
        assert self._reserved is not None, "reserve() has set it"
        with self._reserved.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._reserved.replace(self._target)
        self._reserved = None

    def _is_special(self) -> bool:
        return self._target.exists() and not self._target.is_file() and not self._target.is_dir()

    def _check(self, target: Path) -> None:
        """Open what is there for writing, without a change to it."""
        try:
            os.close(os.open(target, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0)))
        except OSError as error:
            raise self._named(error) from None

    def _named(self, error: OSError) -> OSError:
        """Name the path that the user gave, not the temporary one."""
        return type(error)(error.errno, error.strerror, str(self.path))
