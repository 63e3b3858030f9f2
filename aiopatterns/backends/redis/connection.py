"""One connection: commands go out in order, replies come in in order, and that is all.

The transport's own protocol class, without streams: what arrives in one chunk is given to one
hiredis parser and every reply in it is handed to its waiter in one go. That is where the time of
the usual clients goes; here a reply costs about a microsecond.

::

    send(bytes, waiters) ---> transport ---> server
                                                |
    waiters[0].set_result(reply) <--- parser <--'        a failure is a value too, see errors.py

Guarantees: a reply goes to the waiter whose command it answers, also if others have been
cancelled; a connection that breaks, or on which nothing arrives for ``timeout`` seconds while a
reply is due, answers every waiter with :class:`~aiopatterns.backends.redis.errors.Lost` and is
never used again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast, final

import hiredis

from aiopatterns.backends.redis.errors import FAILURES, Lost, Refusal, Unsent
from aiopatterns.core.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiopatterns.backends.url import Address, Target

__all__ = ["Connection", "Reply", "Waiting", "connect"]

Reply = Any  # bytes, int, None, a list of these, or a failure: the shapes of RESP2
Waiting = asyncio.Future[Any]

# What the parser returns when it has no whole reply; no reply is ever this object.
_NOTHING: Final = object()
_NAME: Final = "aiopatterns"


@final
class Connection(asyncio.Protocol):
    """A connection on the running loop; made by :func:`connect`.

    Args:
        timeout: Seconds that the server may stay silent while a reply is due.
        closed: Called once when the connection is of no more use.
    """

    __slots__ = (
        "_closed",
        "_gets",
        "_heard",
        "_loop",
        "_reader",
        "_timeout",
        "_timer",
        "_transport",
        "gone",
        "open",
        "waiting",
        "writable",
    )

    def __init__(self, timeout: float, closed: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._closed = closed
        self._reader = hiredis.Reader(replyError=Refusal, notEnoughData=_NOTHING)
        self._gets: Callable[[], Reply] = self._reader.gets
        self._transport: asyncio.WriteTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self.open = True
        self.writable = True
        self.waiting: deque[Waiting] = deque()
        self.gone: asyncio.Future[None] = self._loop.create_future()

    def send(self, data: bytes, waiters: Iterable[Waiting]) -> None:
        """Write commands, and queue who waits for their replies."""
        assert self._transport is not None
        if not self.waiting:
            self._heard = monotonic()
        self.waiting.extend(waiters)
        self._transport.write(data)
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._ring)

    def drop(self, why: str) -> None:
        """Hang up at once; every waiter is told."""
        if not self.open:
            return
        self.open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_result(Lost(why))
        self._closed()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by type

    def data_received(self, data: bytes) -> None:
        """Hand every whole reply in ``data`` to its waiter."""
        self._heard = monotonic()
        gets, waiting = self._gets, self.waiting
        try:
            self._reader.feed(data)
            while (reply := gets()) is not _NOTHING:
                waiter = waiting.popleft()
                if not waiter.done():
                    waiter.set_result(reply)
        except (hiredis.ProtocolError, IndexError):
            self.drop("the server speaks no RESP")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the waiters, and whoever waits for the end."""
        self.drop(f"the connection was lost: {exc}" if exc else "the server closed the connection")
        if not self.gone.done():
            self.gone.set_result(None)

    def pause_writing(self) -> None:
        """Stop writing: the transport's buffer is full."""
        self.writable = False

    def resume_writing(self) -> None:
        """Write again."""
        self.writable = True

    def _ring(self) -> None:
        """Look whether a reply is overdue; without commands under way the timer stops."""
        self._timer = None
        if not self.waiting:
            return
        left = self._heard + self._timeout - monotonic()
        if left <= 0:
            self.drop(f"the server was silent for {self._timeout:g} s")
        else:
            self._timer = self._loop.call_later(left, self._ring)


async def connect(
    target: Target,
    address: Address,
    *,
    timeout: float,
    connect_timeout: float,
    closed: Callable[[], object],
) -> Connection:
    """Connect to ``address`` and say who we are.

    Raises:
        Unsent: Nobody answers.
        Refusal: The server does not take us.
    """
    made: list[Connection] = []

    def factory() -> Connection:
        made.append(Connection(timeout, closed))
        return made[-1]

    try:
        async with asyncio.timeout(connect_timeout):
            await _dial(target, address, factory)
            connection = made[-1]
            await _greet(connection, target)
    except BaseException as error:
        for each in made:
            each.drop("it was never opened")
        if isinstance(error, TimeoutError):
            raise Unsent(f"{address} did not answer within {connect_timeout:g} s") from None
        if isinstance(error, (OSError, Lost)):
            raise Unsent(f"{address}: {error}") from None
        raise
    return connection


async def _dial(target: Target, address: Address, factory: Callable[[], Connection]) -> None:
    loop = asyncio.get_running_loop()
    if not address.port:
        await loop.create_unix_connection(factory, address.host)
        return
    secure = _context(target) if target.tls else None
    await loop.create_connection(factory, address.host, address.port, ssl=secure)


def _context(target: Target) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=target.option("ca") or None)
    if target.option("cert"):
        context.load_cert_chain(target.option("cert"), target.option("key") or None)
    return context


async def _greet(connection: Connection, target: Target) -> None:
    commands: list[tuple[str | int, ...]] = []
    if target.password:
        user = (target.username,) if target.username else ()
        commands.append(("AUTH", *user, target.password))
    if target.database:
        commands.append(("SELECT", target.database))
    commands.append(("CLIENT", "SETNAME", _NAME))
    loop = asyncio.get_running_loop()
    waiters = [loop.create_future() for _ in commands]
    connection.send(b"".join(map(hiredis.pack_command, commands)), waiters)
    replies = [await each for each in waiters]
    for reply in replies[:-1]:  # the name is a courtesy, and a user may lack the right
        if type(reply) in FAILURES:
            raise reply
