"""The client: what the seven protocols over Redis stand on.

===============  ================================  ==============================================
verb             for                               when the answer is lost
===============  ================================  ==============================================
``read``         reads                             sent again
``write``        writes that may be repeated       sent again
``once``         ``INCRBY``, ``PUBLISH``           ``BackendUnavailableError``: it may have run
``run``          a script                          the same; if ``repeatable``, sent again
``line``         claims, blocking commands         the same, and the connection is dropped
``subscribe``    live messages                     subscribed again, and told of the gap
===============  ================================  ==============================================

A command that certainly did not run (there was no connection, the server is loading, a slot is
moving, a script is not known) is sent again whatever its class. Pauses are jittered and double
from 20 ms to half a second; after :data:`RETRY_FOR` seconds the last failure is raised.

All but the lines and the subscriptions share one connection for each server, and go out in one
write for each turn of the loop (``pipeline.py``). ``read`` and ``write`` are one thing to the
client; the two names say to the reader why repeating is safe.

The client exists before it is opened and after it was closed; every verb raises ``ClosedError``
then. It can be opened again, also on another loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

from aiopatterns.backends.redis.errors import FAILURES, LostError, RefusalError, translated
from aiopatterns.backends.redis.hub import Hub
from aiopatterns.backends.redis.info import EvictionRisk, facts, version_of
from aiopatterns.backends.redis.line import Line
from aiopatterns.backends.redis.routing import make_route
from aiopatterns.backends.redis.statistics import Tally
from aiopatterns.backends.statistics import BackendStatistics
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiopatterns.backends.redis.connection import Command, Reply, Waiting, Word
    from aiopatterns.backends.redis.errors import Failure
    from aiopatterns.backends.redis.routing import Route
    from aiopatterns.backends.redis.scripts import Script
    from aiopatterns.backends.url import Address, Target

__all__ = ["RETRY_FOR", "RedisClient"]

#: Seconds for which a command is sent again.
RETRY_FOR: Final = 3.0

_FLOOR: Final = (6, 2, 0)
_FIRST_PAUSE: Final = 0.02
_LAST_PAUSE: Final = 0.5
# Redirections in a row that are followed without a pause.
_MAX_REDIRECTS: Final = 5
_INFO: Final = ("INFO",)
_CLOSED: Final = "the backend was closed"


@final
class RedisClient:
    """The connections to one Redis, or to one cluster.

    Args:
        target: Where it is.
        namespace: First part of every key.
        timeout: Seconds that connecting may take, and that a server may be silent while it owes
            an answer.
    """

    __slots__ = (
        "_lines",
        "_route",
        "cluster",
        "get",
        "hub",
        "is_open",
        "namespace",
        "risk",
        "send",
        "tally",
        "target",
        "timeout",
        "url",
        "version",
    )

    def __init__(self, target: Target, *, namespace: str = "ap", timeout: float = 5.0) -> None:
        self.target: Final = target
        self.namespace: Final = namespace
        self.timeout: Final = timeout
        self.url: Final = target.url
        self.cluster: Final = target.scheme == "redis+cluster"
        self.version: tuple[int, int, int] = (0, 0, 0)
        self.risk: EvictionRisk | None = None
        self.tally: Final = Tally()
        self.hub: Final = Hub(self)
        self._lines: set[Line] = set()
        self._route: Route | None = None
        self.is_open: bool = False
        #: Issue a command; what its future is given may be a failure, for :meth:`again`. This is
        #: what the verbs do, for callers so hot that one coroutine less counts.
        self.send: Callable[[Command], Waiting] = self._refuse
        #: Issue the read of one key that holds a string or nothing; as :attr:`send`.
        self.get: Callable[[str], Waiting] = self._refuse

    def key(self, kind: str, *parts: str) -> str:
        """Return the key ``namespace:kind:part:...``."""
        return ":".join((self.namespace, kind, *parts))

    def tag(self, kind: str, name: str) -> str:
        """Return ``{namespace:kind:name}``: all keys that begin with it share a slot."""
        return f"{{{self.namespace}:{kind}:{name}}}"

    async def read(self, *command: Word) -> Any:
        """Send a read, and again if its answer is lost; return the reply.

        Raises:
            BackendUnavailableError: Nobody answers, in spite of retries.
            BackendError: The server refuses.
            ClosedError: The backend is not open.
        """
        reply = await self.send(command)
        if type(reply) in FAILURES:
            return await self.again(command, reply, repeatable=True)
        return reply

    # A write that may be repeated is the same to the client; the name tells the reader why.
    write = read

    async def once(self, *command: Word) -> Any:
        """Send a command that must not run twice; as :meth:`read`, but never again once sent."""
        reply = await self.send(command)
        if type(reply) in FAILURES:
            return await self.again(command, reply, repeatable=False)
        return reply

    async def read_each(self, commands: Sequence[Command]) -> list[Any]:
        """Send reads that may go to different servers; return the replies in order.

        One turn of the loop and no task, one round trip for each server at the same time.
        """
        return await self._each(commands, repeatable=True)

    async def once_each(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands that must not run twice; as :meth:`read_each`.

        Raises:
            BackendError: One failed; the others may have run.
        """
        return await self._each(commands, repeatable=False)

    async def run_each(
        self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Word]]]
    ) -> list[Any]:
        """Run ``script`` once for each of ``calls``, keys and arguments; as :meth:`once_each`."""
        start = ("EVALSHA", script.sha)
        commands = [(*start, len(keys), *keys, *args) for keys, args in calls]
        return await self._each(commands, repeatable=False, script=script)

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Word],
        *,
        repeatable: bool = False,
    ) -> Any:
        """Run ``script`` and return its reply; raises as :meth:`read`.

        Args:
            script: What to run.
            keys: The keys it touches; in a cluster all of one slot.
            args: Its further arguments.
            repeatable: Whether running it twice is as good as once.
        """
        command = ("EVALSHA", script.sha, len(keys), *keys, *args)
        reply = await self.send(command)
        if type(reply) in FAILURES:
            return await self.again(command, reply, repeatable=repeatable, script=script)
        return reply

    async def again(
        self,
        command: Command,
        failure: Failure,
        *,
        repeatable: bool,
        script: Script | None = None,
    ) -> Any:
        """Send a command that failed until it succeeds, must not be sent again, or time is up.

        Args:
            command: What failed.
            failure: What its future was given.
            repeatable: Whether running it twice is as good as once.
            script: The script that it runs.

        Returns:
            The reply; raises as :meth:`read`.
        """
        deadline = monotonic() + RETRY_FOR
        pause, redirects = _FIRST_PAUSE, 0
        while True:
            if (
                isinstance(failure, RefusalError)
                and failure.code == "NOSCRIPT"
                and script is not None
            ):
                command = ("EVAL", script.text, *command[2:])
            elif self.cluster and redirects < _MAX_REDIRECTS and _is_redirect(failure):
                redirects += 1
            elif _is_final(failure, repeatable=repeatable) or monotonic() >= deadline:
                raise translated(failure, self.url)
            else:
                await sleep(pause * (0.5 + rng().random()))
                pause, redirects = min(2 * pause, _LAST_PAUSE), 0
            self.tally.retries += 1
            reply = await self.route().resend(command, failure)
            if type(reply) not in FAILURES:
                return reply
            failure = reply

    def line(self, name: str) -> Line:
        """Return a connection of its own, made with its first call."""
        return Line(self, name)

    def route(self) -> Route:
        """Return what finds the servers.

        Raises:
            ClosedError: The backend is not open.
        """
        if self._route is None:
            raise ClosedError(self._closed())
        return self._route

    def uses(self, route: Route) -> bool:
        """Whether ``route`` is still the one, neither closed nor opened anew since."""
        return self._route is route

    def statistics(self, users: int) -> BackendStatistics:
        """Return the figures so far."""
        tally = self.tally
        return BackendStatistics(
            url=self.url,
            users=users,
            commands=tally.commands,
            round_trips=tally.round_trips,
            retries=tally.retries,
            reconnects=tally.reconnects,
            in_flight=0 if self._route is None else self._route.in_flight,
        )

    async def open(self, address: Address | None = None) -> None:
        """Connect, and see that the server is new enough.

        Args:
            address: Where a private server listens, if one was started.

        Raises:
            BackendUnavailableError: Nobody answers within ``timeout``.
            BackendError: The server refuses us, or is too old.

        Cancellation: as if it had never been opened.
        """
        route = make_route(self.target, address, patience=self.timeout, tally=self.tally)
        self._route, self.send, self.get = route, route.send, route.get
        try:
            failure = await route.open()
            reply: Reply = await route.send(_INFO) if failure is None else failure
            if isinstance(reply, RefusalError) and reply.later:
                reply = await self.again(_INFO, reply, repeatable=True)
            if type(reply) in FAILURES:
                raise self._unreachable(reply)
            told = facts(reply if isinstance(reply, bytes) else b"")  # else it is no Redis
            self.version, self.risk = version_of(told), EvictionRisk.of(self.url, told)
            if self.version < _FLOOR:
                found = ".".join(map(str, self.version))
                raise BackendError(f"Redis at {self.url} is {found}; 6.2 or newer is needed")
            self.is_open = True
        except BaseException:
            # Another opening may have begun since this one was cancelled: that stays.
            ends = self.drop() if self._route is route else route.drop(_CLOSED)
            if ends:
                await asyncio.wait(ends)
            raise

    def drop(self) -> list[asyncio.Future[None]]:
        """Close and hang up everywhere, at once; what is under way fails, subscriptions end.

        Returns:
            Whose end is to be awaited; not awaiting it loses nothing but the last turn of the
            loop that the transports need.
        """
        route, self._route = self._route, None
        self.is_open, self.send, self.get = False, self._refuse, self._refuse
        ends = self.hub.drop(_CLOSED)
        for line in tuple(self._lines):
            ends += line.drop(_CLOSED)
        if route is not None:
            ends += route.drop(_CLOSED)
        return ends

    def connected(self, line: Line) -> None:
        """Note a line that has a connection."""
        self._lines.add(line)

    def disconnected(self, line: Line) -> None:
        """Forget a line that has none."""
        self._lines.discard(line)

    def _refuse(self, command: Command | str) -> NoReturn:
        """Stand in for :attr:`send` and :attr:`get` while closed."""
        del command
        raise ClosedError(self._closed())

    def _closed(self) -> str:
        return f"the backend {self.url} is not open; use it inside 'async with backend:'"

    def _unreachable(self, failure: Failure) -> BackendError:
        error = translated(failure, self.url)
        if type(error) is BackendUnavailableError and not isinstance(failure, RefusalError):
            return BackendUnavailableError(
                f"{error}; start a server there, or use embedded:// (a private one) or memory://"
            )
        return error

    async def _each(
        self, commands: Sequence[Command], *, repeatable: bool, script: Script | None = None
    ) -> list[Any]:
        self.route()  # closed is closed, also with nothing to send
        send = self.send
        waiters = [send(command) for command in commands]
        replies: list[Any] = []
        for command, waiter in zip(commands, waiters, strict=True):
            reply = await waiter
            if type(reply) in FAILURES:
                reply = await self.again(command, reply, repeatable=repeatable, script=script)
            replies.append(reply)
        return replies


def _is_redirect(failure: Failure) -> bool:
    return isinstance(failure, RefusalError) and failure.code in {"MOVED", "ASK"}


def _is_final(failure: Failure, *, repeatable: bool) -> bool:
    """Whether a command may not be sent again, or need not."""
    if isinstance(failure, RefusalError):
        return not failure.later
    return isinstance(failure, LostError) and not repeatable
