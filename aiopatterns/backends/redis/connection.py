"""One connection: commands go out in order, replies come in in order, and that is all.

It is the transport's own protocol class, without streams between: what arrives in one chunk is
given to one hiredis parser, and every reply in it to its waiter in one go. That is where the time
of the usual clients goes. redis-py awaits each reply by itself and takes 9 ms for a pipeline of
1,000 GETs, of which a bare MGET needs 1::

    send(bytes, waiters) ---> transport ---> server
                                                |
    waiters[0].set_result(reply) <--- parser <--'      a failure is a value too, see errors.py

Guarantees: a reply goes to the waiter whose command it answers, also if other waiters have been
cancelled. A connection that breaks, or on which nothing arrives for ``patience`` seconds while a
reply is due, gives every waiter :class:`~aiopatterns.backends.redis.errors.LostError` and is never used
again. One timer serves all commands of a connection, and none while nothing is under way.

RESP2 is spoken, as every server since 1.2 does by itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast, final

import hiredis

from aiopatterns.backends.redis.errors import FAILURES, LostError, RefusalError, UnsentError
from aiopatterns.core.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from aiopatterns.backends.url import Address, Target

__all__ = [
    "Command",
    "Connection",
    "Reply",
    "Waiter",
    "Waiting",
    "Word",
    "connect",
    "pack",
    "tls_context",
]

Word: TypeAlias = "bytes | str | int | float"
Command: TypeAlias = "tuple[Word, ...]"
Reply: TypeAlias = Any  # bytes, int, None, a list of these, or a failure: the shapes of RESP2
Waiting: TypeAlias = "asyncio.Future[Reply]"


class Waiter(Protocol):
    """Who is given a reply: a future, or several behind one command."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, result: Reply, /) -> None:
        """Take the reply, or a failure."""
        ...


_untyped: Any = hiredis  # its own annotation allows commands of one word only
#: Turn a command into what is sent.
pack: Final[Callable[[Command], bytes]] = _untyped.pack_command

# What the parser returns when it has no whole reply; no reply is ever this object.
_NOTHING: Final = object()
# Bytes that the transport may hold back before the pipeline keeps the rest to itself.
_HIGH_WATER: Final = 1 << 20
# What `CLIENT LIST` calls our connections.
_NAME: Final = "aiopatterns"


def _ignore() -> None:
    """Do nothing."""


