"""A network between client and server that fails on command.

A lost reply, a cut connection, a partition: what a library does then decides whether it can be
trusted, and no unit test with a fake client shows it. The proxy stands in front of a real server
and makes each of these happen at a moment that the test chooses::

    client ---- requests ----> FaultProxy ----> server
           <---- replies -----            <----

    drop_replies   the request reaches the server, its reply does not come back: connection cut
    drop_requests  the request does not reach the server: connection cut
    duplicate      the request reaches the server twice, the client sees the first reply
    cut            all connections are reset, now
    refuse         new connections are reset
    delay          every chunk is held for a while, in both directions
    partition      nothing passes, nothing is lost: what is held arrives after ``heal``
    storm          the first four by chance, from a seed

The first three pick their requests: any, those that contain some bytes, or those that a function
says; the ``skip``-th and on. So the loss of a reply can be shown at each step of an exchange.

Guarantees: bytes are never changed or reordered. With ``framing="resp"`` a fault hits exactly the
reply to its request, also in a pipeline. Leaving the block ends all connections; no task is left.

Not guaranteed: one reply to one request, where the protocol itself has none: ``SUBSCRIBE`` to
several channels, ``MONITOR``. With ``framing="chunk"`` (any other protocol) a request is what
arrives at once, its reply is the next thing that comes back, and a duplicated request is answered
twice.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, final
from urllib.parse import urlsplit

from anyio import Event

from aiopatterns.backends.url import masked
from aiopatterns.core.clock import seeded, sleep
from aiopatterns.core.errors import ClosedError
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.validate import choice, count, in_range, non_negative
from aiopatterns.testing.link import Counts, Fate, Link, reset

if TYPE_CHECKING:
    from collections.abc import Callable
    from urllib.parse import SplitResult

    from anyio.abc import TaskGroup

    from aiopatterns.testing.link import Direction, Peer

__all__ = ["Fault", "FaultProxy", "ProxyStatistics"]

Matching: TypeAlias = "bytes | Callable[[bytes], bool] | None"
"""Which requests a fault is for: those with these bytes, those that the function says, or all."""


@dataclass(frozen=True, slots=True)
class ProxyStatistics:
    """What the proxy has carried and what it has done.

    Args:
        connections: Connections that clients have opened, refused ones included.
        open: Connections that are open now.
        refused: Connections that were reset at once.
        unreachable: Connections for which the server did not answer.
        requests: Requests that reached the server (a duplicated one counts once).
        replies: Replies that reached the client.
        dropped_requests: Requests that did not reach the server.
        dropped_replies: Replies that did not reach the client.
        duplicated: Requests that were sent twice.
        cut: Connections that were reset by ``cut``.
    """

    connections: int
    open: int
    refused: int
    unreachable: int
    requests: int
    replies: int
    dropped_requests: int
    dropped_replies: int
    duplicated: int
    cut: int


@final
class Fault:
    """A fault that waits for its requests; made by the verbs of :class:`FaultProxy`.

    ``hits`` is how often it has struck, ``left`` how often it still will.
    """

    __slots__ = ("_done", "_fate", "_matching", "_skip", "hits", "left")

    def __init__(self, fate: Fate, times: int, *, matching: Matching, skip: int) -> None:
        self._fate = fate
        self._matching = matching
        self._skip = count("skip", skip, minimum=0)
        self._done = Event()
        self.left: int = count("times", times)
        self.hits: int = 0

    async def wait(self) -> None:
        """Wait until it has struck for the last time.

        Cancellation: leaves nothing behind.
        """
        await self._done.wait()

    def cancel(self) -> None:
        """Strike no more."""
        self.left = 0
        self._done.set()

    def _take(self, request: bytes) -> Fate:
        """Decide about one request."""
        if not self.left or not self._matches(request):
            return Fate.THROUGH
        if self._skip:
            self._skip -= 1
            return Fate.THROUGH
        self.hits += 1
        self.left -= 1
        if not self.left:
            self._done.set()
        return self._fate

    def _matches(self, request: bytes) -> bool:
        if self._matching is None:
            return True
        if isinstance(self._matching, bytes):
            return self._matching in request
        return self._matching(request)


@dataclass(frozen=True, slots=True)
class _Storm:
    """How likely each fault is, as bounds of one roll of the dice."""

    drop_reply: float = 0.0
    drop_request: float = 0.0
    duplicate: float = 0.0
    refuse: float = 0.0

    def fate(self, roll: float) -> Fate:
        if roll < self.drop_reply:
            return Fate.DROP_REPLY
        if roll < self.drop_reply + self.drop_request:
            return Fate.DROP_REQUEST
        if roll < self.drop_reply + self.drop_request + self.duplicate:
            return Fate.DUPLICATE
        return Fate.THROUGH


@final
class FaultProxy(Owner):
    """A proxy in front of a server, with faults on command.

    Clients connect to :attr:`url` instead of the server's. All verbs are synchronous and take
    effect at once; :meth:`calm` ends them all.

    Args:
        target: The server's URL (``unix://path``, ``redis://host:port``); the proxy listens the
            same way: on a Unix socket of the same file name, or on a free port of 127.0.0.1.
        seed: Seed of what happens by chance.
        framing: How to tell requests and replies apart: by the Redis protocol, or by what arrives
            at once.

    Raises:
        ValueError: A URL without a place to connect to.

    Example::

        async with FaultProxy(server.url) as proxy, open_backend(proxy.url) as backend:
            proxy.drop_replies(1, matching=b"XADD")
            ...
    """

    __slots__ = (
        "_delay",
        "_faults",
        "_framed",
        "_home",
        "_links",
        "_listener",
        "_random",
        "_refusing",
        "_roads",
        "_storm",
        "_target",
        "_url",
        "counts",
    )

    def __init__(
        self, target: str, *, seed: int = 0, framing: Literal["resp", "chunk"] = "resp"
    ) -> None:
        super().__init__(f"proxy of {masked(target)}")
        self._target = urlsplit(target)
        if not (self._target.path if self._is_unix else self._target.port):
            msg = f"target must be unix://path or scheme://host:port, not {masked(target)!r}"
            raise ValueError(msg)
        self._framed = choice("framing", framing, ("resp", "chunk")) == "resp"
        if self._framed and self._target.scheme == "rediss":
            raise ValueError(
                "framing must be 'chunk' for rediss://: what is encrypted has no frames"
            )
        self._random = seeded(seed)
        self._links: set[Link] = set()
        self._listener: asyncio.Server | None = None
        self._home: Path | None = None
        self._url = ""
        self.counts: Counts = Counts()
        self._faults: list[Fault] = []
        self._roads: dict[Direction, Event] = {}
        self._delay = (0.0, 0.0)
        self._refusing = False
        self._storm = _Storm()

    @property
    def url(self) -> str:
        """Where clients connect to; user, password and database are those of the target.

        Raises:
            ClosedError: The proxy is not open.
        """
        if not self._url:
            raise ClosedError("the proxy is not open; use it inside 'async with FaultProxy(...)'")
        return self._url

    def statistics(self) -> ProxyStatistics:
        """Return the figures since the proxy was made."""
        return ProxyStatistics(open=len(self._links), **asdict(self.counts))

    def drop_replies(self, times: int = 1, *, matching: Matching = None, skip: int = 0) -> Fault:
        """Let the next requests reach the server, but not their replies the client.

        The connection is cut when the reply arrives, as if the network had failed just then.

        Args:
            times: How many replies to drop.
            matching: Which requests count: those that contain these bytes, or of which the
                function says so. It sees whole requests, as on the wire.
            skip: Let so many matching requests pass first.
        """
        return self._arm(Fate.DROP_REPLY, times, matching=matching, skip=skip)

    def drop_requests(self, times: int = 1, *, matching: Matching = None, skip: int = 0) -> Fault:
        """Cut the connection before the next requests reach the server.

        Arguments as in :meth:`drop_replies`.
        """
        return self._arm(Fate.DROP_REQUEST, times, matching=matching, skip=skip)

    def duplicate(self, times: int = 1, *, matching: Matching = None, skip: int = 0) -> Fault:
        """Send the next requests to the server twice; the client sees the first reply.

        This is what a client that retries blindly does. Arguments as in :meth:`drop_replies`.
        """
        return self._arm(Fate.DUPLICATE, times, matching=matching, skip=skip)

    def cut(self) -> int:
        """Reset all connections that are open now, and return how many."""
        links = [*self._links]
        for link in links:
            link.cut()
        return len(links)

    def refuse(self) -> None:
        """Reset new connections at once, until :meth:`accept`; open ones live on."""
        self._refusing = True

    def accept(self) -> None:
        """Take new connections again."""
        self._refusing = False

    def delay(self, seconds: float, *, jitter: float = 0.0) -> None:
        """Hold every chunk for ``seconds`` and up to ``jitter`` more; 0 ends it.

        One chunk is held at a time: a stream of them is slowed down, too.
        """
        self._delay = (non_negative("seconds", seconds), non_negative("jitter", jitter))

    def partition(self, direction: Literal["requests", "replies", "both"] = "both") -> None:
        """Hold up all bytes in this direction until :meth:`heal`; connections stay open."""
        ways: tuple[Direction, ...] = ("requests", "replies")
        choice("direction", direction, ("requests", "replies", "both"))
        for way in ways if direction == "both" else (direction,):
            self._roads.setdefault(way, Event())

    def heal(self) -> None:
        """End the partition; what was held up goes on."""
        while self._roads:
            self._roads.popitem()[1].set()

    def storm(
        self,
        *,
        drop_reply_ratio: float = 0.0,
        drop_request_ratio: float = 0.0,
        duplicate_ratio: float = 0.0,
        refuse_ratio: float = 0.0,
    ) -> None:
        """Let each request (each new connection) meet a fault with these chances.

        Raises:
            ValueError: A ratio outside 0..1, or those of requests are more than 1 together.
        """
        in_range("drop_reply_ratio", drop_reply_ratio, 0, 1)
        in_range("drop_request_ratio", drop_request_ratio, 0, 1)
        in_range("duplicate_ratio", duplicate_ratio, 0, 1)
        in_range("refuse_ratio", refuse_ratio, 0, 1)
        in_range("ratios", drop_reply_ratio + drop_request_ratio + duplicate_ratio, 0, 1)
        self._storm = _Storm(drop_reply_ratio, drop_request_ratio, duplicate_ratio, refuse_ratio)

    def calm(self) -> None:
        """End every fault: from here on all passes."""
        for fault in self._faults:
            fault.cancel()
        self._faults.clear()
        self._storm = _Storm()
        self.delay(0)
        self.accept()
        self.heal()

    def fate(self, request: bytes) -> Fate:
        """Decide what becomes of a request; its connection asks."""
        for fault in self._faults:
            fate = fault._take(request)
            if fate is not Fate.THROUGH:
                self._faults = [each for each in self._faults if each.left]
                return fate
        return self._storm.fate(self._random.random())

    async def hold(self, direction: Direction) -> None:
        """Wait as long as bytes in this direction are held up; each connection asks."""
        while (road := self._roads.get(direction)) is not None:
            await road.wait()
        least, jitter = self._delay
        if least or jitter:
            await sleep(least + jitter * self._random.random())

    async def _start(self, tasks: TaskGroup) -> None:
        del tasks  # connections come later, each with a task of its own
        if not self._is_unix:
            self._listener = await asyncio.start_server(self._meet, "127.0.0.1", 0)
            port = self._listener.sockets[0].getsockname()[1]
            login, at, _ = self._target.netloc.rpartition("@")
            self._url = _rebuilt(self._target, netloc=f"{login}{at}127.0.0.1:{port}")
            return
        self._home = Path(tempfile.mkdtemp(prefix="ap-"))
        path = self._home / Path(self._target.path).name
        self._listener = await asyncio.start_unix_server(self._meet, path)
        self._url = _rebuilt(self._target, path=str(path))

    async def _drain(self) -> None:
        """Nothing is owed to anybody: the connections end with the block."""

    def _settle(self) -> None:
        self.calm()
        self._url = ""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    @property
    def _is_unix(self) -> bool:
        return self._target.scheme == "unix"

    def _arm(self, fate: Fate, times: int, *, matching: Matching, skip: int) -> Fault:
        fault = Fault(fate, times, matching=matching, skip=skip)
        self._faults.append(fault)
        return fault

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a new connection, or not; the loop calls it."""
        self.counts.connections += 1
        refused = self._refusing or self._random.random() < self._storm.refuse
        if refused or self._group is None:
            self.counts.refused += 1
            reset(writer)
            return
        self._group.start_soon(self._serve, (reader, writer))

    async def _serve(self, client: Peer) -> None:
        try:
            server = await self._connect()
        except OSError:
            self.counts.unreachable += 1
            reset(client[1])
            return
        except BaseException:
            reset(client[1])
            raise
        link = Link(self, client, server, framed=self._framed)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    async def _connect(self) -> Peer:
        if self._is_unix:
            return await asyncio.open_unix_connection(self._target.path)
        return await asyncio.open_connection(self._target.hostname, self._target.port)


def _rebuilt(parts: SplitResult, **changed: str) -> str:
    """Return a URL with some parts changed; ``geturl`` forgets the slashes of ``unix://``."""
    new = parts._replace(**changed)
    return f"{new.scheme}://{new.netloc}{new.path}" + (new.query and f"?{new.query}")
