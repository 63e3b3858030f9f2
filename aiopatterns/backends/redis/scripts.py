"""Lua scripts: one file each, read when first needed, named on the wire by their SHA-1.

A script is an atomic step on the server. It travels once: later calls send its 40 hex digits
(EVALSHA), and a server that does not know them (restarted, flushed, another node) says NOSCRIPT
before anything ran, upon which the client sends the text.

A script cannot load another one, so what several share stands in a file of its own, and the line
``-- include <name>`` is replaced by it.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from importlib.resources import files
from typing import Final, final

from aiopatterns.core.validate import text

__all__ = ["Script"]

_INCLUDE: Final = re.compile(r"^-- include (\w+)$", re.MULTILINE)


@final
class Script:
    """The script ``lua/<name>.lua``; may be made at module level, reads no file until used.

    Args:
        name: Name of the file without its suffix.
    """

    def __init__(self, name: str) -> None:
        self.name: str = text("name", name)

    @cached_property
    def text(self) -> str:
        """The source, with the files that it includes."""
        return _INCLUDE.sub(lambda found: _read(found[1]), _read(self.name))

    @cached_property
    def sha(self) -> str:
        """What the server calls it: the SHA-1 of the source, in hex."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"Script({self.name!r})"


def _read(name: str) -> str:
    return files("aiopatterns.backends.redis").joinpath(f"lua/{name}.lua").read_text("utf-8")
