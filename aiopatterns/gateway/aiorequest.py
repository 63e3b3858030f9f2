"""A request of aiohttp's client with the headers that it was given, and no others.

What a client would add by itself (``User-Agent``, ``Accept``, ``Accept-Encoding``, ``Content-Type``)
it can be told to leave out; it then copies all headers of each request to see which it has to, which
takes longer than the gateway takes to make them.

aiohttp is imported with this file, so this file is imported late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import ClientRequest
from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PlainRequest"]

# What the client asks for when it sends a body.
_SKIPPED: Final = CIMultiDict[None]([("Content-Type", None)])


class PlainRequest(ClientRequest):
    """A request to which the client adds nothing but its framing."""

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        """Add no header; called by the client."""
        del skip_auto_headers
        self._skip_auto_headers = _SKIPPED
