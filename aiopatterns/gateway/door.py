"""The door: uvicorn's HTTP/1.1 protocol with bounds on what a client may do before it is a request.

uvicorn parses strictly, but waits for ever for the rest of a head, holds one of any length, takes
trailers for headers, and keeps a closed connection for as long as its client takes nothing. ``serve``
passes this class to it; so can whoever runs a server of his own::

    uvicorn.Config(gateway, http=door(gateway.limits), proxy_headers=False, server_header=False)

    connection --- head --------- body ----------- answer --------- closed
                   deadline       overhead         bytes taken      deadline
                   431, 414, 400  400              or aborted       or aborted

Guarantees:

* A head ends within ``patience`` seconds, or its connection does (408); so do what is left of a body
  after its answer, and a connection that is being closed. An answer of which nothing is taken ends
  with its connection after six times as long, whatever the gateway says.
* A head is held up to ``max_headers + max_target`` bytes and one read of the socket; what stands
  between the bytes of a body, such as extensions of chunks and trailers, has the same bound.
* Trailers are no headers. What cannot be parsed is answered with 400, after the answers to what came
  before it, and closes the connection; nothing after it is looked at.
* A client has ``PIPELINED`` requests under way on a connection at most.

Non-guarantees: how fast a body comes is the gateway's matter (``Timeouts``), and the number of
connections that of the system and of uvicorn's ``limit_concurrency``.

Source: RFC 9112 sections 2.2, 3.2.2, 6.1, 6.3 and 11.2; RFC 9110 section 6.5.1 (trailers).
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from aiopatterns.core.clock import Alarms
from aiopatterns.core.validate import positive

if TYPE_CHECKING:
    from httptools import HttpRequestParser

    from aiopatterns.gateway.policy import Limits

__all__ = ["PIPELINED", "Door", "door"]

#: Requests of one connection that are under way, but for those of one read of the socket.
PIPELINED: Final = 64
_PATIENCE: Final = 10.0
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_SCHEMES: Final = (b"http", b"https")
_TARGET: Final = re.compile(rb"[!\"$-~]+").fullmatch
# For so many pulses the same may be waited for; answers are the gateway's matter, and bounded by it.
_BEATS: Final = MappingProxyType({"head": 1, "close": 1, "take": 12})
# Bytes of framing that each byte of a body may have.
_FRAMING: Final = 16
_BAD: Final = (400, "this is no valid request")
_LATE: Final = (408, "the request did not come in time")
_LONG_HEAD: Final = (431, "the headers are too long")
_LONG_TARGET: Final = (414, "the target is too long")


class Door(HttpToolsProtocol):
    """One connection of a client; uvicorn makes it.

    Attributes:
        room: Bytes of a head, or of what stands between the bytes of a body.
        longest: Bytes of a target.
        patience: Seconds for a head.
    """

    room: ClassVar[int]
    longest: ClassVar[int]
    patience: ClassVar[float]
    pulses: ClassVar[Alarms | None] = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._parsing().set_dangerous_leniencies(lenient_data_after_close=False)
        self._left = self.room
        self._heads = self._running = self._beats = 0
        self._in_head, self._begun, self._deaf = True, False, False
        self._refusal: tuple[int, str] | None = None
        self._before: tuple[str, int] | None = None
        kind = type(self)
        if kind.pulses is None or not kind.pulses.serves():
            kind.pulses = Alarms(self.patience / 2)
        self._pulses = kind.pulses
        self._pulses.arm(self._pulse)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._pulses.disarm(self._pulse)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client sent, unless all has been said."""
        if self._deaf or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._left -= len(data)
        try:
            self._parsing().feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._upgrade(whole=upgrade.args[0] == len(data))
        except HttpParserError:
            self._refuse(_BAD)
        else:
            if self._left < 0:
                self._refuse(self._too_long())

    # -- what the parser finds -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request, if there are not too many already."""
        if self._running >= PIPELINED:
            raise _refused("too many requests at once")
        self._begun = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are none."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Let a request begin."""
        upgrades = self._parsing().should_upgrade() and self._should_upgrade()
        if self._parsing().get_http_version() not in _VERSIONS:
            raise _refused("another version")
        if not _is_target(self.url, self.headers) or (upgrades and _has_body(self.headers)):
            raise _refused("a target for somebody else, or a body where none can be")
        super().on_headers_complete()
        self._left = self.room
        self._heads += 1
        if not upgrades:
            self._in_head = False
            self._running += 1

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._left = min(self.room, self._left + _FRAMING * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next head."""
        super().on_message_complete()
        self._in_head, self._begun, self._left = True, False, self.room

    def on_response_complete(self) -> None:
        """Go on with the next request, or say what is wrong with it."""
        self._running -= 1
        super().on_response_complete()
        if self._refusal is not None and not self._running and not self.transport.is_closing():
            self._say(self._refusal)

    # -- private core --------------------------------------------------------------------------

    def _parsing(self) -> HttpRequestParser:
        assert self.parser is not None, "the connection is there"
        return self.parser

    def _upgrade(self, *, whole: bool) -> None:
        """Become a WebSocket, or stay what it is and end after the answer."""
        if not self._should_upgrade():
            self._deaf = True  # what follows may be of any protocol
            self.cycle.keep_alive = False
        elif self._running or not whole:
            self._refuse(_BAD)
        else:
            self._pulses.disarm(self._pulse)
            self.handle_websocket_upgrade()

    def _refuse(self, refusal: tuple[int, str]) -> None:
        """Read no more; answer what is under way, then this."""
        self._deaf = True
        if not self._in_head and not self._drop_broken():
            self.transport.close()
        elif self._running:
            self._refusal = refusal
        else:
            self._say(refusal)

    def _drop_broken(self) -> bool:
        """End the request whose body is broken; whether it can still be answered."""
        cycle = self.cycle
        if cycle.response_complete:
            return False
        self._running -= 1
        cycle.disconnected = True
        cycle.message_event.set()
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()
        return not cycle.response_started

    def _say(self, refusal: tuple[int, str]) -> None:
        """Write an answer of the door's own, the last one."""
        self._unset_keepalive_if_required()
        status, why = refusal
        body = b'{"title":"%b","status":%d}' % (why.encode(), status)
        self.transport.write(
            STATUS_LINE[status] + b"content-type: application/problem+json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body
        )
        self.transport.close()

    def _too_long(self) -> tuple[int, str]:
        if not self._in_head:
            return _BAD
        return _LONG_TARGET if len(self.url) > self.longest else _LONG_HEAD

    def _pulse(self) -> None:
        """End what has been waited for since the pulse before."""
        self._pulses.arm(self._pulse)
        awaited = self._awaited()
        self._beats = 0 if awaited is None or awaited != self._before else self._beats + 1
        self._before = awaited
        if awaited is None or self._beats < _BEATS[awaited[0]]:
            return
        if awaited[0] != "head":
            self.transport.abort()
        elif self._in_head and self._begun:
            self._refuse(_LATE)
        else:
            self.transport.close()

    def _awaited(self) -> tuple[str, int] | None:
        """What the client has to do for the connection to get on, and how far it is."""
        if self.transport.is_closing():
            return "close", self.transport.get_write_buffer_size()
        if self.flow.write_paused:
            return "take", self.transport.get_write_buffer_size()
        is_kept = self.timeout_keep_alive_task is not None and not self._begun
        if self._running or is_kept:
            return None
        return "head", self._heads


def door(limits: Limits, *, patience: float = _PATIENCE) -> type[Door]:
    """Return the protocol class for a server with these limits.

    Args:
        limits: Sizes of heads.
        patience: Seconds for a head.
    """

    class Bounded(Door):
        room = limits.max_headers + limits.max_target
        longest = limits.max_target

    Bounded.patience = positive("patience", patience)
    return Bounded


def _refused(why: str) -> HttpParserError:
    return HttpParserError(why)


def _is_target(url: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a target is a path, or an address of the host that the headers name."""
    if url[:1] == b"/":
        return _TARGET(url) is not None
    parts = urlsplit(url)
    hosts = [value.lower() for name, value in headers if name == b"host"]
    return _TARGET(url) is not None and parts.scheme in _SCHEMES and hosts == [parts.netloc.lower()]


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    framed = dict(headers)
    return b"transfer-encoding" in framed or framed.get(b"content-length", b"0") != b"0"
