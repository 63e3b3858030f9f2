"""The crew: what is ready to run, and the runners who run it.

::

    admitted --> ready --> runner --> returned, raised, interrupted --> settled in the next step
        |          ^
        |          '--- a batch that is full, or whose time has come
        '--> alone: a suspect waits until nothing else runs

Runners are called one at a time, since one runs all that is ready if nothing of it suspends; each
function that does suspend calls more of them. So a hundred jobs that do nothing wake one task, and
a hundred jobs that wait have a hundred running within a few turns of the loop.
"""

from __future__ import annotations

from collections import deque
from contextvars import copy_context
from math import inf
from typing import TYPE_CHECKING, Any, Final, final

from anyio import current_effective_deadline

from aiopatterns.core.clock import Alarms, Home
from aiopatterns.core.context import forget_deadline
from aiopatterns.core.errors import CodecError
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.jobs.attempt import Attempt
from aiopatterns.jobs.batcher import Batcher
from aiopatterns.jobs.hold import Cut
from aiopatterns.jobs.runner import Runner
from aiopatterns.jobs.verdict import dead
from aiopatterns.jobs.workerevents import JobDead

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from aiopatterns.core.clock import Parked
    from aiopatterns.jobs.envelope import Envelope
    from aiopatterns.jobs.hold import Hold
    from aiopatterns.jobs.job import Job
    from aiopatterns.jobs.options import Batching
    from aiopatterns.jobs.shop import Shop
    from aiopatterns.jobs.slots import Slots

__all__ = ["PARKED", "Crew"]

#: Seconds for which a job that nobody knows here is put back.
PARKED: Final = 5.0
# Runners that are called when a function suspends: all are up in log2(concurrency) turns.
_GROWTH: Final = 2


