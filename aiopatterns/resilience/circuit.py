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

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, NoReturn, final

from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import CircuitIsolatedError, CircuitOpenError
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.windows import Totals
from aiopatterns.resilience.breaktime import BreakInfo, break_length
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
from aiopatterns.resilience.halfopen import Probes
from aiopatterns.resilience.trip import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.resilience.breaktime import OpenFor
    from aiopatterns.resilience.circuitevents import ForcedMode
    from aiopatterns.resilience.halfopen import HalfOpen
    from aiopatterns.resilience.judge import Outcome
    from aiopatterns.resilience.trip import Trip

__all__ = ["Circuit", "CircuitState", "CircuitStatistics", "Settings"]

# The text of an error that goes into the message of every refused call.
_MAX_CAUSE: Final = 200
_NOTHING: Final = Totals(0, 0, 0, 0.0)


class CircuitState(Enum):
    """What a circuit does with a call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


_CLOSED, _OPEN, _HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


@final
@dataclass(frozen=True, slots=True)
class CircuitStatistics:
    """A circuit at one instant.

    The counts are those of the state it is in: of the window while it is closed, of what opened
    it while it is open, of the probes while it is half-open. Each state begins with none.

    Args:
        state: The state.
        calls: Calls that were recorded.
        failures: Those that failed.
        successes: Those that did not.
        slow: Those that were slow, failed or not.
        rejected: Calls that were refused since the state began.
        in_flight: Calls that were admitted, in whatever state, and have not ended.
        failure_ratio: Share of the calls that failed; None without calls, and while a closed
            circuit has too few of them to decide.
        slow_ratio: The same for slow calls.
        mean_elapsed: Mean duration of the calls in seconds; None without calls.
    """

    state: CircuitState
    calls: int
    failures: int
    successes: int
    slow: int
    rejected: int
    in_flight: int
    failure_ratio: float | None
    slow_ratio: float | None
    mean_elapsed: float | None


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

    The hot path, in ``CircuitBreaker.wrap``, does two things by hand. If ``admits`` is not 0, that
    is the generation which lets every call in: it takes that and counts up ``in_flight``; else it
    calls :meth:`enter`. A success of the generation ``counts`` that took no longer than
    ``slow_after`` goes right into the window: ``succeed``, and if that finds a reason,
    :meth:`reconsider`; any other end goes through :meth:`settle` or :meth:`release`.
    """

    __slots__ = (
        "_break",
        "_cause",
        "_ends",
        "_exceeded",
        "_opened",
        "_openings",
        "_probes",
        "_rejected",
        "_settings",
        "_state",
        "_tally",
        "_totals",
        "_why",
        "admits",
        "counts",
        "forced",
        "generation",
        "in_flight",
        "slow_after",
        "succeed",
    )

    admits: int
    counts: int

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tally = Tally(settings.trip)
        self.succeed: Callable[[float, float], int] = self._tally.window.succeed
        self.slow_after: float = settings.trip.slow_after
        self.forced: ForcedMode | None = None
        self.generation: int = 0
        self.in_flight: int = 0
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
        self._tally.adopt(settings.trip)
        self.slow_after = settings.trip.slow_after

    # -- looking -------------------------------------------------------------------------------

    def state(self) -> CircuitState:
        """Return what the circuit would do with a call now."""
        now = monotonic()
        self._look(now)
        if self.forced == "isolated":
            return CircuitState.OPEN
        over = self._state is CircuitState.OPEN and not self._opened <= now < self._ends
        return CircuitState.HALF_OPEN if over else self._state

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
        if self._probes is not None:
            self._look(now)
        begins = self._state is CircuitState.OPEN and not self._opened <= now < self._ends
        if begins:
            self._half_open(now)
        if self._probes is not None and self._probes.free:
            self._probes.claim(now)
        elif not self.admits:
            self._refuse(now)
        self.in_flight += 1
        generation = self.generation
        if begins and listening():
            emit(CircuitHalfOpened(self._settings.name))
        return generation

    # -- recording -----------------------------------------------------------------------------

    def reconsider(self, now: float) -> None:
        """Open if a threshold is reached, after a success that a caller has counted by hand."""
        if self._tally.reached():
            self._trip(now, None)

    def settle(
        self, generation: int, outcome: Outcome, elapsed: float, error: Exception | None = None
    ) -> None:
        """End an admission: the call took ``elapsed`` and had this outcome."""
        if outcome == "ignore":
            self.release(generation)
            return
        self.in_flight -= 1
        failed = outcome == "failure"
        if generation != self.generation:
            if listening():
                emit(CircuitLateResult(self._settings.name, outcome))
        elif self._probes is not None:
            self._probed(elapsed, error, failed=failed)
        elif self.forced != "disabled":
            now = monotonic()
            if self._tally.record(elapsed, failed=failed, at=now):
                self._trip(now, error)
            else:
                self._exceeded = False

    def release(self, generation: int) -> None:
        """End an admission: the call says nothing about the other side."""
        self.in_flight -= 1
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
        if was is not CircuitState.CLOSED and listening():
            emit(CircuitClosed(self._settings.name))

    def force(self, mode: ForcedMode | None) -> None:
        """Go over to ``mode``, or set the circuit free; nothing happens if it is so already."""
        if mode != self.forced:
            self.forced = mode
            self._close()
            if listening():
                emit(CircuitForced(self._settings.name, mode))

    # -- transitions ---------------------------------------------------------------------------

    def _close(self) -> None:
        """Begin a closed, empty generation, as far as the forced mode lets it."""
        self._state = CircuitState.CLOSED
        self.generation += 1
        self.admits = 0 if self.forced == "isolated" else self.generation
        self.counts = self.generation if self.forced is None else 0
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
        self._state = CircuitState.OPEN
        self.generation += 1
        self.admits = self.counts = 0
        self._probes = None
        self._totals = seen
        self._opened, self._break, self._ends = at, length, at + length
        self._openings += 1
        self._rejected = 0
        self._cause = None if error is None else _told(error)
        after = "" if error is None else f" after {self._cause}"
        self._why = f"circuit {self._settings.name!r} is open{after}"
        if listening():
            shares = seen.failure_ratio, seen.slow_ratio
            name, openings = self._settings.name, info.openings
            emit(CircuitOpened(name, length, openings, seen.failures, *shares))

    def _half_open(self, now: float) -> None:
        """Begin a round of probes; the caller claims the first, then tells."""
        rules, trip = self._settings.half_open, self._settings.trip
        self._state = CircuitState.HALF_OPEN
        self.generation += 1
        self._probes = Probes(rules, trip, now=now, patience=self._break)
        self._why = f"circuit {self._settings.name!r} waits for its probes"
        self._rejected = 0

    def _probed(self, elapsed: float, error: Exception | None, *, failed: bool) -> None:
        assert self._probes is not None
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
        if state is CircuitState.CLOSED:
            totals = self._tally.totals()
            return totals, self._tally.telling(totals)
        if state is CircuitState.OPEN:
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


def _told(error: Exception) -> str:
    """Return the text of an error; only that is kept, not what its traceback holds on to."""
    try:
        text = repr(error)
    except Exception:
        text = type(error).__name__
    return text if len(text) <= _MAX_CAUSE else f"{text[:_MAX_CAUSE]}..."
