"""The loop of one check: run it again and again, whatever it does.

Active checks that silently stop are the complaint that trackers of gateways know best: a target
stays unhealthy for ever because nobody looks any more. So a loop is built to survive its check::

         due                       start          timeout                        + grace
          |-- waits for a slot, ------|== check runs ==|== cancelled, and goes on ======| closed
          |   for half an interval    |                |                                | where it
          |   at most                 |                |                                | stands

* A check that raises has failed. What is no ``Exception`` ends the loop, which is started again at
  once; only ``SystemExit``, ``KeyboardInterrupt`` and ``GeneratorExit`` end the program.
* A check that is too slow is cancelled. One that shields or swallows that is closed in the end as a
  generator is closed, and the loop started again in a fresh task.
* Slots bound how many checks run at the same time. Who has waited for half of its interval runs
  without one, so hanging checks cannot starve the others.

Guarantees: a check never overlaps itself. While the event loop moves, its beginnings are at most two
intervals apart: 1.1 by jitter, or its timeout and the grace, and half an interval for a slot.

Not guaranteed: anything of a check that refuses even to be closed, by catching ``GeneratorExit`` and
waiting again. Python calls that an error, and so does the checker, loudly.
"""

from __future__ import annotations

from contextvars import copy_context
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, final

from anyio import (
    CancelScope,
    current_effective_deadline,
    get_cancelled_exc_class,
    move_on_after,
)
from anyio import Event as Bell

from aiopatterns.cluster.healthevents import HealthChanged, HealthCheckFailed, HealthLoopRestarted
from aiopatterns.cluster.healthreport import CheckHealth
from aiopatterns.cluster.hysteresis import HealthState, Hysteresis
from aiopatterns.core.clock import call_later, monotonic, rng
from aiopatterns.core.context import Steps, forget_deadline
from aiopatterns.core.errors import ClosedError
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.waiters import cancel_requested, canceller

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from anyio import Semaphore
    from anyio.abc import TaskGroup

    from aiopatterns.cluster.healthcheck import CheckFn, Plan

    class Timer(Protocol):
        """What a timer of the loop can do."""

        def cancel(self) -> None: ...


__all__ = ["GRACE", "GRACE_SECONDS", "JITTER", "PATIENCE", "CheckLoop", "Failure"]

#: Share of the interval by which a beginning is moved, either way, so that fleets do not march.
JITTER: Final = 0.1
#: For how long a check that was cancelled may go on: a share of the interval, and seconds.
GRACE: Final = 0.25
GRACE_SECONDS: Final = 1.0
#: Share of the interval for which a check waits for a slot.
PATIENCE: Final = 0.5


class Failure(NamedTuple):
    """Why a check has failed.

    Attributes:
        reason: In words that hold no secret.
        error: What was raised, if anything.
    """

    reason: str
    error: BaseException | None = None


