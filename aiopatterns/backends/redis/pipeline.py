"""Many callers, one connection, one write for each turn of the loop.

::

    task A: GET x --.
    task B: GET y --+--> outgoing --(next turn)--> one write --> server
    task C: SET z --'                                              |
    A, B, C <------------------- replies, parsed in bulk ----------'

A command that is issued joins the outgoing ones, and the first of a turn has them flushed in the
next. So a thousand tasks that each ask for one key cost one system call and one round trip, and no
caller has to know of the others. There is no delay to be tuned: a lone command leaves with the
next turn.

Reads of single keys are better off still: those of one turn are asked for by one MGET, which costs
the server a third. They go behind everything else of their turn.

Guarantees: what is issued by :meth:`Pipeline.send` runs in that order, while one connection lasts.
A caller that is cancelled
before the flush sends nothing; one that is cancelled later is not answered; nobody else notices
either. What is issued while there is no connection waits for one, and is given
:class:`~aiopatterns.backends.redis.errors.UnsentError` if that fails. Attempts to connect are made one
at a time, while there is something to send, with jittered pauses of at most a second.

Backpressure: every caller waits for its reply, so there are never more commands than callers. What
is more than a thousand commands or a megabyte goes out in several writes, and when the transport
holds back a megabyte, the rest stays here until it has room.
"""

from __future__ import annotations

import asyncio
from itertools import repeat
from operator import methodcaller
from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.redis.connection import connect, pack
from aiopatterns.backends.redis.errors import FAILURES, RefusalError, UnsentError
from aiopatterns.core.clock import monotonic, rng, sleep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aiopatterns.backends.redis.connection import Command, Connection, Reply, Waiter, Waiting
    from aiopatterns.backends.redis.errors import Failure
    from aiopatterns.backends.redis.statistics import Tally
    from aiopatterns.backends.url import Address, Target

__all__ = ["Pipeline"]


# Called by `map`, it costs no call of Python's.
_is_done: Final = methodcaller("done")

# So many commands, and about so many bytes, go out in one write; single reads of so many keys are
# one MGET. More wait for the next write: joined they would be in memory twice, and one reply of
# their size would hold up everybody else.
_MOST: Final = 1_000
_MOST_BYTES: Final = 1 << 20
# Seconds between attempts to connect: the first doubles up to the last; each is cut by chance.
_FIRST_PAUSE: Final = 0.02
_LAST_PAUSE: Final = 1.0
# A connection younger than this is not renewed: its many callers all ask for that.
_YOUNG: Final = 0.1


@final
class _Several:
    """Those who wait behind one MGET, in the order of its keys."""

    __slots__ = ("_waiters",)

    def __init__(self, waiters: list[Waiting]) -> None:
        self._waiters = waiters

    def done(self) -> bool:
        """Whether nobody waits any more."""
        return all(map(_is_done, self._waiters))

    def set_result(self, result: Reply, /) -> None:
        """Give each its value; a failure is everybody's."""
        values: Iterable[Reply] = repeat(result) if type(result) in FAILURES else result
        for waiter, value in zip(self._waiters, values, strict=False):
            if not waiter.done():
                waiter.set_result(value)


