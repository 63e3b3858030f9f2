"""Lua scripts: one file each, read when first needed, named on the wire by their SHA-1.

A script is an atomic step on the server. It travels once: later calls send its 40 hex digits
(EVALSHA), and a server that does not know them (restarted, flushed, another node) says NOSCRIPT
before anything ran, upon which the client sends the text.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from importlib.resources import files
from typing import final

from aiopatterns.core.validate import text

__all__ = ["Script"]


@final
class Script:
    """The script ``lua/<name>.lua``; may be made at module level, reads no file until used.

    Args:
        name: Name of the file without its suffix.
    """

    def __init__(self, name: str) -> None:
        self.name = text("name", name)

    @cached_property
    def text(self) -> str:
        """The source."""
        return (
            files("aiopatterns.backends.redis").joinpath(f"lua/{self.name}.lua").read_text("utf-8")
        )

    @cached_property
    def sha(self) -> str:
        """What the server calls it: the SHA-1 of the source, in hex."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"Script({self.name!r})"
