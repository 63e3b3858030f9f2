"""How peers reach each other: the protocol of a transport, and a network in memory.

A transport moves bytes between addresses and knows nothing of what they mean. It has two ways::

    send(address, data)              never waits, may be lost, late or out of order; at most
                                     MAX_PACKET bytes: probes and gossip
    exchange(address, data, timeout) waits for the answer; at most MAX_EXCHANGE bytes each way:
                                     the whole state, messages to one peer, the last try of a probe

Decoding and counting what is malformed are the node's. A transport caps sizes before it allocates,
drops what is larger, and lets only those in who prove that they know the node's secret
(:mod:`aiopatterns.cluster.secret`); it is the transport that knows its connections, and only there
a recording can be made worthless.

:class:`MemoryNetwork` is a network inside one process for tests and examples: seeded loss and
delay, partitions and pauses. On the simulated loop a whole cluster runs through hours of it in
seconds, the same run for the same seed.

Guarantees of the network in memory:

* ``send`` loses a packet with the chance ``loss``; ``exchange`` is reliable like TCP: what is lost
  comes :data:`RETRANSMIT` seconds later.
* A delay is uniform between half and one and a half of ``delay``, so packets overtake each other.
* Nothing passes between an island and the rest; what a paused node sends or should get is held
  until its pause is over, as the kernel does for a process that is stopped.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from heapq import heappop, heappush
from itertools import count as counter
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, final

from anyio import move_on_after

from aiopatterns.cluster.secret import Secret
from aiopatterns.core.clock import call_later, monotonic, seeded, sleep
from aiopatterns.core.errors import ClosedError, SecretMismatchError, TimeoutExceededError
from aiopatterns.core.validate import count, in_range, instance, non_negative, positive, text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

__all__ = ["MAX_EXCHANGE", "MAX_PACKET", "MemoryNetwork", "MemoryTransport", "Transport"]

MAX_PACKET: Final = 1 << 16
"""Bytes of one ``send`` at most."""

MAX_EXCHANGE: Final = 1 << 22
"""Bytes of one request and of one answer at most."""

RETRANSMIT: Final = 0.2
"""Seconds until the network in memory sends a lost part of an exchange again (Linux' floor)."""

OPEN: Final = Secret(None)
"""The secret of those who have none."""

Receive: TypeAlias = "Callable[[bytes], object]"
Answer: TypeAlias = "Callable[[bytes], Awaitable[bytes]]"


class Timer(Protocol):
    """What the loop gives for a call that is due later."""

    def cancel(self) -> object:
        """Call it off."""
        ...


class Transport(Protocol):
    """What a :class:`~aiopatterns.cluster.PeerNode` sends and is reached by; users may bring one.

    One transport serves one node at a time, and may serve again after that.
    """

    @property
    def address(self) -> str:
        """Where others reach this node, as text; known from the moment it serves.

        Raises:
            ClosedError: It has not served yet, and only that tells.
        """
        ...

    @property
    def public(self) -> bool:
        """Whether others than this machine can reach it; the node then demands a secret."""
        ...

    def check(self, address: str) -> None:
        """Refuse what can be no address of this kind; a node asks about its seeds.

        Raises:
            ValueError: It cannot be one; the text says what one looks like.
            TypeError: It is no text.
        """
        ...

    def serve(
        self, name: str, *, receive: Receive, answer: Answer, secret: Secret
    ) -> AbstractAsyncContextManager[None]:
        """Listen inside the block.

        Args:
            name: Name of the node.
            secret: Only those get through, in and out, who know it too.
            receive: Called with each packet. It never raises.
            answer: Called with each request, and awaited. If it raises, the asker is refused:
                the connection is closed without an answer.

        Raises:
            OSError: The address cannot be listened at.
        """
        ...

    def send(self, address: str, data: bytes) -> None:
        """Send a packet, or lose it; never waits and never raises.

        Args:
            address: The ``address`` of another transport of this kind.
            data: At most :data:`MAX_PACKET` bytes.
        """
        ...

    async def exchange(self, address: str, data: bytes, *, timeout: float) -> bytes:
        """Ask and return the answer.

        Args:
            address: The ``address`` of another transport of this kind.
            data: At most :data:`MAX_EXCHANGE` bytes.
            timeout: Seconds from here to the whole answer.

        Raises:
            TimeoutExceededError: No answer in time.
            SecretMismatchError: The other side has another secret; a ConnectionAbortedError.
            ConnectionAbortedError: The other side is there and has refused to answer.
            OSError: It cannot be reached (this is the base of all above as well).

        Cancellation: the request may or may not have been handled.
        """
        ...


@final
class MemoryNetwork:
    """A network in this process whose faults a seed decides.

    Args:
        seed: Which faults; equal seeds under the simulated loop give equal runs.
        loss: Chance that a packet is lost, 0 to 1.
        delay: Mean seconds from one node to another.

    Raises:
        ValueError: A value is out of its range.

    Complexity: O(log k) for each packet, where k are on the way; one timer of the loop.

    Example::

        network = MemoryNetwork(seed=7, loss=0.1, delay=0.002)
        async with PeerNode("a", transport=MemoryTransport(network)) as a:
            ...
    """

    __slots__ = (
        "_answers",
        "_delay",
        "_dice",
        "_due",
        "_islands",
        "_islets",
        "_loss",
        "_numbers",
        "_paused",
        "_receivers",
        "_secrets",
        "_timer",
        "_way",
    )

    def __init__(self, *, seed: int = 0, loss: float = 0.0, delay: float = 0.0) -> None:
        self._dice = seeded(count("seed", seed, minimum=0)).random
        self._loss = in_range("loss", loss, 0.0, 1.0)
        self._delay = non_negative("delay", delay)
        self._receivers: dict[str, Receive] = {}
        self._answers: dict[str, Answer] = {}
        self._secrets: dict[str, Secret] = {}
        self._islands: dict[str, int] = {}
        self._islets = counter(1)
        self._paused: dict[str, float] = {}
        # Packets on the way as (due, number, from, to, data), and the timer for the first.
        self._way: list[tuple[float, int, str, str, bytes]] = []
        self._numbers = counter()
        self._timer: Timer | None = None
        self._due = 0.0

    def isolate(self, *names: str) -> None:
        """Put nodes on an island of their own: they reach each other and nobody else.

        Args:
            names: Names of nodes, also of such that are not open yet.
        """
        island = next(self._islets)
        self._islands |= dict.fromkeys((text("names", name) for name in names), island)

    def heal(self) -> None:
        """End every partition and every pause."""
        self._islands.clear()
        self._paused.clear()

    def pause(self, name: str, seconds: float) -> None:
        """Hold what a node sends and what is sent to it, as if its process were stopped.

        Its timers go on. That is harder for it than a real pause, after which a node notices that
        its loop was stuck and gives the others that much more time.

        Args:
            name: Name of the node.
            seconds: For how long from now; longer pauses swallow shorter ones.
        """
        until = monotonic() + positive("seconds", seconds)
        self._paused[text("name", name)] = max(until, self._paused.get(name, 0.0))

    @property
    def in_flight(self) -> int:
        """How many packets are on the way."""
        return len(self._way)

    def enter(self, name: str, receive: Receive, answer: Answer, secret: Secret) -> None:
        """Connect a node; :class:`MemoryTransport` does it.

        Raises:
            OSError: The name is taken.
        """
        if name in self._receivers:
            msg = f"name {name!r} is taken on this network; every node needs a name of its own"
            raise OSError(msg)
        self._receivers[name] = receive
        self._answers[name] = answer
        self._secrets[name] = secret

    def leave(self, name: str) -> None:
        """Disconnect a node; what is on the way to it is lost."""
        del self._receivers[name], self._answers[name], self._secrets[name]
        if not self._receivers:
            self._way.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def send(self, source: str, target: str, data: bytes) -> None:
        """Send a packet from one node to another, or lose it."""
        if self._dice() < self._loss or self._cut(source, target):
            return
        due = self._arrival(source, target)
        heappush(self._way, (due, next(self._numbers), source, target, data))
        if self._timer is None or due < self._due:
            self._arm(due)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = call_later(due - monotonic(), self._deliver)

    def _deliver(self) -> None:
        """Hand over what is due; what meets a partition or a pause on the way, heeds it."""
        self._timer = None
        now = monotonic()
        way = self._way
        while way and way[0][0] <= now:
            _, _, source, target, data = heappop(way)
            receive = self._receivers.get(target)
            if receive is None or self._cut(source, target) or self._strangers(source, target):
                continue
            held = self._paused.get(target, 0.0)
            if held > now:
                heappush(way, (held, next(self._numbers), source, target, data))
            else:
                receive(data)
        if way and self._timer is None:
            self._arm(way[0][0])

    async def exchange(self, source: str, target: str, data: bytes, timeout: float) -> bytes:
        """Ask one node in the name of another; see :meth:`Transport.exchange`."""
        deadline = monotonic() + timeout
        await self._travel(source, target, deadline)
        answer = self._answers.get(target)
        if answer is None:
            msg = f"nobody listens at {target!r}"
            raise ConnectionRefusedError(msg)
        if self._strangers(source, target):
            raise SecretMismatchError(address=target)
        with move_on_after(deadline - monotonic()):
            reply = await _answered(target, answer(data))
            await self._travel(target, source, deadline)
            return reply
        raise _late(target)

    async def _travel(self, source: str, target: str, deadline: float) -> None:
        """Take the time of one way; a cut takes all the time there is."""
        arrival = self._arrival(source, target)
        while self._dice() < min(self._loss, 0.9):
            arrival += RETRANSMIT
        late = self._cut(source, target) or arrival > deadline
        await sleep((deadline if late else arrival) - monotonic())
        if late:
            raise _late(target)

    def _arrival(self, source: str, target: str) -> float:
        now = monotonic()
        paused = self._paused
        start = max(now, paused.get(source, 0.0), paused.get(target, 0.0)) if paused else now
        return start + self._delay * (0.5 + self._dice()) if self._delay else start

    def _cut(self, source: str, target: str) -> bool:
        islands = self._islands
        return bool(islands) and islands.get(source) != islands.get(target)

    def _strangers(self, source: str, target: str) -> bool:
        """Whether two nodes that are there have different secrets."""
        ours, theirs = self._secrets.get(source), self._secrets.get(target)
        # One object for all is the common case: a thousand nodes without a secret pay nothing.
        return not (ours is theirs or ours is None or theirs is None or ours.matches(theirs))


@final
class MemoryTransport:
    """One node's place in a :class:`MemoryNetwork`; its address is the name of the node.

    Args:
        network: The network.
    """

    __slots__ = ("_name", "_network", "_serving")

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = instance("network", network, MemoryNetwork, "a MemoryNetwork")
        self._name = ""
        self._serving = False

    @property
    def address(self) -> str:
        """The name of the node it serves, or has served.

        Raises:
            ClosedError: It has not served yet.
        """
        if not self._name:
            raise ClosedError("a transport in memory has the address of its node; open that first")
        return self._name

    @property
    def public(self) -> bool:
        """Whether others than this machine can reach it: never."""
        return False

    def check(self, address: str) -> None:
        """Refuse what can be no name of a node; see :meth:`Transport.check`."""
        text("address", address)

    def serve(
        self, name: str, *, receive: Receive, answer: Answer, secret: Secret = OPEN
    ) -> AbstractAsyncContextManager[None]:
        """Be reachable inside the block; see :meth:`Transport.serve`.

        Raises:
            OSError: The name is taken on this network.
            RuntimeError: It serves a node already.
        """
        return self._serve(name, receive, answer, secret)

    def send(self, address: str, data: bytes) -> None:
        """Send a packet; see :meth:`Transport.send`."""
        self._network.send(self._name, address, data)

    async def exchange(self, address: str, data: bytes, *, timeout: float) -> bytes:
        """Ask and return the answer; see :meth:`Transport.exchange`."""
        return await self._network.exchange(self._name, address, data, timeout)

    @asynccontextmanager
    async def _serve(
        self, name: str, receive: Receive, answer: Answer, secret: Secret
    ) -> AsyncGenerator[None]:
        if self._serving:
            msg = "this transport serves a node already; each needs one of its own"
            raise RuntimeError(msg)
        self._network.enter(name, receive, answer, secret)
        self._name, self._serving = name, True
        try:
            yield
        finally:
            self._serving = False
            self._network.leave(name)


async def _answered(target: str, reply: Awaitable[bytes]) -> bytes:
    try:
        return await reply
    except Exception as error:
        msg = f"{target!r} refused to answer"
        raise ConnectionAbortedError(msg) from error


def _late(target: str) -> TimeoutExceededError:
    return TimeoutExceededError(f"{target!r} did not answer in time")