@final
class Crew:
    """The runners of one opening of a worker.

    Args:
        tasks: Where they live.
        slots: The places of the worker; there are as many runners at most.
        left: Called with the number of jobs whenever some have ended.
    """

    __slots__ = (
        "_alarms",
        "_alone",
        "_batchers",
        "_called",
        "_left",
        "_ready",
        "_slots",
        "_tasks",
        "_variables",
        "home",
        "idle",
        "runners",
    )

    def __init__(self, tasks: TaskGroup, slots: Slots, left: Callable[[int], object]) -> None:
        self._tasks = tasks
        self._slots = slots
        self._left = left
        self._variables = copy_context()  # of the worker: each attempt gets a copy
        self._variables.run(forget_deadline)
        self._alarms: dict[float, Alarms] = {}
        self._batchers: dict[tuple[Shop, str], Batcher] = {}
        self._ready: deque[Hold | Attempt] = deque()
        self._alone: deque[Hold] = deque()
        self._called = 0  # woken or started, and not at work yet
        self.home: Home = Home()
        self.idle: list[Parked] = []
        self.runners: dict[Runner, None] = {}

    # ---------------------------------------------------------------------- what comes and goes

    def admit(self, hold: Hold) -> None:
        """Take in a job that was claimed."""
        if hold.alone:
            self._alone.append(hold)
            self._admit_alone()
            return
        self._ready.append(hold)
        self._call_one()

    def take(self) -> Attempt | None:
        """Return the next attempt to be made; None if nothing is ready."""
        while self._ready:
            found = self._ready.popleft()
            attempt = found if isinstance(found, Attempt) else self._prepared(found)
            if attempt is None:
                continue
            for hold in attempt.sift():
                self._refuse(hold)
            if attempt.calls:
                return attempt
        return None

    def returned(self, attempt: Attempt, value: object) -> None:
        """The function has returned."""
        attempt.returned(value)
        self._leave(attempt)

    def raised(self, attempt: Attempt, error: Exception) -> None:
        """The function has raised; of a batch that cannot be read, the others are not to blame."""
        if isinstance(error, CodecError) and (calls := attempt.split()):
            self._ready.extend(self._attempt(attempt.shop, attempt.job, [call]) for call in calls)
            return
        if attempt.cut is None and current_effective_deadline() == -inf:
            attempt.cut = Cut.LEAVE  # what it made of the end of the worker is no failure
        attempt.raised(error)
        self._leave(attempt)

    def interrupted(self, attempt: Attempt) -> None:
        """The function has let a cancellation through."""
        attempt.interrupted()
        self._leave(attempt)

    def flush(self) -> None:
        """Wait for no further job of any batch."""
        for each in self._batchers.values():
            each.flush()

    # ------------------------------------------------------------------------- what runners call

    def alarms(self, seconds: float) -> Alarms:
        """Return the timer that attempts with this timeout share."""
        found = self._alarms.get(seconds)
        if found is None:
            found = self._alarms[seconds] = Alarms(seconds)
        return found

    def call_more(self) -> None:
        """A function has suspended: others may go on with what is ready."""
        while self._called < min(_GROWTH, len(self._ready)):
            if not self._call():
                return

    def arrived(self) -> None:
        """A runner that was called is at work."""
        self._called -= 1

    def farewell(self, runner: Runner) -> None:
        """A runner has ended, however that came about; its job does not end with it."""
        del self.runners[runner]
        attempt, runner.attempt = runner.attempt, None
        if attempt is not None:
            if attempt.cut is None and current_effective_deadline() == -inf:
                attempt.cut = Cut.LEAVE
            self.interrupted(attempt)
        if self._ready:
            self._call_one()

    def abandon(self) -> None:
        """Close what still runs, whether it lets itself be cancelled or not."""
        for each in [*self.runners]:
            each.abandon()

    # ------------------------------------------------------------------------------ private core

    def _call_one(self) -> None:
        """Something is ready: call a runner, unless one is on its way."""
        if not self._called:
            self._call()

    def _call(self) -> bool:
        """Wake a runner, or start one; False if there are as many as may be."""
        while self.idle:
            seat = self.idle.pop()
            if not seat.done():  # else its runner is cancelled in this very turn
                seat.set_result(None)
                self._called += 1
                return True
        if len(self.runners) >= self._slots.limit or self._tasks.cancel_scope.cancel_called:
            return False
        runner = Runner(self)
        self.runners[runner] = None
        self._called += 1
        self._tasks.start_soon(runner.work)
        return True

    def _leave(self, attempt: Attempt) -> None:
        """The jobs of an attempt have run, and give their places up."""
        self._vacate(len(attempt.calls))
        self._left(len(attempt.calls))

    def _vacate(self, places: int) -> None:
        """Give places up; a suspect may run now."""
        for _ in range(places):
            self._slots.leave()
        if self._alone:
            self._admit_alone()

    def _admit_alone(self) -> None:
        """Let a suspect run, if nothing else does."""
        if self._slots.used == len(self._alone):
            self._ready.append(self._alone.popleft())
            self._call_one()

    def _prepared(self, hold: Hold) -> Attempt | None:
        """Read a job; None if it does not run now, and then it is seen to."""
        if hold.cut is not None:
            self._refuse(hold)
            return None
        shop = hold.turns.shop
        try:
            envelope = shop.envelopes.decode(hold.body)
        except CodecError as error:
            self._poisoned(hold, error)
            return None
        job = shop.jobs.get(envelope.name)
        if job is None:
            hold.turns.settle(hold, "retry", delay=PARKED, counted=False)
            self._vacate(1)
            return None
        if job.batching is not None and not hold.alone:
            self._batcher(shop, job, job.batching).add(hold, envelope)
            return None
        return self._attempt(shop, job, [(hold, envelope)])

    def _attempt(
        self, shop: Shop, job: Job[..., Any], calls: list[tuple[Hold, Envelope]]
    ) -> Attempt:
        return Attempt(shop, job, calls, self._variables.copy())

    def _refuse(self, hold: Hold) -> None:
        """A job was cut off before it ran."""
        if hold.cut is Cut.CANCEL:
            hold.turns.settle(hold, "cancelled")
            hold.turns.shop.ledger.cancelled += 1
        self._vacate(1)

    def _batcher(self, shop: Shop, job: Job[..., Any], batching: Batching) -> Batcher:
        """Return where the jobs of this name come together."""
        found = self._batchers.get((shop, job.name))
        if found is None:

            def full(calls: list[tuple[Hold, Envelope]]) -> None:
                self._ready.append(self._attempt(shop, job, calls))
                self._call_one()

            size = min(batching.size, self._slots.limit)
            found = Batcher(size, batching.within, full)
            self._batchers[shop, job.name] = found
        return found

    def _poisoned(self, hold: Hold, error: CodecError) -> None:
        """Nobody can read a job: it is dead, and its bytes are kept to be looked at."""
        shop = hold.turns.shop
        hold.turns.settle(hold, "dead", dead(shop.envelopes, error).data)
        shop.ledger.failed += 1
        if listening():
            emit(JobDead(shop.name, "", hold.id, hold.attempt, None, error))
        self._vacate(1)
