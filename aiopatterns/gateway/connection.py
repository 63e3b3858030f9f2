"""One connection to a service that speaks HTTP/1.1: one request at a time, and its answer.

It is the transport's own protocol class, without streams between: what arrives in one chunk is fed
to one httptools parser (llhttp, in its strict mode), and goes from there into the
:class:`~aiopatterns.gateway.answer.Answer`::

               send(request)              head           end of body
    IDLE ------------------> WAITING -----------> BODY ---------------> IDLE, back in its pool
      |                         |                   |  close-delimited
      |  anything arrives       |  broken, late, cancelled, closed
      '-------------------------'-------------------'----------------> CLOSED, for ever

Guarantees:

* An answer with two lengths, a length and chunks, another transfer coding, a bare LF, a folded
  header or a switch of protocols breaks the connection; it is not guessed what was meant.
* What arrives while nobody has asked, or after the end of an answer, closes the connection: it can
  never become the answer to the next request.
* A connection is used again only if its last exchange came to its end in both directions.

Non-guarantees: trailers are dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from aiopatterns.core.errors import UpstreamError
from aiopatterns.core.waiters import Gate
from aiopatterns.gateway.answer import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from aiopatterns.core.clock import Alarms, Home
    from aiopatterns.gateway.request import Headers

__all__ = ["Connection", "Keeper"]

_INTERIM: Final = 100
_OK: Final = 200
_BODILESS: Final = frozenset({204, 304})
# Bytes of a head, interim ones before it included, and of trailers.
_HEAD: Final = 64 * 1024
_TOO_LONG: Final = f"the answer's head has more than {_HEAD} bytes"


class Keeper(Protocol):
    """Where a connection comes from."""

    name: str

    def give_back(self, connection: Connection) -> None:
        """Take it for the next request."""
        ...

    def lost(self, connection: Connection) -> None:
        """Note that it is closed."""
        ...


class Wire(Protocol):
    """What a connection needs of the loop's transport."""

    def write(self, data: bytes) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class _BrokenError(Exception):
    """The parser is stopped: the answer is one that we do not take."""


class Writer(Protocol):
    """Who writes a body that is streamed."""

    def cancel(self) -> None:
        """Write no more of it."""
        ...

    async def settled(self) -> None:
        """Wait until nothing of it is read any more."""
        ...


