"""Circuit breaker: stop asking who does not answer.

A dependency that is down costs every caller its full timeout, and gets no rest to come back. A
breaker counts how calls end; when too many fail or are slow, it *opens* and refuses calls at once.
After a break a few *probes* find out whether the other side is well again::

    CLOSED ----- too many failures ----> OPEN ----- the break is over ----> HALF_OPEN
       ^                                  ^                                  |    |
       |                                  '---------- probes fail -----------'    |
       '-------------------------------------- probes succeed --------------------'

The rules are values: :class:`Trip` (when it opens), a number, a backoff or a function (for how
long), :class:`HalfOpen` (how it finds out). ``circuit.py`` has the states, ``trip.py`` the
windows, ``judge.py`` the three classes of outcomes.

Guarantees:

* The call that opens the circuit raises its own error, the same instance, like any other.
* A call that was cancelled is neither a success nor a failure.
* A half-open circuit has at most ``probes`` calls recorded and in flight, whoever comes.
* The result of a call that began in an earlier state changes nothing.
* A permit is given back in any case; nothing has to be awaited for that.
* One object serves any number of calls, on one loop after another. It has no task and no timer.

Not guaranteed: anything about other processes, each has its own circuit (``share_circuits`` tells
the others); anything about threads, a breaker belongs to the loop that runs.

Source: "Release It!" (Nygard, 2007); the semantics where libraries differ follow Polly v8,
resilience4j and failsafe-go, each where it is the more exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, final

from aiopatterns.core.clock import monotonic
from aiopatterns.core.validate import choice, instance, positive, text
from aiopatterns.resilience.breaktime import BREAK, BreakInfo, check_open_for
from aiopatterns.resilience.circuit import Circuit, Settings
from aiopatterns.resilience.circuitstate import CircuitState, CircuitStatistics
from aiopatterns.resilience.halfopen import HalfOpen
from aiopatterns.resilience.judge import check_judge
from aiopatterns.resilience.permit import Guard, Permit, admit, conclude
from aiopatterns.resilience.policy import Policy
from aiopatterns.resilience.trip import Consecutive, Count, Seconds, Slow, Trip

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from aiopatterns.core.telemetry import Subscription
    from aiopatterns.resilience.breaktime import OpenFor
    from aiopatterns.resilience.circuitevents import ForcedMode
    from aiopatterns.resilience.judge import Judge

__all__ = [
    "BreakInfo",
    "CircuitBreaker",
    "CircuitState",
    "CircuitStatistics",
    "Consecutive",
    "Count",
    "Guard",
    "HalfOpen",
    "Permit",
    "Seconds",
    "Slow",
    "Trip",
]

P = ParamSpec("P")
T = TypeVar("T")

_TRIP: Final = Trip()
_HALF_OPEN: Final = HalfOpen()
_MODES: Final = (None, "isolated", "disabled", "observe")


@final
class CircuitBreaker(Policy):
    """Refuse calls at once while the other side is down.

    Args:
        name: Of what it protects; in errors and events.
        trip: When it opens: by default when half of at least 20 calls of the last 10 s failed.
        open_for: How long, in seconds: a number, a backoff that grows with each probe that
            fails, or a function of a :class:`BreakInfo`.
        half_open: How it finds out whether the other side is well: by default by one probe.
        judge: What a result or an error says about the other side: a function of either that
            returns ``"failure"``, ``"success"`` or ``"ignore"``. By default an ``Exception`` is a
            failure, except the ``RejectedError`` of a policy further inside, which is ignored.

    A stream is one call that succeeds when it ends. One that its reader leaves early says nothing.
    The time that the reader takes is not counted.

    Example::

        billing = CircuitBreaker("billing", trip=Trip(Consecutive(5)), open_for=10.0)


        @billing
        async def charge(amount: int) -> str: ...


        async with billing.guard():
            await charge_by_hand()
    """

    __slots__ = ("_circuit", "_judge")

    kind = "breaker"

    def __init__(
        self,
        name: str,
        *,
        trip: Trip = _TRIP,
        open_for: OpenFor = BREAK,
        half_open: HalfOpen = _HALF_OPEN,
        judge: Judge | None = None,
    ) -> None:
        text("name", name)
        instance("trip", trip, Trip, "a Trip, as in Trip(window=Consecutive(5))")
        instance("half_open", half_open, HalfOpen, "a HalfOpen, as in HalfOpen(probes=3)")
        if half_open.slow_ratio is not None and trip.slow is None:
            msg = (
                f"half_open.slow_ratio must be None if trip.slow is, for then no call is slow,"
                f" not {half_open.slow_ratio!r}"
            )
            raise ValueError(msg)
        self._judge = check_judge(judge)
        self._circuit = Circuit(Settings(name, trip, check_open_for(open_for), half_open))

    def __repr__(self) -> str:
        return f"CircuitBreaker({self.name!r})"

    @property
    def name(self) -> str:
        """The name, as given."""
        return self._circuit.settings.name

    @property
    def state(self) -> CircuitState:
        """What the circuit would do with a call now.

        ``HALF_OPEN`` as soon as the break is over. While it is forced, ``OPEN`` if it is isolated
        and ``CLOSED`` if not.
        """
        return self._circuit.state()

    @property
    def forced(self) -> ForcedMode | None:
        """The mode it is forced into; None if it is free."""
        return self._circuit.forced

    @property
    def retry_after(self) -> float | None:
        """Seconds until a call may be let through: 0 for now, None while it is isolated.

        While all probes are out it is the longest their verdict may take.
        """
        return self._circuit.retry_after()

    def statistics(self) -> CircuitStatistics:
        """Return the state and its counts."""
        return self._circuit.statistics()

    def try_acquire(self) -> Permit:
        """Admit one call now, or refuse it; never waits.

        Returns:
            The permit; its ``record`` says how the call ended.

        Raises:
            CircuitOpenError: The circuit is open, or half-open with all its probes out.
            CircuitIsolatedError: It is isolated.

        Complexity: O(1).
        """
        return admit(self._circuit)

    def guard(self) -> Guard:
        """Return a fresh ``async with`` block, which is one call.

        It succeeds if the block ends, and fails by an error that is a failure; the permit it
        gives can say otherwise before.

        Raises (on entering the block):
            CircuitOpenError: The circuit refuses it.

        Cancellation: passes; the permit is given back and the call says nothing.
        """
        return Guard(self._circuit, self._judge)

    def open(self, seconds: float | None = None) -> None:
        """Open the circuit now; without effect while it is forced.

        Args:
            seconds: Length of the break; None is what ``open_for`` says.
        """
        if seconds is not None:
            positive("seconds", seconds)
        self._circuit.open(seconds)

    def reset(self) -> None:
        """Close the circuit and forget all calls; a forced mode stays."""
        self._circuit.reset()

    def force(self, mode: ForcedMode | None) -> None:
        """Take the decision from the circuit, or give it back.

        Args:
            mode: ``"isolated"`` refuses every call. ``"disabled"`` lets every call through and
                counts none. ``"observe"`` lets every call through, counts, and reports a trip as
                the event ``circuit.threshold_exceeded``. None sets the circuit free.

        Each change closes and empties the circuit.
        """
        self._circuit.force(choice("mode", mode, _MODES))

    def watch(self, watcher: Callable[[], object]) -> Subscription:
        """Call ``watcher`` whenever the circuit has opened, closed, or was forced.

        Args:
            watcher: A plain function without arguments. It is called in the task in which that
                happened, so it must be quick; an error of it is logged and dropped.

        Returns:
            The subscription; close it to stop. Unlike a listener of events, a watcher costs the
            calls of this breaker, and of all others, nothing.
        """
        return self._circuit.watchers.add(watcher)

    def adopt(self, previous: Policy) -> bool:
        """Go on with the circuit of ``previous``, a breaker of the same name and window.

        Returns:
            Whether it was one. Then both are one circuit, with the rules of this one.
        """
        mine = self._circuit.settings
        match previous:
            case CircuitBreaker(_circuit=circuit) if circuit.settings.counts_like(mine):
                self._circuit = circuit
                circuit.adopt(mine)
                return True
            case _:
                return False

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function that calls ``fn`` if the circuit lets it, and records how it ended."""
        circuit, judge = self._circuit, self._judge
        bare: Callable[..., Awaitable[T]] = fn  # most calls name no argument: no dict to merge

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            started: float | None = None
            if circuit.spare:
                circuit.spare -= 1
                generation = circuit.generation
            else:
                generation = circuit.enter(started := monotonic())
            try:
                result = await (fn(*args, **kwargs) if kwargs else bare(*args))
            except BaseException as error:
                conclude(circuit, generation, started, judge, error)
                raise
            if started is None and judge is None:
                if generation == circuit.aging:
                    if (now := monotonic()) < circuit.until and now >= circuit.since:
                        circuit.good += 1
                        return result
                elif generation == circuit.ageless:
                    circuit.good += 1
                    return result
            if judge is None:
                circuit.succeed(generation, started)
            else:
                conclude(circuit, generation, started, judge, result)
            return result

        return guarded

    def wrap_stream(
        self, fn: Callable[P, AsyncGenerator[T, Any]]
    ) -> Callable[P, AsyncGenerator[T]]:
        """Return a stream function whose streams are calls that succeed when they end."""
        circuit, judge = self._circuit, self._judge

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
            permit = admit(circuit)
            try:
                stream = fn(*args, **kwargs)
                try:
                    while step := await _step(stream, permit, judge):
                        given = monotonic()
                        yield step[0]
                        permit.skip(monotonic() - given)
                finally:
                    await stream.aclose()
            finally:
                permit.drop()

        return guarded


async def _step(
    stream: AsyncGenerator[T, Any], permit: Permit, judge: Judge | None
) -> tuple[T, ...]:
    """Take one item; at the end of the stream an empty tuple, and the permit has ended."""
    try:
        async for item in stream:
            return (item,)
    except Exception as error:
        permit.conclude(judge, error)
        raise
    permit.record("success")
    return ()