@final
class Pipeline:
    """The shared connection to one server, made when it is needed; belongs to one loop.

    Args:
        target: User, password, database and TLS.
        locate: Tells where the server is now; raises :class:`UnsentError` if nobody knows.
        patience: Seconds that connecting may take, and that the server may be silent.
        tally: Where to count.
    """

    __slots__ = (
        "_attempts",
        "_connected_at",
        "_connection",
        "_dialling",
        "_flushing",
        "_future",
        "_getting",
        "_keys",
        "_locate",
        "_loop",
        "_outgoing",
        "_patience",
        "_tally",
        "_target",
        "_waiting",
    )

    def __init__(
        self,
        target: Target,
        locate: Callable[[], Awaitable[Address]],
        *,
        patience: float,
        tally: Tally,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._future = self._loop.create_future
        self._target = target
        self._locate = locate
        self._patience = patience
        self._tally = tally
        self._connection: Connection | None = None
        self._connected_at = 0.0
        self._dialling: asyncio.Task[None] | None = None
        # Two lists side by side: this is the hot path, and a pair for each command shows.
        self._outgoing: list[bytes] = []
        self._waiting: list[Waiter] = []
        self._keys: list[str] = []
        self._getting: list[Waiting] = []
        self._flushing = False
        self._attempts = 0

    @property
    def in_flight(self) -> int:
        """How many commands wait for their replies."""
        sent = () if self._connection is None else self._connection.waiting
        return len(sent) + len(self._waiting) + len(self._getting)

    def send(self, command: Command) -> Waiting:
        """Issue ``command``; the future is given the reply or a failure, never an exception.

        Raises:
            TypeError: A word is not bytes, str, int or float.
        """
        packed = pack(command)
        waiter = self._future()
        self._outgoing.append(packed)
        self._waiting.append(waiter)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return waiter

    def get(self, key: str) -> Waiting:
        """Issue a GET of a key that holds a string or nothing; otherwise as :meth:`send`."""
        waiter = self._future()
        self._keys.append(key)
        self._getting.append(waiter)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return waiter

    def renew(self, why: str) -> None:
        """Hang up, unless that was done just now: the next command looks where the server is."""
        if self._connection is not None and monotonic() - self._connected_at > _YOUNG:
            self._connection.drop(why)

    def drop(self, why: str) -> list[asyncio.Future[None]]:
        """Hang up for good; what waits is given a failure. Returns whose end is to be awaited."""
        ends: list[asyncio.Future[None]] = []
        if self._dialling is not None:
            self._dialling.cancel()
            ends.append(self._dialling)
        self._fail(UnsentError(why))
        if (connection := self._connection) is not None:
            connection.drop(why)
            ends.append(connection.gone)
        return ends

    def _flush(self) -> None:
        """Send what is outgoing, if there is a connection with room; else see to one."""
        self._flushing = False
        connection = self._connection
        if connection is None:
            if (self._outgoing or self._keys) and self._dialling is None:
                self._dialling = self._loop.create_task(self._dial())
            return
        if not connection.usable:
            connection.drop("the connection broke")  # which has this called again
            return
        # When it cannot any more, the connection says when it can, or that it has broken.
        while (self._outgoing or self._keys) and connection.writable and connection.usable:
            outgoing, waiting = self._take()
            if waiting:
                self._tally.commands += len(waiting)
                self._tally.round_trips += 1
                connection.send(b"".join(outgoing), waiting)

    def _take(self) -> tuple[list[bytes], list[Waiter]]:
        """Take what goes into one write, without what was cancelled before it was sent."""
        if self._keys:
            self._gather()
        outgoing, waiting = self._outgoing, self._waiting
        count = _portion(outgoing)
        self._outgoing, self._waiting = outgoing[count:], waiting[count:]
        del outgoing[count:], waiting[count:]
        if not any(map(_is_done, waiting)):
            return outgoing, waiting
        live = [pair for pair in zip(outgoing, waiting, strict=True) if not pair[1].done()]
        return [packed for packed, _ in live], [waiter for _, waiter in live]

    def _gather(self) -> None:
        """Make one command of the single reads."""
        keys, self._keys = self._keys, []
        getting, self._getting = self._getting, []
        if any(map(_is_done, getting)):
            live = [pair for pair in zip(keys, getting, strict=True) if not pair[1].done()]
            keys, getting = [key for key, _ in live], [waiter for _, waiter in live]
        if len(keys) == 1:
            self._outgoing.append(pack(("GET", keys[0])))
            self._waiting.append(getting[0])
            return
        for first in range(0, len(keys), _MOST):
            self._outgoing.append(pack(("MGET", *keys[first : first + _MOST])))
            self._waiting.append(_Several(getting[first : first + _MOST]))

    async def _dial(self) -> None:
        """Connect, once; then send what waits, or fail it."""
        failure: Failure
        try:
            if self._attempts:
                longest = min(_LAST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._attempts, 10))
                await sleep(longest * rng().random())
            self._attempts += 1
            address = await self._locate()
            connection = await connect(
                self._target, address, patience=self._patience, closed=self._gone
            )
        except (UnsentError, RefusalError) as error:
            failure = error
        except Exception as error:  # nobody may be left waiting, whatever it was
            failure = UnsentError(repr(error))
        else:
            self._dialling = None
            self._connected(connection)
            return
        self._dialling = None
        self._fail(failure)

    def _connected(self, connection: Connection) -> None:
        connection.resumed = self._flush
        self._tally.reconnects += self._connected_at > 0
        self._connection = connection
        self._connected_at = monotonic()
        self._attempts = 0
        self._flush()

    def _gone(self) -> None:
        """The connection is of no more use; what was not sent goes over the next one."""
        self._connection = None
        if (self._outgoing or self._keys) and not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _fail(self, failure: Failure) -> None:
        waiting = (*self._waiting, *self._getting)
        for each in (self._outgoing, self._waiting, self._keys, self._getting):
            each.clear()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(failure)


def _portion(outgoing: list[bytes]) -> int:
    """Return how many of ``outgoing`` go into one write, taking the first for what all are like."""
    count = min(len(outgoing), _MOST)
    size = sum(map(len, outgoing[:count]))
    return count if size <= _MOST_BYTES else max(1, count * _MOST_BYTES // size)
