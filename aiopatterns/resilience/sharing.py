"""Circuits that are shared: when enough processes see a service fail, all stop asking it.

Each process counts its own calls, and each finds out for itself, at the price of as many failed
calls as its breaker needs. Sharing tells the others::

    process A   own calls fail: OPEN  --- vote --.     votes / members >= quorum
    process B   own calls fail: OPEN  --- vote --+---> process C, whose own calls were fine so far,
    process C   CLOSED                           |     and process D open for the same break
    process D   CLOSED                           '---> below the quorum again: C and D close

Only what a process saw *itself* is a vote; that the fleet opened its circuit is none, or a fleet
would hold itself open for ever. One process with a broken network cannot open the circuits of the
others, unless it is the share of them that the quorum asks for.

When the break is over, those who voted send their probes, and the others wait for the verdict
:data:`GRACE` seconds longer. So a service that comes back meets the probes of a few. If nobody
tells them in that time, they find out for themselves.

Guarantees:

* The decision of each call is local and synchronous as before: sharing adds nothing to a call.
* An outage of the backend is no error. Each circuit then is what it is without sharing, and
  sharing goes on by itself when the backend answers again.
* A process that dies is no member and no vote any more after ``ttl`` seconds.

Not guaranteed: an instant at which all open; it takes a round trip and a live message, or
:data:`INTERVAL` seconds if that is lost. A forced circuit takes no part.

Source: Polly's issue 287 asks for the quorum; resilience4j refuses shared state on the path of a
call (issues 419, 1284), which is why this stands beside it.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, final

import msgspec
from anyio import Event as Bell
from anyio import create_task_group, move_on_after

from aiopatterns.backends.opening import resolve
from aiopatterns.core.clock import sleep
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.context import new_id
from aiopatterns.core.errors import BackendError, CodecError
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.validate import instance, positive
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.circuitstate import CircuitState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anyio.abc import TaskGroup

    from aiopatterns.backends.protocols import Backend, Directory
    from aiopatterns.backends.records import Members
    from aiopatterns.core.telemetry import Subscription

__all__ = [
    "CircuitOpenedByFleet",
    "CircuitSharingInterrupted",
    "CircuitSharingResumed",
    "SharedCircuits",
    "SharedCircuitsStatistics",
    "share_circuits",
]

#: Seconds after which a process that does not renew is no member any more.
TTL: Final = 10.0
#: Seconds after which every process looks by itself, if no live message came.
INTERVAL: Final = 1.0
#: Seconds that those who did not vote wait for the verdict of those who did.
GRACE: Final = 2.0
#: Seconds until a backend that did not answer is asked again.
RETRY: Final = 1.0
#: Seconds that leaving waits for the backend, to take back votes.
FAREWELL: Final = 0.5


@final
class Vote(msgspec.Struct, frozen=True, array_like=True):
    """What one process says of one circuit; new fields go to the end.

    Args:
        until: The server's time until which its own calls have opened it; None if they have not.
    """

    until: float | None = None


_vote_of = MSGPACK.decoder(Vote)
_NO_VOTE: Final = MSGPACK.encode(Vote())


@dataclass(frozen=True, slots=True)
class CircuitOpenedByFleet(Event):
    """Enough other processes have opened a circuit, so it opened here as well.

    Args:
        circuit: Its name.
        seconds: Length of the break.
        votes: Processes that opened it by their own calls.
        members: Processes that share it.
    """

    name: ClassVar[str] = "aiopatterns.circuit.opened_by_fleet"
    level: ClassVar[str] = "warning"

    circuit: str
    seconds: float
    votes: int
    members: int


@dataclass(frozen=True, slots=True)
class CircuitSharingInterrupted(Event):
    """The backend is out of reach: circuits are on their own.

    Args:
        error: What was wrong.
    """

    name: ClassVar[str] = "aiopatterns.circuit.sharing_interrupted"
    level: ClassVar[str] = "warning"

    error: str


@dataclass(frozen=True, slots=True)
class CircuitSharingResumed(Event):
    """The backend answers again: circuits are shared."""

    name: ClassVar[str] = "aiopatterns.circuit.sharing_resumed"


@final
@dataclass(frozen=True, slots=True)
class SharedCircuitsStatistics:
    """What a sharing of circuits knows at one instant.

    Args:
        connected: Whether the backend answered when it was last asked.
        members: Processes that share each circuit, by its name.
        votes: Those of them whose own calls have opened it.
        followed: Circuits that are open because of the others.
    """

    connected: bool
    members: dict[str, int]
    votes: dict[str, int]
    followed: frozenset[str]


def share_circuits(
    backend: Backend | str, breakers: Iterable[CircuitBreaker], *, quorum: float = 0.5
) -> SharedCircuits:
    """Share circuits with all processes that do the same with breakers of the same names.

    Args:
        backend: Where the votes are; opened by the block if it is closed.
        breakers: Which circuits; each name once, and each in one sharing at a time.
        quorum: Share of the processes, above 0 and up to 1, whose own calls must have opened a
            circuit before it opens for all. With 0.5, two of four.

    Returns:
        An ``async with`` block, in which they are shared. It may be entered again.

    Example::

        async with share_circuits(backend, [database, billing]):
            await serve()
    """
    return SharedCircuits(backend, breakers, quorum=quorum)


@final
class SharedCircuits(Owner):
    """The block made by :func:`share_circuits`, which see.

    Entering it never waits for the backend, and leaving it, to take back the votes, at most
    :data:`FAREWELL` seconds.
    """

    __slots__ = ("_backend", "_connected", "_interrupted", "_shares", "_watching")

    def __init__(
        self, backend: Backend | str, breakers: Iterable[CircuitBreaker], *, quorum: float = 0.5
    ) -> None:
        super().__init__("shared circuits")
        if not 0 < positive("quorum", quorum) <= 1:
            msg = f"quorum must be above 0 and at most 1, a share of the processes, not {quorum!r}"
            raise ValueError(msg)
        self._backend = resolve(backend)
        member = new_id()
        self._shares: dict[str, _Share] = {}
        for breaker in breakers:
            instance("breakers", breaker, CircuitBreaker, "CircuitBreakers")
            if breaker.name in self._shares:
                msg = f"breakers must have names of their own, but two are {breaker.name!r}"
                raise ValueError(msg)
            self._shares[breaker.name] = _Share(breaker, quorum, member)
        if not self._shares:
            msg = "breakers must hold at least one CircuitBreaker"
            raise ValueError(msg)
        self._watching: list[Subscription] = []
        self._connected = self._interrupted = False

    def statistics(self) -> SharedCircuitsStatistics:
        """Return what it knows of the others."""
        shares = self._shares
        return SharedCircuitsStatistics(
            self._connected,
            {name: share.members for name, share in shares.items()},
            {name: share.votes for name, share in shares.items()},
            frozenset(name for name, share in shares.items() if share.following),
        )

    async def _start(self, tasks: TaskGroup) -> None:
        self._watching = [share.attach() for share in self._shares.values()]
        tasks.start_soon(self._run)

    def _settle(self) -> None:
        self._connected = self._interrupted = False
        for each in self._watching:
            each.close()

    async def _run(self) -> None:
        """Share, and begin anew when the backend was away; ends by cancellation."""
        while True:
            try:
                async with self._backend:
                    await self._share()
            except* BackendError as errors:
                self._lost(errors.exceptions[0])
            await sleep(RETRY)

    async def _share(self) -> None:
        """Tell and heed votes of all circuits until the backend does not answer."""
        shares = self._shares.values()
        try:
            async with create_task_group() as group:
                for share in shares:
                    group.start_soon(share.tell, self._backend, self._found)
                    group.start_soon(share.listen, self._backend)
        finally:
            with move_on_after(FAREWELL, shield=True), suppress(BackendError):
                for share in shares:
                    await share.leave(self._backend)

    def _found(self) -> None:
        """The backend has answered."""
        self._connected = True
        if self._interrupted:
            self._interrupted = False
            if listening():
                emit(CircuitSharingResumed())

    def _lost(self, error: BaseException) -> None:
        self._connected = False
        if not self._interrupted:
            self._interrupted = True
            if listening():
                emit(CircuitSharingInterrupted(str(error)))


@final
class _Share:
    """One circuit of this process, and what the others say of theirs."""

    __slots__ = (
        "_applying",
        "_bell",
        "_breaker",
        "_heeded",
        "_member",
        "_quorum",
        "_vote",
        "_voting",
        "following",
        "members",
        "votes",
    )

    def __init__(self, breaker: CircuitBreaker, quorum: float, member: str) -> None:
        self._breaker = breaker
        self._quorum = quorum
        self._member = member
        self._bell = Bell()  # rings when the vote has changed
        self._voting = False  # whether own calls have opened the circuit
        self._vote = b""  # as it was told; empty if it has to be made
        self._applying = False  # whether what happens to the circuit is our own doing
        self._heeded = -math.inf  # up to when the others were followed
        self.following = False
        self.members = self.votes = 0

    def attach(self) -> Subscription:
        """Watch the circuit from now on."""
        self.following = False
        self._heeded = -math.inf
        self._changed()
        return self._breaker.watch(self._changed)

    async def tell(self, backend: Backend, found: Callable[[], object]) -> None:
        """Keep this process a member, with its vote."""
        directory = self._directory(backend)
        while True:
            self._bell = Bell()
            await directory.put(self._member, await self._told(backend), ttl=TTL)
            found()
            with move_on_after(TTL / 3):
                await self._bell.wait()

    async def listen(self, backend: Backend) -> None:
        """Follow the votes of the others."""
        async with self._directory(backend).watch(interval=INTERVAL) as snapshots:
            async for snapshot in snapshots:
                await self._heed(snapshot, backend)

    async def leave(self, backend: Backend) -> None:
        """Be no member any more."""
        await self._directory(backend).remove(self._member)

    def _directory(self, backend: Backend) -> Directory:
        return backend.directory(f"circuit:{self._breaker.name}")

    def _changed(self) -> None:
        """The circuit has opened, closed or was forced: see whether that changes the vote."""
        if self._applying:
            return
        self.following = False
        closed = self._breaker.state is CircuitState.CLOSED
        self._voting = not closed and self._breaker.forced is None
        self._vote = b""
        self._bell.set()

    async def _told(self, backend: Backend) -> bytes:
        """Return the vote in bytes, the same until it changes."""
        while not self._vote:
            if not self._voting:
                self._vote = _NO_VOTE
                break
            now = await backend.time()
            if self._voting:  # it may have changed meanwhile
                self._vote = MSGPACK.encode(Vote(now + (self._breaker.retry_after or 0.0)))
        return self._vote

    async def _heed(self, snapshot: Members, backend: Backend) -> None:
        """Do what the quorum says."""
        untils = [
            until for data in snapshot.members.values() if (until := _until(data)) is not None
        ]
        self.members, self.votes = len(snapshot.members), len(untils)
        if untils and self.votes >= self._quorum * self.members:
            if max(untils) > self._heeded:
                await self._follow(max(untils), backend)
        elif self.following:
            self.following = False
            self._apply(None)

    async def _follow(self, until: float, backend: Backend) -> None:
        """Open for as long as the others, unless this circuit is open by itself, or forced."""
        seconds = until - await backend.time() + GRACE
        self._heeded = until
        if seconds <= 0 or self._voting or self._breaker.forced is not None:
            return
        self._apply(seconds)
        self.following = True
        if listening():
            emit(CircuitOpenedByFleet(self._breaker.name, seconds, self.votes, self.members))

    def _apply(self, seconds: float | None) -> None:
        """Open the circuit for so long, or close it, without that being a vote."""
        self._applying = True
        try:
            if seconds is None:
                self._breaker.reset()
            else:
                self._breaker.open(seconds)
        finally:
            self._applying = False


def _until(data: bytes) -> float | None:
    """Read a vote; what a newer release may have written is none."""
    try:
        return _vote_of(data).until
    except CodecError:
        return None
