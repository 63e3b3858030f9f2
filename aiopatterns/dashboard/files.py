"""The files of the page: read once, given out from memory, each with its tag.

There are few and they are small (150 KB in all), so there is no path of a request that could lead
anywhere. A browser asks again each time, with the tag, and is told that nothing has changed: a new
release shows at once.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Page", "StaticFile", "load"]

_TYPES: Final = MappingProxyType(
    {
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }
)


@final
class StaticFile(NamedTuple):
    """One file: its bytes, their type, their tag."""

    body: bytes
    media_type: str
    etag: str


@final
class Page(NamedTuple):
    """The template of the page, and the files by their names."""

    template: str
    files: Mapping[str, StaticFile]


def load() -> Page:
    """Read everything from the package; for once, about a millisecond."""
    here = files("aiopatterns.dashboard")
    found: dict[str, StaticFile] = {}
    for each in (here / "static").iterdir():
        media_type = _TYPES.get(each.name.rpartition(".")[2])
        if media_type is not None:
            body = each.read_bytes()
            found[each.name] = StaticFile(
                body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            )
    template = (here / "templates" / "dashboard.html").read_text("utf-8")
    return Page(template, MappingProxyType(found))
