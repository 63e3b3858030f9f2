"""What all conformance suites stand on: time in units, names that are new, a worker by hand.

A suite is a class whose methods are the tests. Each method holds one sentence of the docstrings
in :mod:`aiopatterns.backends.protocols` or :mod:`aiopatterns.backends.queue`, which it quotes,
and takes nothing but an open backend. Tests know no implementation, and need no pytest.

**Time.** A life that ends by itself has to be waited for. Under the simulated loop that costs
nothing; a server's time is real. So tests count in :attr:`Conformance.unit`, 50 ms unless a
subclass says otherwise, and wait by :meth:`Conformance.pause` alone::

      0         1         2         3         4  units
      |---------|---------|---------|---------|
      set with a life of 1                            gone? asked at 2, never at 1.01
      set with a life of 3          there? asked at 1, never at 2.99

A machine that stalls in between would fail a right backend: a test marked :func:`timely` is
repeated, with new names, if it failed *and* more than a unit passed that nobody waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, final

from aiopatterns.backends.queue import MAX_BATCH, Settled, Turn
from aiopatterns.core.clock import monotonic, sleep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.backends.queue import ClaimedJob, How, Queue, Turned

__all__ = ["Conformance", "Hand", "refusal", "timely"]

#: Seconds that nothing takes, unless it hangs.
PATIENCE: Final = 10.0
#: How often a test is repeated because the machine stalled.
ROUNDS: Final = 5
#: Turns in a row that may say "more" without giving out a thing.
MAX_IDLE_TURNS: Final = 20

S = TypeVar("S", bound="Conformance")
Test: TypeAlias = Callable[[S, "Backend"], Coroutine[Any, Any, None]]


class Conformance:
    """Base of the suites.

    A subclass in a test module, named ``Test...``, brings a fixture ``backend`` that gives an
    open backend without anything in it, entered once. It may change :attr:`unit` if its server is
    slow or far away, and :meth:`pause` if its time is not that of
    :func:`aiopatterns.core.clock.sleep`.
    """

    #: Seconds that stand for "a short time": lives in the tests are some of these.
    unit: float = 0.05
    #: Which repetition of a timely test this is; part of every name.
    rerun: int = 0
    #: Seconds that this test has waited on purpose.
    paused: float = 0.0

    async def pause(self, units: float) -> None:
        """Let so many units pass, for the backend as well as for the test."""
        self.paused += units * self.unit
        await sleep(units * self.unit)

    def life(self, units: float) -> float:
        """Return so many units in seconds."""
        return units * self.unit

    def name(self, name: str) -> str:
        """Return ``name``, as it is called in this repetition."""
        return f"{name}-{self.rerun}" if self.rerun else name


def timely(test: Test[S]) -> Test[S]:
    """Repeat ``test`` if it failed after the machine has stalled for a unit or more."""

    @wraps(test)
    async def repeated(self: S, backend: Backend) -> None:
        done = False
        while not done:
            self.paused, began = 0.0, monotonic()
            try:
                await test(self, backend)
                done = True
            except AssertionError:
                self.rerun += 1
                if monotonic() - began - self.paused < self.unit or self.rerun == ROUNDS:
                    raise

    return repeated


async def refusal(
    call: Coroutine[Any, Any, object], kinds: tuple[type[Exception], ...], word: str = ""
) -> None:
    """Assert that ``call`` raises one of ``kinds`` and says ``word``."""
    try:
        answer = await call
    except kinds as error:
        assert word in str(error), f"the error does not name {word!r}: {error}"
    else:
        name = getattr(call, "__qualname__", call)
        raise AssertionError(f"{name} answered {answer!r} instead of refusing")


@final
class Hand:
    """A worker without anything in it: the test says every turn.

    Args:
        queue: What it works on.
        worker: Its id.
        lease: Seconds, by default so many that it never ends in a test.
    """

    __slots__ = ("lease", "number", "queue", "worker")

    def __init__(self, queue: Queue, worker: str, *, lease: float = 600.0) -> None:
        self.queue: Queue = queue
        self.worker: str = worker
        self.lease: float = lease
        self.number: int = 0

    async def turn(
        self,
        settled: Sequence[Settled] = (),
        *,
        free: int = 0,
        progress: Mapping[str, float] | None = None,
        leave: bool = False,
    ) -> Turned:
        """Take the next turn."""
        self.number += 1
        return await self.again(settled, free=free, progress=progress, leave=leave)

    async def again(
        self,
        settled: Sequence[Settled] = (),
        *,
        free: int = 0,
        progress: Mapping[str, float] | None = None,
        leave: bool = False,
    ) -> Turned:
        """Send a turn under the number of the last one."""
        turn = Turn(self.worker, self.number, self.lease, settled, free, progress, leave)
        return await self.queue.step(turn)

    async def take(self, number: int = 1) -> list[ClaimedJob]:
        """Claim up to ``number`` jobs, asking again while the queue says that there is more."""
        claimed: list[ClaimedJob] = []
        idle = 0
        while len(claimed) < number and idle < MAX_IDLE_TURNS:
            turned = await self.turn(free=min(number - len(claimed), MAX_BATCH))
            claimed += turned.claimed
            if not turned.more:
                break
            idle = 0 if turned.claimed else idle + 1
        return claimed

    async def take_ids(self, number: int = 1) -> list[str]:
        """Claim up to ``number`` jobs; return their ids."""
        return [job.id for job in await self.take(number)]

    async def settle(self, how: How, *ids: str, data: bytes = b"", delay: float = 0.0) -> Turned:
        """Settle ``ids`` alike, without claiming."""
        return await self.turn([Settled(each, how, data, delay) for each in ids])

    async def work_off(self, number: int = 1) -> list[str]:
        """Claim and finish jobs, up to ``number`` at a time, until there is none; return the ids."""
        finished: list[str] = []
        while claimed := await self.take_ids(number):
            await self.settle("done", *claimed)
            finished += claimed
        return finished
