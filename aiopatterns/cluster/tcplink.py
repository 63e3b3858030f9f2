"""The way from one peer to another: one connection, made when there is something to say.

::

    send ----> packets (the newest 64) --.
                                           >---- connection ----> the other peer
    ask -----> requests ------------------'           |
      ^                                               |
      `-------------- answers, by number <------------'

A link ends after :data:`IDLE` seconds without a word, and when its connection fails; what comes
then makes a new one. Packets that wait when it fails are lost, as packets may be; requests that
wait are told.

A host that vanishes says nothing, and TCP takes a quarter of an hour to notice. So a connection on
which a request got no answer in time, and nothing else was heard, is given up; and where the system
can be told to (Linux), one that takes nothing for ten seconds is.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, final

from anyio import CancelScope, Event, create_task_group, move_on_after

from aiopatterns.cluster.tcpaddress import host_and_port
from aiopatterns.cluster.tcpframes import Frame, Kind
from aiopatterns.cluster.tcpwire import LOST, SILENT, call
from aiopatterns.core.errors import CodecError, SecretMismatchError, TimeoutExceededError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiopatterns.cluster.secret import Secret
    from aiopatterns.cluster.tcpwire import Wire

__all__ = ["Link"]

#: Packets that wait for a connection, or for a slow one; the oldest go first.
WAITING: Final = 64
#: Seconds without a word after which a connection is closed.
IDLE: Final = SILENT / 3


@final
class _Asked:
    """A request on its way; ``error`` or ``answer`` is set when it is ``settled``."""

    __slots__ = ("answer", "error", "settled")

    def __init__(self) -> None:
        self.settled = Event()
        self.answer: bytes | None = None
        self.error: OSError | None = None


@final
class Link:
    """The way to one peer.

    Args:
        address: Where it is, as ``"host:port"``.
        secret: What both know.
        own: Where this side is called itself.
        ended: Called with this link at the moment it takes nothing more, and with why it failed.

    Raises:
        ValueError: ``address`` is no place to call.
    """

    __slots__ = (
        "_asked",
        "_bell",
        "_ended",
        "_heard",
        "_host",
        "_live",
        "_number",
        "_own",
        "_packets",
        "_port",
        "_requests",
        "_scope",
        "_secret",
        "_writing",
        "address",
    )

    def __init__(
        self,
        address: str,
        *,
        secret: Secret,
        own: str,
        ended: Callable[[Link, Exception | None], object],
    ) -> None:
        self._host, self._port = host_and_port("address", address)
        self.address: str = address
        self._secret, self._own = secret, own
        self._ended = ended
        self._live = True
        self._writing = False
        self._packets: deque[Frame] = deque(maxlen=WAITING)
        self._requests: deque[Frame] = deque()
        self._asked: dict[int, _Asked] = {}
        self._number = 0
        self._heard = 0  # what came from the other side: the beginning, and answers
        self._bell = Event()
        self._scope = CancelScope()

    @property
    def busy(self) -> bool:
        """Whether anything waits to be sent, or is being sent."""
        return self._writing or bool(self._packets or self._requests)

    @property
    def waiting(self) -> int:
        """Packets that wait to be sent."""
        return len(self._packets)

    def send(self, data: bytes) -> bool:
        """Send a packet soon; whether the oldest that waits has to go for it."""
        full = len(self._packets) == WAITING
        self._packets.append(Frame(Kind.PACKET, 0, data))
        self._bell.set()
        return full

    async def ask(self, data: bytes, timeout: float) -> bytes:
        """Send a request and return the answer.

        Raises:
            TimeoutExceededError: No answer in time.
            SecretMismatchError: The other side has another secret.
            ConnectionAbortedError: The other side refuses to answer.
            OSError: It cannot be reached.

        Cancellation: the answer is dropped when it comes.
        """
        self._number += 1
        number, asked, heard = self._number, _Asked(), self._heard
        self._asked[number] = asked
        self._requests.append(Frame(Kind.REQUEST, number, data))
        self._bell.set()
        try:
            with move_on_after(timeout):
                await asked.settled.wait()
        finally:
            self._asked.pop(number, None)
        if asked.error is not None:
            raise asked.error
        if asked.answer is None:
            if heard and self._heard == heard:  # connected all the time, and not a word
                self.end(TimeoutError("nothing was heard in time"))
            raise TimeoutExceededError(
                f"no answer from {self.address} within {timeout} s", timeout=timeout
            )
        return asked.answer

    async def run(self) -> None:
        """Connect and talk until there is nothing to say or nobody to talk to; never raises."""
        with self._scope:
            try:
                await self._talk()
            except (*LOST, CodecError) as error:
                self.end(error)

    def end(self, error: Exception | None) -> None:
        """Take nothing more, tell those who wait, and close the connection.

        Args:
            error: Why; None if there was nothing left to say.
        """
        if not self._live:
            return
        self._live = False
        self._ended(self, error)
        for asked in self._asked.values():
            asked.error = self._told(error)
            asked.settled.set()
        self._scope.cancel()

    async def _talk(self) -> None:
        stream, wire = await call(self._host, self._port, secret=self._secret, address=self._own)
        self._heard += 1
        async with stream, create_task_group() as tasks:
            tasks.start_soon(self._until_lost, self._hear, wire)
            tasks.start_soon(self._until_lost, self._say, wire)

    async def _until_lost(self, work: Callable[[Wire], Awaitable[None]], wire: Wire) -> None:
        try:
            await work(wire)
        except (*LOST, CodecError) as error:
            self.end(error)

    async def _say(self, wire: Wire) -> None:
        """Write what there is, until there was nothing for long."""
        while self._live:
            if frames := self._take():
                self._writing = True
                await wire.write(*frames)
                self._writing = False
                continue
            self._bell = Event()
            with move_on_after(IDLE) as quiet:
                await self._bell.wait()
            if quiet.cancelled_caught and not (self._asked or self._packets):
                self.end(None)

    def _take(self) -> list[Frame]:
        """Return what waits: requests that somebody still wants an answer to, then packets."""
        frames = [each for each in self._requests if each.number in self._asked]
        frames += self._packets
        self._requests.clear()
        self._packets.clear()
        return frames

    async def _hear(self, wire: Wire) -> None:
        """Give answers to those who asked."""
        while True:
            for frame in await wire.read(inf):
                self._heard += 1
                asked = self._asked.get(frame.number)
                if asked is None:  # nobody waits for it any more
                    continue
                if frame.kind is Kind.ANSWER:
                    asked.answer = frame.payload
                else:
                    asked.error = ConnectionAbortedError(f"{self.address} refuses to answer")
                asked.settled.set()

    def _told(self, error: Exception | None) -> OSError:
        """Return the end of this link as one of those who wait sees it."""
        where = self.address
        if isinstance(error, SecretMismatchError):
            told: OSError = SecretMismatchError(f"{error} ({where})", address=where)
        elif isinstance(error, CodecError):
            told = ConnectionAbortedError(f"{where} is no peer: {error}")
        else:
            told = ConnectionError(f"{where} cannot be reached: {error!r}")
        told.__cause__ = error
        return told