@final
class CheckLoop:
    """One check: what is known of it, and the task that finds out.

    Args:
        checker: Name of the checker.
        plan: The check.
        told: Called when something is known anew, with the change of state if it is one.
    """

    __slots__ = (
        "_alarm",
        "_bell",
        "_broken",
        "_checked",
        "_checker",
        "_course",
        "_due",
        "_grace",
        "_health",
        "_kill",
        "_latency",
        "_over",
        "_passed",
        "_reason",
        "_restarts",
        "_scope",
        "_started",
        "_steps",
        "_told",
        "_total",
        "_turn",
        "plan",
    )

    _kill: Callable[[], object]  # cancels the task of the loop

    def __init__(
        self, checker: str, plan: Plan, told: Callable[[HealthChanged | None], object]
    ) -> None:
        self.plan: Plan = plan
        self._checker = checker
        self._told = told
        now = monotonic()
        self._course = Hysteresis(plan.thresholds, now)
        self._due = now
        self._bell = Bell()  # rings when a check is wanted sooner
        self._turn = Bell()  # rings when the next check has ended
        self._over = False
        self._scope: CancelScope | None = None  # of the task, which needs a loop
        self._steps: Steps[object] = Steps()
        self._grace = min(GRACE * plan.interval, GRACE_SECONDS)
        self._alarm: Timer | None = None  # when the check that runs now is closed
        self._broken: Failure | None = None  # why the loop has to be started again
        self._started: float | None = None  # when the check that runs now began
        self._checked: float | None = None
        self._latency: float | None = None
        self._reason = ""
        self._passed = False
        self._total = self._restarts = 0
        self._health: CheckHealth | None = None

    # -------------------------------------------------------------------- what the checker calls

    @property
    def running(self) -> bool:
        """Whether the check runs at this moment."""
        return self._started is not None

    def health(self) -> CheckHealth:
        """Return what is known; the same record until something is known anew."""
        if self._health is None:
            course = self._course
            self._health = CheckHealth(
                name=self.plan.name,
                state=course.state,
                since=course.since,
                checked=self._checked,
                latency=self._latency,
                p95=course.p95,
                successes=course.successes,
                failures=course.failures,
                reason=self._reason,
                passed=self._passed,
                total=self._total,
                restarts=self._restarts,
            )
        return self._health

    def suspect(self, error: BaseException | None) -> None:
        """Count a failure that somebody else has seen; if it changes the state, look at once."""
        before = self._course.state
        changed = self._course.suspect(monotonic())
        what = "" if error is None else f": {type(error).__name__}"
        self._note(Failure(f"reported{what}", error))
        if changed:
            self._ring()
        self._tell(before, changed=changed)

    async def look(self) -> CheckHealth:
        """Check now, or join the check that runs; returns what is known then.

        Raises:
            ClosedError: The checker was closed, or the check removed, before it had ended.
        """
        turn = self._turn
        self._ring()
        await turn.wait()
        if self._over:
            msg = f"check {self.plan.name!r} of {self._checker!r} was ended before it had a result"
            raise ClosedError(msg)
        return self.health()

    def end(self) -> None:
        """Stop; those who wait for a result are told."""
        self._over = True
        if self._scope is not None:
            self._scope.cancel()
        self._turn.set()
        self.hurry()

    def hurry(self) -> None:
        """The check, if it runs, is cancelled now, so its grace begins now."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = call_later(self._grace, self._close)

    async def tend(self, tasks: TaskGroup, slots: Semaphore) -> None:
        """Check again and again in this task; go on in a fresh one if this had to end.

        Args:
            tasks: Where the fresh one is started.
            slots: Bound how many checks run at the same time.
        """
        if self._over:
            return
        forget_deadline()
        try:
            with CancelScope() as self._scope:
                await self._loop(slots)
        except BaseException as error:
            if _is_final(error):
                raise
            if not _leaving():
                stuck = "did not end when it was cancelled"
                self._broken = Failure(stuck if self._steps.closing else _raised(error), error)
                tasks.start_soon(self.tend, tasks, slots)

    # ------------------------------------------------------------------------------ private core

    async def _loop(self, slots: Semaphore) -> None:
        """Check whenever it is due; ends by an error or a cancellation."""
        self._steps = Steps()
        self._kill = canceller()
        if self._broken is not None:
            self._recover(self._broken)
        while True:
            with move_on_after(self._due - monotonic()):
                await self._bell.wait()
            claimed = await self._claim(slots)
            try:
                await self._check()
            finally:
                if claimed:
                    slots.release()

    async def _claim(self, slots: Semaphore) -> bool:
        """Wait for a slot, but not for long; returns whether there is one to give back."""
        with move_on_after(PATIENCE * self.plan.interval):
            await slots.acquire()
            return True
        return False

    async def _check(self) -> None:
        """Run the check once, and take in what came of it."""
        plan = self.plan
        self._bell = Bell()
        self._started = monotonic()
        self._due = self._started + plan.interval * rng().uniform(1 - JITTER, 1 + JITTER)
        self._alarm = call_later(plan.timeout + self._grace, self._close)
        failure: Failure | None = None
        try:
            with move_on_after(plan.timeout) as scope:
                failure = await self._ask()
        finally:
            self._alarm.cancel()
            self._alarm = None
        if scope.cancel_called:
            failure = Failure(f"took longer than its timeout of {plan.timeout:g} s")
        if not _leaving():  # else it was cancelled, and counts for nothing
            self._conclude(failure, monotonic() - self._started)

    async def _ask(self) -> Failure | None:
        """Run the function; returns why it failed, or None."""
        steps, variables = self._steps, copy_context()
        try:
            awaited = variables.run(steps.send, _call(self.plan.fn))
            if awaited is not steps:
                await steps.rest(variables, awaited)
        except Exception as error:
            if steps.closing:  # it has refused even that: its task is not fit for another
                raise
            return Failure(_raised(error), error)
        except get_cancelled_exc_class() as error:
            if cancel_requested():
                raise
            return Failure("cancelled itself", error)
        answer, steps.result = steps.result, None
        return Failure("returned False") if answer is False else None

    def _close(self) -> None:
        """Its time is over and it goes on: close the function where it stands."""
        self._steps.closing = True
        self._kill()

    def _recover(self, failure: Failure) -> None:
        """The loop has ended and should not have: say so; a check that was running has failed."""
        self._broken = None
        self._restarts += 1
        if listening():
            emit(HealthLoopRestarted(self._checker, self.plan.name, failure.reason))
        if self._started is not None:
            self._conclude(failure, monotonic() - self._started)

    def _conclude(self, failure: Failure | None, seconds: float) -> None:
        """Take in the result of a check."""
        course, down_after = self._course, self.plan.thresholds.down_after
        if failure is None and seconds > down_after:
            failure = Failure(f"took {seconds:.3g} s, more than down_after={down_after:g}")
        now, before = monotonic(), course.state
        changed = course.succeed(seconds, now) if failure is None else course.fail(now)
        self._started = None
        self._checked, self._latency = now, seconds
        self._total += 1
        if failure is None:
            self._passed = True
            if self.plan.rests and course.state is not HealthState.UNHEALTHY:
                self._due = inf  # it has answered its question; a reported failure asks again
        self._note(failure)
        turn, self._turn = self._turn, Bell()
        turn.set()
        self._tell(before, changed=changed)

    def _note(self, failure: Failure | None) -> None:
        """Remember why it failed, and say so."""
        self._reason = "" if failure is None else failure.reason
        if failure is not None and listening():
            emit(HealthCheckFailed(self._checker, self.plan.name, failure.reason, failure.error))

    def _tell(self, before: HealthState, *, changed: bool) -> None:
        """Something is known anew: tell the checker."""
        self._health = None
        after, change = self._course.state, None
        if changed:
            change = HealthChanged(self._checker, self.plan.name, before, after, self._reason)
        self._told(change)

    def _ring(self) -> None:
        """Have a check begin now, unless one runs."""
        if self._started is None:
            self._bell.set()


async def _call(fn: CheckFn) -> object:
    return await fn()


def _raised(error: BaseException) -> str:
    return f"raised {type(error).__name__}"


def _leaving() -> bool:
    """Whether the checker closes, or the check was removed."""
    return current_effective_deadline() == -inf


def _is_final(error: BaseException) -> bool:
    """Whether a loop that got this must end: its checker, or the whole program, does."""
    if isinstance(error, get_cancelled_exc_class()):
        return _leaving()
    return isinstance(error, (GeneratorExit, KeyboardInterrupt, SystemExit))
