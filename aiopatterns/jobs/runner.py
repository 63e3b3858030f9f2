"""One runner: a long-lived task that makes one attempt after the other.

A task, a cancel scope and a timer for each job would cost more than most of the rest. So a runner
is one task with one scope, replaced after it has fired, and steps each function inside the context
variables of its attempt. A function that never suspends costs no switch of tasks at all; once one
suspends, others go on with what is ready.

To cancel a function its runner's scope is cancelled. What the function then does last is what
counts. One that will not end is *abandoned* when the worker's time is over: the runner closes it
where it stands and leaves.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final, final

from anyio import CancelScope, current_effective_deadline, get_cancelled_exc_class

from aiopatterns.core.clock import monotonic, yield_now
from aiopatterns.core.context import Steps
from aiopatterns.core.waiters import cancel_count, cancel_requested, canceller

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.jobs.attempt import Attempt
    from aiopatterns.jobs.crew import Crew

__all__ = ["Runner"]

# Seconds and attempts after which a runner gives the loop a turn, should none of them suspend.
_TURN_SECONDS: Final = 0.005
_TURN: Final = 64


@final
class Runner:
    """One task of a worker.

    Args:
        crew: The others, and what is ready.
    """

    __slots__ = ("_abandoned", "_cancel", "_crew", "_halted", "_scope", "_steps", "attempt")

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._scope = CancelScope()
        self._steps: Steps[Any] = Steps()
        self._halted = False
        self._abandoned = False
        self._cancel: Callable[[], object] | None = None
        self.attempt: Attempt | None = None

    async def work(self) -> None:
        """Live: make attempts until the worker ends."""
        self._cancel = canceller()
        self._crew.arrived()
        try:
            while True:
                await self._work_in_scope()
        except get_cancelled_exc_class():
            # Cancelled alone, as a function can do to its task: this one ends, others go on.
            if current_effective_deadline() == -inf and not self._abandoned:
                raise
        finally:
            self._crew.farewell(self)

    def halt(self) -> None:
        """Cancel the function that runs."""
        self._halted = True
        self._scope.cancel()

    def abandon(self) -> None:
        """Close the function where it stands, whatever it shields or swallows."""
        self._abandoned = self._halted = self._steps.closing = True
        if self._cancel is not None:
            self._cancel()

    async def _work_in_scope(self) -> None:
        """Make attempts until one was cancelled; settle that one."""
        self._halted = False
        try:
            with CancelScope() as self._scope:
                await self._serve()
        except get_cancelled_exc_class():
            if cancel_requested():
                raise
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            self._crew.interrupted(attempt)

    async def _serve(self) -> None:
        """Make one attempt after the other."""
        crew, steps, cancelling = self._crew, self._steps, cancel_count()
        until, left = monotonic() + _TURN_SECONDS, _TURN
        while not self._halted:
            attempt = crew.take()
            if attempt is None:
                await self._sit_down()
                until, left = monotonic() + _TURN_SECONDS, _TURN
                continue
            self.attempt = attempt
            try:
                work = attempt.begin(self.halt, crew.alarms)
                awaited = attempt.variables.run(steps.send, work)
                if awaited is not steps:
                    crew.call_more()
                    await steps.rest(attempt.variables, awaited)
                    until, left = monotonic() + _TURN_SECONDS, _TURN
            except Exception as error:
                self.attempt = None
                crew.raised(attempt, error)
            else:
                self.attempt = None
                value, steps.result = steps.result, None
                crew.returned(attempt, value)
            left -= 1
            if not left or monotonic() >= until or cancelling():
                await yield_now()
                until, left = monotonic() + _TURN_SECONDS, _TURN

    async def _sit_down(self) -> None:
        """Wait to be called."""
        crew = self._crew
        seat = crew.home.future()
        crew.idle.append(seat)
        try:
            await seat
        except BaseException:
            if seat.cancelled():
                with suppress(ValueError):  # it may have been taken out to be called
                    crew.idle.remove(seat)
                raise
            crew.arrived()
            raise
        crew.arrived()
