"""A request as it goes on the wire: its head, framed anew.

Guarantees: a request with a line break in its head, or a blank in its target, does not leave; what a
client said about the length of its body is not repeated, but said anew by what is known of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiopatterns.gateway.transport import Outgoing

__all__ = ["framed"]

# Methods whose requests say that they have no body; of the others nobody expects one.
_WITH_BODY: Final = frozenset({b"POST", b"PUT", b"PATCH"})
# A target has no blanks, controls or octets beyond ASCII.
_TARGET: Final = re.compile(rb"[!-~]+").fullmatch
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"


def framed(outgoing: Outgoing) -> bytes:
    """Return what to write of a request: its head, framed anew, and its body unless streamed.

    Raises:
        ValueError: The head has a line break where none may be, or a blank in its target.
    """
    headers, target, body = outgoing.headers, outgoing.target, outgoing.body
    lines = b"\r\n".join([b": ".join(header) for header in headers])
    breaks = len(headers) - 1
    if lines.count(b"\n") != breaks or lines.count(b"\r") != breaks or not _TARGET(target):
        raise ValueError(f"a request's head may have no line break: {outgoing!r:.200}")
    if body is None:
        framing = b"content-length: 0\r\n" if outgoing.method in _WITH_BODY else b""
        body = b""
    elif isinstance(body, bytes):
        framing = b"content-length: %d\r\n" % len(body)
    else:
        framing = (
            _CHUNKED if outgoing.length is None else b"content-length: %d\r\n" % outgoing.length
        )
        body = b""
    return b"%b %b HTTP/1.1\r\n%b\r\n%b\r\n%b" % (outgoing.method, target, lines, framing, body)