@final
class Connection:
    """A connection on the running loop, which calls the methods of a protocol.

    Args:
        home: The loop.
        keeper: Where it goes when it is free or closed.

    Attributes:
        open: Whether it may be used.
        used: Whether a request was sent over it.
        heard: Whether anything came since the last one.
        writable: Whether the loop's transport takes more at once.
        pump: Who writes a body that is streamed, until it is sent.
    """

    __slots__ = (
        "_answer",
        "_bodiless",
        "_feed",
        "_head",
        "_headers",
        "_home",
        "_keep",
        "_keeper",
        "_parser",
        "_patience",
        "_resumed",
        "_until_end",
        "_wire",
        "heard",
        "open",
        "pump",
        "used",
        "writable",
    )

    def __init__(self, home: Home, keeper: Keeper) -> None:
        self._home = home
        self._keeper = keeper
        self._wire: Wire | None = None
        self._answer: Answer | None = None
        self._patience: Alarms | None = None
        self._head = 0  # bytes since the last request, until its answer's head is whole
        self._headers: Headers = []
        self._keep = False
        self._bodiless = False
        self._until_end = False
        self._resumed = Gate(home)
        self.pump: Writer | None = None
        self.used: bool = False
        self.heard: bool = False
        self.writable: bool = True
        self.open: bool = True
        self._renew()

    @property
    def usable(self) -> bool:
        """Whether it is worth sending; the loop's transport may have ended without a word."""
        return self.open and self._wire is not None and not self._wire.is_closing()

    # A request goes out.

    def begin(self, method: bytes, data: bytes, patience: Alarms, silence: Alarms) -> Answer:
        """Send the head of a request, or all of it.

        Args:
            method: Tells whether the answer has a body.
            data: What to write.
            patience: Bounds the wait for the answer's head, from :meth:`sent` on.
            silence: Bounds each wait for more of the answer's body.
        """
        assert self._wire is not None
        self.used = True
        self.heard = False
        self._head = 0
        self._bodiless = method == b"HEAD"
        self._patience = patience
        self._wire.write(data)
        answer = self._answer = Answer(self._home, self, silence)
        return answer

    def put(self, data: bytes) -> None:
        """Write more of the body; wait for :meth:`drained` unless it is :attr:`writable`."""
        if self.open and self._wire is not None:
            self._wire.write(data)

    async def drained(self) -> None:
        """Wait until the service has taken what was written."""
        while not self.writable:
            await self._resumed

    def sent(self) -> None:
        """Note that the whole request was written."""
        self.pump = None
        if self._patience is not None and self._answer is not None and not self._answer.status:
            self._patience.arm(self.late)

    # How it ends.

    def drop(self) -> None:
        """Close at once; harmless if that has happened."""
        self._end("closed", "the gateway closed the connection")

    def late(self) -> None:
        """Close: nothing came in time."""
        awaited = (
            "answer" if self._answer is None or not self._answer.status else "more of the body"
        )
        self._end("timeout", f"no {awaited} in time")

    def spoilt(self, error: Exception) -> None:
        """Close: the body of the request cannot be had to its end."""
        if self._answer is not None:
            answer, self._answer = self._answer, None
            answer.fail(error)
        self.drop()

    async def settled(self) -> None:
        """Wait until nothing of the request is read any more."""
        if self.pump is not None:
            await self.pump.settled()

    # How an answer is read.

    def pause(self) -> None:
        """Read no more for now."""
        if self.open and self._wire is not None:
            self._wire.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        if self.open and self._wire is not None:
            self._wire.resume_reading()

    # What the loop calls.

    def connection_made(self, transport: Wire) -> None:
        """Keep the loop's transport."""
        self._wire = transport
        if not self.open:  # given up while it was being made
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        answer = self._answer
        if answer is None:
            self.drop()
            return
        self.heard = True
        if not answer.status:
            self._head += len(data)
        try:
            self._feed(data)
        except HttpParserUpgrade:
            self._end("invalid", "the service switched protocols unasked")
        except HttpParserError as error:
            self._end("invalid", f"an answer that breaks the rules of HTTP: {_cause(error)}")
        else:
            if self._bodiless and answer.status and self._answer is answer:
                self._renew()  # the parser waits for a body that does not come
                self._complete(answer)
            elif not answer.status and self._head > _HEAD:
                self._end("invalid", _TOO_LONG)

    def eof_received(self) -> None:
        """Let the loop close the connection."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whom it concerns."""
        answer = self._answer
        if answer is not None and self._until_end and answer.status and exc is None:
            self._keep = False
            self._complete(answer)
        self._end("closed", str(exc) if exc else "the service closed the connection")

    def pause_writing(self) -> None:
        """Note that the loop's transport holds back enough."""
        self.writable = False

    def resume_writing(self) -> None:
        """Let the body go on."""
        self.writable = True
        self._resumed.open()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Refuse a message that nobody has asked for."""
        if self._answer is None or self._answer.status:
            raise _BrokenError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header, or drop a trailer."""
        if self._answer is not None and not self._answer.status:
            self._headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        """Give the head to the reader, unless it is an interim one."""
        status: int = self._parser.get_status_code()
        headers, self._headers = self._headers, []
        if status < _INTERIM:
            raise _BrokenError(f"the status {status}")
        if status < _OK:
            return
        if self._head > _HEAD and sum(len(a) + len(b) for a, b in headers) > _HEAD:
            raise _BrokenError(_TOO_LONG)
        answer = self._answer
        assert answer is not None
        named = dict(headers)
        self._keep = self._parser.should_keep_alive()
        if self._bodiless:
            self._keep = b"close" not in named.get(b"connection", b"").lower()
        chunked = b"transfer-encoding" in named
        if chunked:
            self._check_coding(headers)
        self._until_end = not (chunked or b"content-length" in named or status in _BODILESS)
        assert self._patience is not None
        self._patience.disarm(self.late)
        answer.headed(status, headers)

    def on_body(self, chunk: bytes) -> None:
        """Give some of the body to the reader."""
        if self._bodiless or self._answer is None:
            raise _BrokenError("a body where none may be")
        self._answer.put(chunk)

    def on_message_complete(self) -> None:
        """Note the end of the answer, unless it is an interim one."""
        answer = self._answer
        if answer is not None and answer.status and not self._bodiless:
            self._complete(answer)

    def _check_coding(self, headers: Headers) -> None:
        """Take chunks, and only from a service that knows them."""
        codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
        if codings != [b"chunked"]:
            raise _BrokenError("a transfer coding that nobody asked for")
        if self._parser.get_http_version() != "1.1":
            raise _BrokenError("chunks of a service that speaks HTTP/1.0")

    # How the states change.

    def _renew(self) -> None:
        self._parser = HttpResponseParser(self)
        self._feed: Callable[[bytes], None] = self._parser.feed_data

    def _complete(self, answer: Answer) -> None:
        """End the exchange; the connection is free, or closed."""
        self._answer = None
        answer.finish()
        if self._keep and self.pump is None:
            self._keeper.give_back(self)
        else:
            self.drop()

    def _end(self, kind: Literal["timeout", "invalid", "closed"], why: str) -> None:
        if not self.open:
            return
        self.open = False
        if self._patience is not None:
            self._patience.disarm(self.late)
        if self._wire is not None:
            self._wire.abort()
        if self.pump is not None:
            self.pump.cancel()
        self._resumed.open()
        answer, self._answer = self._answer, None
        if answer is not None:
            name = self._keeper.name
            answer.fail(UpstreamError(f"{name}: {why}", name=name, kind=kind, sent=True))
        self._keeper.lost(self)


def _cause(error: HttpParserError) -> object:
    return error.__context__ if isinstance(error.__context__, _BrokenError) else error
