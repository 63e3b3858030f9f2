"""The state machine of a circuit breaker, without any waiting.

::

                    a threshold is reached
          .-------------------------------------> OPEN  <-------------.
       CLOSED                                      |  now >= opened    |  verdict "open", or
          ^                                        |      + break,     |  no verdict in time
          |                                        v  and a call comes |
          '------------ verdict "closed" ------ HALF_OPEN -------------'

Each state is a *generation*. A call is admitted with the number of the generation it began in, and
its result counts only if that is still the one: a call that began before the circuit opened can
neither close nor keep open what came after it.

Time moves nothing by itself. That a break is over is seen by the next call, and that probes took
too long by the next look of anybody; what follows is as if it had been seen at that very moment.

Guarantees:

* Every admission ends exactly once; ``in_flight`` is the number of those that have not ended,
  whatever became of their generation.
* Events are emitted last, when the state is consistent, so a listener may use the circuit.
* Forcing a mode, and setting the circuit free, begins a new generation, closed and empty: what was
  counted under one rule says nothing under another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, final

from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import CircuitIsolatedError, CircuitOpenError
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.windows import Totals
from aiopatterns.resilience.breaktime import BreakInfo, break_length, told
from aiopatterns.resilience.circuitevents import (
    CircuitClosed,
    CircuitForced,
    CircuitHalfOpened,
    CircuitLateResult,
    CircuitOpened,
    CircuitRejected,
    CircuitStuck,
    CircuitThresholdExceeded,
)
from aiopatterns.resilience.circuitstate import CircuitState, CircuitStatistics
from aiopatterns.resilience.halfopen import Probes
from aiopatterns.resilience.trip import Tally
from aiopatterns.resilience.watchers import Watchers

if TYPE_CHECKING:
    from aiopatterns.resilience.breaktime import OpenFor
    from aiopatterns.resilience.circuitevents import ForcedMode
    from aiopatterns.resilience.halfopen import HalfOpen
    from aiopatterns.resilience.judge import Outcome
    from aiopatterns.resilience.trip import Trip

__all__ = ["Circuit", "Settings"]

_NOTHING: Final = Totals(0, 0, 0, 0.0)
# After so many calls the next one is measured, if no rule asks how long a call took.
_STRIDE: Final = 63
_CLOSED, _OPEN, _HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """What a circuit is told: see ``CircuitBreaker`` for the meaning of the fields."""

    name: str
    trip: Trip
    open_for: OpenFor
    half_open: HalfOpen

    def counts_like(self, other: Settings) -> bool:
        """Whether what was counted under these rules means the same under ``other``."""
        return self.name == other.name and self.trip.window == other.trip.window


@final
class Circuit:
    """The state of one circuit; see the module's text.

    Args:
        settings: The rules.

    The hot path, in ``CircuitBreaker.wrap``, does two things by hand. It admits a call that is not
    to be measured by counting down ``spare``, if that is above 0; any other through :meth:`enter`.
    And a success that was not measured, and cannot open the circuit or drop another call for its
    age, only counts up ``good``: one of the generation ``ageless``, or ``aging`` if it ends at
    ``since <= now < until``. Other ends go through :meth:`succeed`, :meth:`settle` or
    :meth:`release`.
    """

    __slots__ = (
        "_booked",
        "_break",
        "_cause",
        "_ends",
        "_exceeded",
        "_held",
        "_measured",
        "_opened",
        "_openings",
        "_probes",
        "_quick",
        "_rejected",
        "_settings",
        "_slow_after",
        "_spent",
        "_state",
        "_stride",
        "_tally",
        "_totals",
        "_why",
        "admits",
        "ageless",
        "aging",
        "ended",
        "forced",
        "generation",
        "good",
        "since",
        "spare",
        "until",
        "watchers",
    )

    admits: int
    aging: int
    ageless: int

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tally = Tally(settings.trip)
        self._stride, self._slow_after = _stride(settings.trip), settings.trip.slow_after
        # What a good and a failed call takes that is not measured.
        self._spent, self._held = 0.0, [0.0, 0.0]
        self.since: float = 0.0
        self.until: float = 0.0
        self.forced: ForcedMode | None = None
        self.generation: int = 0
        self._booked = self._measured = 0
        self.spare: int = 0
        self.ended: int = 0
        self.good: int = 0
        self.watchers: Watchers[[]] = Watchers(f"circuit {settings.name!r}")
        self._close()

    @property
    def settings(self) -> Settings:
        """The rules."""
        return self._settings

    def adopt(self, settings: Settings) -> None:
        """Go on under other rules, whose window is the same.

        Thresholds hold from the next call on, the length of breaks and the rules of probes from
        the next break or round on.
        """
        self._settings = settings
        self._flush()
        self._tally.adopt(settings.trip)
        self._stride, self._slow_after = _stride(settings.trip), settings.trip.slow_after

    # -- looking -------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Calls that were admitted and have not ended."""
        return self._booked - self.spare - self.ended - self.good

    def state(self) -> CircuitState:
        """Return what the circuit would do with a call now."""
        now = monotonic()
        self._look(now)
        if self.forced == "isolated":
            return _OPEN
        over = self._state is _OPEN and not self._opened <= now < self._ends
        return _HALF_OPEN if over else self._state

    def retry_after(self) -> float | None:
        """Return the seconds until a call may be let through, 0 for now, None if unknown."""
        now = monotonic()
        self._look(now)
        return self._wait(now)

    def statistics(self) -> CircuitStatistics:
        """Return the state and its counts."""
        state = self.state()
        totals, telling = self._seen(state)
        return CircuitStatistics(
            state=state,
            calls=totals.calls,
            failures=totals.failures,
            successes=totals.successes,
            slow=totals.slow,
            rejected=self._rejected,
            in_flight=self.in_flight,
            failure_ratio=totals.failure_ratio if telling else None,
            slow_ratio=totals.slow_ratio if telling else None,
            mean_elapsed=totals.mean_elapsed,
        )

    # -- admitting -----------------------------------------------------------------------------

    def enter(self, now: float) -> int:
        """Admit a call and return its generation, or refuse it.

        Raises:
            CircuitOpenError: The circuit is open, or half-open with all its probes out.
            CircuitIsolatedError: It is isolated.
        """
        if self.admits:
            self._booked += 1
            return self.admits
        if self._probes is not None:
            self._look(now)
        begins = self._state is _OPEN and not self._opened <= now < self._ends
        if begins:
            self._half_open(now)
        if self._probes is not None and self._probes.free:
            self._probes.claim(now)
        elif not self.admits:
            self._refuse(now)
        self._booked += 1
        generation = self.generation
        if begins and listening():
            emit(CircuitHalfOpened(self._settings.name))
        return generation

    # -- recording -----------------------------------------------------------------------------

    def succeed(self, generation: int, started: float | None) -> None:
        """End an admission: the call has succeeded; without ``started`` it was not measured."""
        now = monotonic()
        if started is None or generation != self._quick or not self.since <= now < self.until:
            self.settle(generation, "success", None if started is None else now - started)
            return
        elapsed = now - started
        if elapsed > self._slow_after:
            self.settle(generation, "success", elapsed)
            return
        self._spent += elapsed
        self._measured += 1
        self.good += 1
        if self._stride:
            self._spare(self._stride)

    def settle(
        self,
        generation: int,
        outcome: Outcome,
        elapsed: float | None,
        error: Exception | None = None,
    ) -> None:
        """End an admission: the call had this outcome, and took ``elapsed`` if it was measured."""
        if outcome == "ignore":
            self.release(generation)
            return
        self.ended += 1
        failed = outcome == "failure"
        if generation != self.generation:
            if listening():
                emit(CircuitLateResult(self._settings.name, outcome))
        elif self._probes is not None:
            self._probed(elapsed, error, failed=failed)
        elif self.forced != "disabled":
            self._count(elapsed, error, failed=failed)

    def release(self, generation: int) -> None:
        """End an admission: the call says nothing about the other side."""
        self.ended += 1
        if generation == self.generation and self._probes is not None:
            self._probes.give_back()

    # -- forcing -------------------------------------------------------------------------------

    def open(self, seconds: float | None) -> None:
        """Open now; without effect while a mode is forced."""
        if self.forced is None:
            now = monotonic()
            self._look(now)
            self._open(now, seconds, None)

    def reset(self) -> None:
        """Close, and forget what was counted; a forced mode stays."""
        was = self._state
        self._close()
        if was is not _CLOSED:
            if listening():
                emit(CircuitClosed(self._settings.name))
            self.watchers.call()

    def force(self, mode: ForcedMode | None) -> None:
        """Go over to ``mode``, or set the circuit free; nothing happens if it is so already."""
        if mode != self.forced:
            self.forced = mode
            self._close()
            if listening():
                emit(CircuitForced(self._settings.name, mode))
            self.watchers.call()

    # -- counting ------------------------------------------------------------------------------

    def _count(self, elapsed: float | None, error: Exception | None, *, failed: bool) -> None:
        """Count a call of a closed circuit; open if that reaches a threshold."""
        now = monotonic()
        self._flush()
        if elapsed is None:
            elapsed = self._held[failed]
        else:
            self._held[failed] = elapsed
            self._spare(0 if failed else self._stride)
        if self._tally.record(elapsed, failed=failed, at=now):
            self._trip(now, error)
            return
        self._exceeded = False
        if self.forced is None and self._tally.calm:
            window = self._tally.window
            self.since, self.until = window.opened, window.until
            self._quick = quick = self.generation
            self.aging, self.ageless = (quick, 0) if self.until < math.inf else (0, quick)

    def _flush(self) -> None:
        """Take the calls that were counted by hand into the window; look at the next one."""
        self._quick = self.aging = self.ageless = 0
        self._spare(0)
        if self._measured:
            self._held[False] = self._spent / self._measured
            self._spent, self._measured = 0.0, 0
        if self.good:
            self._tally.window.add(self.good, self._held[False])
            self.ended += self.good
            self.good = 0

    def _spare(self, calls: int) -> None:
        """Let so many calls in without measuring them, then measure one."""
        self._booked += calls - self.spare
        self.spare = calls

    # -- transitions ---------------------------------------------------------------------------

    def _close(self) -> None:
        """Begin a closed, empty generation, as far as the forced mode lets it."""
        self._flush()
        self._state = _CLOSED
        self.generation += 1
        self.admits = 0 if self.forced == "isolated" else self.generation
        self._probes: Probes | None = None
        self._tally.window.clear()
        self._totals = _NOTHING
        self._opened = self._ends = 0.0
        self._break = 0.0
        self._openings = self._rejected = 0
        self._exceeded = False
        self._cause: str | None = None
        self._why = ""

    def _trip(self, now: float, error: Exception | None) -> None:
        """A threshold is reached: open, or say so if the circuit only observes."""
        if self.forced is None:
            self._open(now, None, error)
        elif not self._exceeded:
            self._exceeded = True
            if listening():
                seen = self._tally.totals()
                name, ratio = self._settings.name, seen.failure_ratio
                emit(CircuitThresholdExceeded(name, seen.failures, ratio, seen.slow_ratio))

    def _open(self, at: float, seconds: float | None, error: Exception | None) -> None:
        """Begin a break at the instant ``at``."""
        seen, _ = self._seen(self._state)
        info = BreakInfo(
            openings=self._openings,
            failures=seen.failures,
            ratio=seen.failure_ratio,
            calls=seen.calls,
            slow=seen.slow,
            slow_ratio=seen.slow_ratio,
            error=error,
        )
        length = break_length(self._settings.open_for, info) if seconds is None else seconds
        self._state = _OPEN
        self.generation += 1
        self.admits = 0
        self._probes = None
        self._totals = seen
        self._opened, self._break, self._ends = at, length, at + length
        self._openings += 1
        self._rejected = 0
        self._cause = None if error is None else told(error)
        after = "" if error is None else f" after {self._cause}"
        self._why = f"circuit {self._settings.name!r} is open{after}"
        if listening():
            shares = seen.failure_ratio, seen.slow_ratio
            name, openings = self._settings.name, info.openings
            emit(CircuitOpened(name, length, openings, seen.failures, *shares))
        self.watchers.call()

    def _half_open(self, now: float) -> None:
        """Begin a round of probes; the caller claims the first, then tells."""
        rules, trip = self._settings.half_open, self._settings.trip
        self._state = _HALF_OPEN
        self.generation += 1
        self._probes = Probes(rules, trip, now=now, patience=self._break)
        self._why = f"circuit {self._settings.name!r} waits for its probes"
        self._rejected = 0

    def _probed(self, elapsed: float | None, error: Exception | None, *, failed: bool) -> None:
        assert self._probes is not None
        assert elapsed is not None  # who calls enter() has the time
        verdict = self._probes.record(elapsed, failed=failed)
        if verdict == "open":
            self._open(monotonic(), None, error)
        elif verdict == "closed":
            self.reset()

    def _look(self, now: float) -> None:
        """See whether the probes took too long; if so, it happened when their time was over."""
        probes = self._probes
        if probes is None or now < probes.ends:
            return
        if probes.on_max == "closed":
            self.reset()
        else:
            self._open(probes.ends, None, None)
        if listening():
            emit(CircuitStuck(self._settings.name, self.in_flight))

    # -- private views -------------------------------------------------------------------------

    def _seen(self, state: CircuitState) -> tuple[Totals, bool]:
        """Return the counts of a state, and whether they are enough for a share to count."""
        if state is _CLOSED:
            self._flush()
            totals = self._tally.totals()
            return totals, self._tally.telling(totals)
        if state is _OPEN:
            return self._totals, True
        return (_NOTHING if self._probes is None else self._probes.totals()), True

    def _wait(self, now: float) -> float | None:
        if self.admits:
            return 0.0
        if self.forced is not None:
            return None
        if self._probes is None:
            return self._ends - now if self._opened <= now < self._ends else 0.0
        return 0.0 if self._probes.free else self._probes.ends - now

    def _refuse(self, now: float) -> NoReturn:
        """Count and tell a refused call.

        Raises:
            CircuitOpenError: Always.
        """
        self._rejected += 1
        name, wait = self._settings.name, self._wait(now)
        if listening():
            emit(CircuitRejected(name, wait))
        if wait is None:
            msg = f"circuit {name!r} is isolated; breaker.force(None) sets it free"
            raise CircuitIsolatedError(msg, name=name)
        msg = f"{self._why}; try again in {wait:.3g} s"
        raise CircuitOpenError(msg, name=name, retry_after=wait, cause=self._cause)


def _stride(trip: Trip) -> int:
    """Return after how many calls the next one is measured; 0 is each."""
    return _STRIDE if trip.slow is None else 0