@final
class Connection(asyncio.Protocol):
    """A connection on the running loop; made by :func:`connect`.

    Args:
        patience: Seconds that the server may be silent while a reply is due; may be changed.
        closed: Called once, when the connection is of no more use.
        push: Called with what arrives while no reply is due; without it such a connection ends.
    """

    __slots__ = (
        "_closed",
        "_gets",
        "_loop",
        "_push",
        "_reader",
        "_timer",
        "_transport",
        "gone",
        "heard",
        "open",
        "patience",
        "resumed",
        "waiting",
        "writable",
    )

    def __init__(
        self,
        patience: float,
        *,
        closed: Callable[[], object] = _ignore,
        push: Callable[[Reply], object] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed = closed
        self._push = push or self._unasked
        self._reader = hiredis.Reader(replyError=RefusalError, notEnoughData=_NOTHING)
        self._gets: Callable[[], Reply] = self._reader.gets
        self._transport: asyncio.WriteTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.patience: float = patience
        self.heard: float = 0.0
        self.open: bool = True
        self.writable: bool = True
        self.resumed: Callable[[], object] = _ignore
        self.waiting: deque[Waiter] = deque()
        self.gone: asyncio.Future[None] = self._loop.create_future()

    @property
    def usable(self) -> bool:
        """Whether it is worth sending; the transport may have ended without having said so."""
        return self.open and self._transport is not None and not self._transport.is_closing()

    def send(self, data: bytes, waiters: Collection[Waiter]) -> None:
        """Write commands, and queue who waits for their replies. Only while :attr:`usable`."""
        assert self._transport is not None, "connect has made one"
        if not waiters:  # their answers are pushed, and none is due at a time
            self._transport.write(data)
            return
        if not self.waiting:
            self.heard = monotonic()
        self.waiting.extend(waiters)
        self._transport.write(data)
        timer = self._timer
        if timer is None:
            self._timer = self._loop.call_later(self.patience, self._ring)
        elif timer.when() > self._loop.time() + self.patience:
            timer.cancel()  # it was set for a more patient call
            self._timer = self._loop.call_later(self.patience, self._ring)

    def drop(self, why: str) -> None:
        """Hang up at once; every waiter is told. Harmless if that has happened."""
        if not self.open:
            return
        self.open = False
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        else:
            self.gone.set_result(None)
        waiting = list(self.waiting)
        self.waiting.clear()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(LostError(why))
        self._closed()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; called by the loop."""
        made = cast("asyncio.WriteTransport", transport)  # uvloop's is one without being a subtype
        made.set_write_buffer_limits(_HIGH_WATER)
        self._transport = made
        if not self.open:  # given up while it was being made
            made.abort()

    def data_received(self, data: bytes) -> None:
        """Give every whole reply in ``data`` to its waiter; called by the loop."""
        self.heard = monotonic()
        gets, waiting = self._gets, self.waiting
        try:
            self._reader.feed(data)
            while (reply := gets()) is not _NOTHING:
                if not waiting:
                    self._push(reply)
                    continue
                waiter = waiting.popleft()
                if not waiter.done():
                    waiter.set_result(reply)
        except hiredis.ProtocolError as error:
            self.drop(f"what answers there speaks no Redis protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the waiters; called by the loop."""
        self.drop(f"the connection broke: {exc}" if exc else "the server closed the connection")
        if not self.gone.done():
            self.gone.set_result(None)

    def pause_writing(self) -> None:
        """Note that the transport holds back enough; called by the loop."""
        self.writable = False

    def resume_writing(self) -> None:
        """Go on; called by the loop."""
        self.writable = True
        self.resumed()

    def _unasked(self, reply: Reply) -> None:
        self.drop(f"the server said {reply!r:.80} without being asked")

    def _ring(self) -> None:
        """Look whether a reply is overdue; the timer stops when none is due."""
        self._timer = None
        if not self.waiting:
            return
        left = self.heard + self.patience - monotonic()
        if left <= 0:
            self.drop(f"the server was silent for {self.patience:g} s")
        else:
            self._timer = self._loop.call_later(left, self._ring)


async def connect(
    target: Target,
    address: Address,
    *,
    patience: float,
    closed: Callable[[], object] = _ignore,
    push: Callable[[Reply], object] | None = None,
) -> Connection:
    """Connect to ``address`` and say who we are.

    Args:
        target: User, password, database and TLS.
        address: The server.
        patience: Seconds that all of it may take, and the patience of the connection.
        closed: See :class:`Connection`.
        push: See :class:`Connection`.

    Raises:
        UnsentError: Nobody answers.
        RefusalError: The server does not take us.

    Cancellation: the connection is dropped.
    """
    connection = Connection(patience, closed=closed, push=push)
    try:
        async with asyncio.timeout(patience):
            await _dial(connection, target, address)
            await _greet(connection, target)
    except RefusalError:
        connection.drop("the server does not take us")
        raise
    except Exception as error:
        connection.drop("it was not made")
        timed_out = isinstance(error, TimeoutError) and not error.args
        why = f"no answer within {patience:g} s" if timed_out else str(error)
        raise UnsentError(f"{address}: {why}") from error
    except BaseException:
        connection.drop("nobody waits for it any more")
        raise
    if not connection.usable:
        raise UnsentError(f"{address}: the connection broke")
    return connection


async def _dial(connection: Connection, target: Target, address: Address) -> None:
    loop = asyncio.get_running_loop()
    if not address.port:
        await loop.create_unix_connection(lambda: connection, address.host)
        return
    secure = tls_context(target) if target.tls else None
    await loop.create_connection(lambda: connection, address.host, address.port, ssl=secure)


def tls_context(target: Target) -> ssl.SSLContext:
    """Trust the system's authorities, or the ones of the URL alone."""
    ca, cert = target.option("ca"), target.option("cert")
    try:
        context = ssl.create_default_context(cafile=ca or None)
        if cert:
            context.load_cert_chain(cert, target.option("key") or None)
    except OSError as error:  # it does not name the file
        files = " or ".join(repr(path) for path in (ca, cert, target.option("key")) if path)
        raise OSError(f"TLS cannot use {files}: {error}") from error
    return context


async def _greet(connection: Connection, target: Target) -> None:
    """Authenticate, choose the database and give our name, in one round trip."""
    commands: list[Command] = []
    if target.password:
        user = (target.username,) if target.username else ()
        commands.append(("AUTH", *user, target.password))
    if target.database:
        commands.append(("SELECT", target.database))
    commands.append(("CLIENT", "SETNAME", _NAME))
    loop = asyncio.get_running_loop()
    waiters: list[Waiting] = [loop.create_future() for _ in commands]
    connection.send(b"".join(map(pack, commands)), waiters)
    replies = [await waiter for waiter in waiters]
    # The name is a courtesy, which a user may lack the right to; a lost connection is no answer.
    needed = replies[:-1] if isinstance(replies[-1], RefusalError) else replies
    for reply in needed:
        if type(reply) in FAILURES:
            raise reply
