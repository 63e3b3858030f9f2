"""All subscriptions of a backend on one connection.

::

    subscription 1: a, b ---.
    subscription 2: b, c* --+--> names with their readers --> one connection --> server
    subscription 3: c*   ---'     a: 1   b: 1, 2   c*: 2, 3

A name is subscribed with its first reader and unsubscribed with its last. The connection is made
for the first reader, looked after by one task, and kept until the backend is closed. When it
breaks it is made again, with jittered pauses of at most a second; once all names are in force
again, every reader that was in force before is told that it may have missed something. While
nothing arrives the server is asked for a sign of life, and given up if it shows none.

Guarantees: a reader is in force when :meth:`Hub.add` returns: the server has confirmed each of its
names, and no unsubscription of one is under way.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast, final

from aiopatterns.backends.redis.connection import connect, pack
from aiopatterns.backends.redis.errors import RefusalError, UnsentError, translated
from aiopatterns.core.clock import monotonic, rng, sleep

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiopatterns.backends.redis.client import RedisClient
    from aiopatterns.backends.redis.connection import Connection, Reply
    from aiopatterns.backends.redis.errors import Failure

__all__ = ["Hub", "Name", "Reader"]

# Seconds between two signs of life that are asked for.
_HEARTBEAT: Final = 15.0
_FIRST_PAUSE: Final = 0.02
_LAST_PAUSE: Final = 1.0


class Name(NamedTuple):
    """What can be subscribed to: a channel or a pattern, as the server has it."""

    pattern: bool
    name: bytes


class Reader(Protocol):
    """A subscription, as the hub sees it."""

    @property
    def names(self) -> tuple[Name, ...]:
        """What it reads."""
        ...

    def take(self, name: Name, channel: bytes, data: bytes) -> None:
        """Take a message that came in under ``name``."""
        ...

    def report_gap(self) -> None:
        """Messages may have been missed."""
        ...

    def close(self) -> None:
        """There will be no more."""
        ...


@final
class Hub:
    """The subscriptions of one client.

    Args:
        client: Where the server is.
    """

    __slots__ = (
        "_client",
        "_connection",
        "_entering",
        "_in_force",
        "_keeper",
        "_names",
        "_owed",
        "_stale",
        "_why",
    )

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._names: dict[Name, dict[Reader, None]] = {}
        # Confirmations that the server owes for a name. Connected and none owed: in force.
        self._owed: dict[Name, int] = {}
        self._entering: dict[Reader, asyncio.Future[Failure | None]] = {}
        self._in_force: dict[Reader, None] = {}
        self._stale: dict[Reader, None] = {}
        self._connection: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._why: Failure = UnsentError("it does not confirm the subscription")

    async def add(self, reader: Reader) -> None:
        """Put ``reader`` in force.

        Raises:
            BackendUnavailableError: The server does not answer within the client's timeout.
            BackendError: The server refuses.
            ClosedError: The backend is not open, or is closed meanwhile.

        Cancellation: as if it had never been added.
        """
        self._client.route()
        entered = self._entering[reader] = asyncio.get_running_loop().create_future()
        try:
            self._join(reader)
            async with asyncio.timeout(self._client.timeout):
                failure = await entered
        except TimeoutError:
            failure = self._why
            self._doubt()
        except BaseException:
            self.remove(reader)
            raise
        if failure is not None:
            self.remove(reader)
            self._client.route()
            raise translated(failure, self._client.url)

    def remove(self, reader: Reader) -> None:
        """Take ``reader`` out; harmless if it is out already."""
        for readers in (self._entering, self._in_force, self._stale):
            readers.pop(reader, None)
        left: list[Name] = []
        for name in reader.names:
            readers = self._names.get(name, {})
            if readers.pop(reader, self) is None and not readers:
                del self._names[name]
                left.append(name)
        self._send("UNSUBSCRIBE", left)

    def drop(self, why: str) -> list[asyncio.Future[None]]:
        """End all subscriptions and hang up; returns whose end is to be awaited."""
        self._tell(UnsentError(why))
        for reader in (*self._entering, *self._in_force):
            reader.close()
        ends: list[asyncio.Future[None]] = []
        if self._keeper is not None:
            self._keeper.cancel()
            ends.append(self._keeper)
            self._keeper = None
        if (connection := self._connection) is not None:
            connection.drop(why)
            ends.append(connection.gone)
        return ends

    def _join(self, reader: Reader) -> None:
        """Subscribe to the names that are new, and see that somebody looks after them."""
        new = [name for name in reader.names if name not in self._names]
        for name in reader.names:
            self._names.setdefault(name, {})[reader] = None
        self._ask(new)
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.get_running_loop().create_task(self._keep())
        self._look()

    def _ask(self, names: Iterable[Name]) -> None:
        """Subscribe; without a connection that is done when there is one."""
        for name in self._send("SUBSCRIBE", names):
            self._owed[name] = self._owed.get(name, 0) + 1

    def _send(self, verb: str, names: Iterable[Name]) -> list[Name]:
        """Send a command for each of ``names`` in one write; return those for which it was sent."""
        if self._connection is None or not self._connection.usable:
            return []
        sent = list(names)
        packed = [pack((f"P{verb}" if name.pattern else verb, name.name)) for name in sent]
        if packed:
            self._connection.send(b"".join(packed), ())
        return sent

    async def _keep(self) -> None:
        """Hold a connection, and all names in force on it, while there is anybody to read."""
        attempts = 0
        while self._names:
            if attempts:
                longest = min(_LAST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempts, 10))
                await sleep(longest * rng().random())
            attempts = 0 if await self._hold() else attempts + 1

    async def _hold(self) -> bool:
        """Connect, subscribe, and stay as long as the connection lasts; whether it was in force."""
        client = self._client
        try:
            address = await client.route().locate(None)
            connection = await connect(
                client.target,
                address,
                patience=client.timeout,
                closed=self._broken,
                push=self._push,
            )
        except (UnsentError, RefusalError) as failure:
            self._why = failure
            if isinstance(failure, RefusalError) and not failure.later:
                self._tell(failure)
            return False
        self._connection = connection
        client.tally.reconnects += bool(self._stale)
        self._ask(self._names)
        await self._watch(connection)
        return not self._owed

    async def _watch(self, connection: Connection) -> None:
        """Wait for the end of ``connection``; make it end if it shows no sign of life."""
        asked_at = -1.0
        while connection.open:
            await asyncio.wait((connection.gone,), timeout=_HEARTBEAT)
            if not connection.usable:
                continue  # its end is on the way
            if connection.heard == asked_at:
                connection.drop("the server shows no sign of life")
            else:
                connection.send(pack(("PING",)), ())
                asked_at = connection.heard  # whatever arrives changes it

    def _doubt(self) -> None:
        """Give up a connection over which nothing comes although a confirmation is due."""
        connection = self._connection
        if connection is not None and monotonic() - connection.heard >= self._client.timeout:
            connection.drop("the server does not confirm a subscription")

    def _broken(self) -> None:
        """The connection is of no more use: what was in force is not."""
        self._connection = None
        self._owed.clear()
        self._stale.update(self._in_force)

    def _push(self, reply: Reply) -> None:
        """Take what the server says."""
        if isinstance(reply, RefusalError):
            self._tell(reply)
            if self._connection is not None:  # whose name that was is not said: begin anew
                self._connection.drop("the server refuses a subscription")
            return
        if not isinstance(reply, list):
            return
        words = cast("list[bytes]", reply)
        kind = words[0]
        if kind == b"message":
            self._deliver(Name(False, words[1]), words[1], words[2])
        elif kind == b"pmessage":
            self._deliver(Name(True, words[1]), words[2], words[3])
        elif kind in {b"subscribe", b"psubscribe"}:
            self._confirm(Name(kind == b"psubscribe", words[1]))

    def _deliver(self, name: Name, channel: bytes, data: bytes) -> None:
        for reader in self._names.get(name, ()):
            reader.take(name, channel, data)

    def _confirm(self, name: Name) -> None:
        """The server owes one confirmation less."""
        owed = self._owed.get(name, 1) - 1
        if owed:
            self._owed[name] = owed
        else:
            self._owed.pop(name, None)
            self._look()

    def _look(self) -> None:
        """Let in whoever is in force by now; tell of the gap once all is as it was."""
        if self._connection is None:
            return
        for reader, entered in tuple(self._entering.items()):
            if not any(name in self._owed for name in reader.names):
                del self._entering[reader]
                self._in_force[reader] = None
                _give(entered, None)
        if not self._owed:
            stale, self._stale = self._stale, {}
            for reader in stale:
                reader.report_gap()

    def _tell(self, failure: Failure) -> None:
        """Tell those who wait to be let in that they will not be."""
        for entered in self._entering.values():
            _give(entered, failure)


def _give(entered: asyncio.Future[Failure | None], failure: Failure | None) -> None:
    """Let in, or tell why not; unless whoever waited has been cancelled in this very turn."""
    if not entered.done():
        entered.set_result(failure)
