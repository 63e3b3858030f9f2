"""How a node finds the others, and finds them again.

::

    alone          ask all seeds at once; nobody there: again after 0.5 s, 1 s, 2 s ... 30 s
    in company     every `sync` seconds: exchange the state with one member by chance, and with
                   one seed that is not among the living (so two networks with one seed become one)
    somebody who was dead has spoken: exchange the state with it at once

The exchange mends what gossip has missed: it is how a newcomer learns all, how what was broadcast
during a partition arrives, and why no loss of packets can leave two views apart for long.
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING, Final, final

from anyio import Event, create_task_group, move_on_after

from aiopatterns.cluster.peerevents import PeerJoined, PeerJoinFailed
from aiopatterns.core.clock import rng
from aiopatterns.core.errors import CodecError, RejectedError, SecretMismatchError
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.resilience.backoff import Exponential

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiopatterns.cluster.session import Session

__all__ = ["Joining"]

#: Between two tries to join, while nobody answers.
_RETRY: Final = Exponential(0.5, 2.0, 30.0, "equal")
#: Above so many members the state is exchanged less often (memberlist's ``pushPullScale``).
_MANY: Final = 32


@final
class Joining:
    """The ways of one run of a node to the others.

    Args:
        session: The run.
        seeds: Addresses to ask.
        interval: Seconds from one exchange of the state to the next.
    """

    __slots__ = ("_interval", "_joined", "_lonely", "_seeds", "_session")

    def __init__(self, session: Session, seeds: Iterable[str], *, interval: float) -> None:
        self._session = session
        self._seeds = dict.fromkeys(seeds, "")  # with the name of who answered there
        self._interval = interval
        self._joined = False  # somebody has ever answered
        self._lonely = False  # that nobody answers has been told

    async def first(self) -> None:
        """Ask the seeds for the first time.

        Raises:
            SecretMismatchError: Those that are there have another secret.
            RejectedError: They are of another cluster, or know another living node of this name.
        """
        error = await self._join()
        if isinstance(error, (RejectedError, SecretMismatchError)):
            raise error

    async def run(self) -> None:
        """Stay in touch; ends by cancellation."""
        tries = 0
        while True:
            with move_on_after(self._pause(tries)):
                await self._session.bell.wait()
            self._session.bell = Event()
            self._session.tidy()
            if not self._alone:
                tries = 0
                self._found("")
                await self._refresh()
            elif self._seeds:
                tries += 1
                await self._join()

    @property
    def _alone(self) -> bool:
        return self._session.members.living == 1

    def _pause(self, tries: int) -> float:
        if self._alone and self._seeds:
            return _RETRY.delay(tries + 1, rng=rng())
        # Twice as long for each doubling above: the work of each exchange doubles as well.
        scale = max(log2(self._session.members.living / _MANY), 0.0) + 1
        return self._interval * scale * rng().uniform(0.9, 1.1)

    async def _refresh(self) -> None:
        """Exchange the state with who is back, or else with somebody and a seed that is missed."""
        returned, self._session.returned = self._session.returned, {}
        members = self._session.members
        names = returned or members.ring.sample(1)
        addresses = [members.members[name].address for name in names if name in members.members]
        missed = [seed for seed, name in self._seeds.items() if not self._lives(name)]
        if missed and not returned:
            addresses.append(rng().choice(missed))
        for address in addresses:
            await self._ask(address)

    def _lives(self, name: str) -> bool:
        member = self._session.members.members.get(name)
        return member is not None and member.living

    async def _join(self) -> Exception | None:
        """Ask all seeds at once; returns what was wrong with the one that came furthest."""
        errors: list[Exception] = []
        found: list[str] = []
        async with create_task_group() as group:
            for seed in self._seeds:
                group.start_soon(self._try, seed, found, errors, group.cancel_scope.cancel)
        if found or not errors:
            return None
        mistakes = (RejectedError, SecretMismatchError)
        error = next((each for each in errors if isinstance(each, mistakes)), errors[-1])
        if not self._lonely:
            self._lonely = True
            if listening():
                emit(PeerJoinFailed(self._session.members.me.name, str(error)))
        return error

    async def _try(
        self,
        seed: str,
        found: list[str],
        errors: list[Exception],
        enough: Callable[[], object],
    ) -> None:
        error = await self._ask(seed)
        if error is not None:
            errors.append(error)
        elif self._seeds[seed] != self._session.members.me.name:
            found.append(seed)
            enough()

    async def _ask(self, address: str) -> Exception | None:
        """Exchange the state with whoever is at an address; returns what went wrong."""
        try:
            name = await self._session.sync(address, joining=self._alone and not self._joined)
        except (OSError, CodecError, RejectedError) as error:
            return error
        if address in self._seeds:
            self._seeds[address] = name
        if name != self._session.members.me.name:
            self._found(address)
        return None

    def _found(self, seed: str) -> None:
        """This node is in company; said once, and once more after each time that it was lonely."""
        if self._joined and not self._lonely:
            return
        self._joined, self._lonely = True, False
        members = self._session.members
        if listening():
            emit(PeerJoined(members.me.name, seed, members.living))
