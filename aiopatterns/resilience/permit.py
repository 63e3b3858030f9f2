"""Permits: one call that a circuit breaker has let through, until it is known how it ended.

``breaker.try_acquire()`` gives a permit, and ``permit.record(...)`` ends it, exactly once. A
permit that is dropped without a word says nothing about the other side; its place among the probes
of a half-open circuit is free again.

:class:`Guard` is the same as a block of code, which ends its permit by how it is left::

    async with breaker.guard() as permit:
        reply = await client.get(url)
        if reply.status >= 500:
            permit.record("failure")  # else: success if the block ends, failure if it raises

Guarantees: ending a permit is synchronous, so a cancellation cannot come between; a cancelled
block has neither succeeded nor failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from aiopatterns.core.clock import monotonic
from aiopatterns.core.validate import choice, non_negative
from aiopatterns.resilience.judge import OUTCOMES, outcome_of

if TYPE_CHECKING:
    from types import TracebackType

    from aiopatterns.resilience.circuit import Circuit
    from aiopatterns.resilience.judge import Judge, Outcome

__all__ = ["Guard", "Permit", "admit", "conclude"]


@final
class Permit:
    """One admitted call; made by ``CircuitBreaker.try_acquire``.

    Args:
        circuit: Who admitted it.
        generation: In which state.
        started: When, in monotonic seconds.
    """

    __slots__ = ("_circuit", "_generation", "_started", "released")

    def __init__(self, circuit: Circuit, generation: int, started: float) -> None:
        self._circuit = circuit
        self._generation = generation
        self._started = started
        self.released: bool = False

    def record(self, outcome: Outcome, *, elapsed: float | None = None) -> None:
        """End the call, once.

        Args:
            outcome: What it says about the other side: ``"success"``, ``"failure"``, or
                ``"ignore"`` for nothing.
            elapsed: How long it took in seconds; by default the time since it was admitted.

        Raises:
            RuntimeError: The call has ended already.
            ValueError: No such outcome, or a senseless time; the call has not ended.

        Complexity: O(1).
        """
        choice("outcome", outcome, OUTCOMES)
        if elapsed is not None:
            non_negative("elapsed", elapsed)
        self._end()
        taken = monotonic() - self._started if elapsed is None else elapsed
        self._circuit.settle(self._generation, outcome, taken)

    def conclude(self, judge: Judge | None, found: object) -> None:
        """End the call by what it gave: a result, or an error that is on its way out."""
        self._end()
        conclude(self._circuit, self._generation, self._started, judge, found)

    def drop(self) -> None:
        """End the call as ``"ignore"`` unless it has ended."""
        if not self.released:
            self.released = True
            self._circuit.release(self._generation)

    def skip(self, seconds: float) -> None:
        """Leave so many seconds out of the duration of the call: they were not its own."""
        self._started += seconds

    def __del__(self) -> None:
        """Give back what was dropped."""
        self.drop()

    def _end(self) -> None:
        if self.released:
            msg = "the permit has ended already; record one outcome for each permit"
            raise RuntimeError(msg)
        self.released = True


@final
class Guard:
    """One ``async with`` block under a breaker; made by ``CircuitBreaker.guard``, used once.

    Args:
        circuit: Who admits it.
        judge: Who says what an error means.
    """

    __slots__ = ("_circuit", "_judge", "_permit")

    def __init__(self, circuit: Circuit, judge: Judge | None) -> None:
        self._circuit = circuit
        self._judge = judge
        self._permit: Permit | None = None

    async def __aenter__(self) -> Permit:
        """Admit the block.

        Raises:
            CircuitOpenError: The circuit refuses it.
            RuntimeError: The guard has been used.
        """
        if self._permit is not None:
            msg = "a guard is used once; call breaker.guard() for each block"
            raise RuntimeError(msg)
        self._permit = admit(self._circuit)
        return self._permit

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the permit, if the block has not done so; an error of the block goes on."""
        permit = self._permit
        if permit is None or permit.released:
            return
        if exc is None:
            permit.record("success")
        else:
            permit.conclude(self._judge, exc)


def admit(circuit: Circuit) -> Permit:
    """Admit one call.

    Raises:
        CircuitOpenError: The circuit refuses it.
    """
    now = monotonic()
    return Permit(circuit, circuit.enter(now), now)


def conclude(
    circuit: Circuit, generation: int, started: float | None, judge: Judge | None, found: object
) -> None:
    """End an admission by what the call gave: a result, or an error that is on its way out.

    One whose judge raises is ignored, as is a cancellation, which no judge ever sees. Without
    ``started`` the call was not measured.
    """
    elapsed = None if started is None else monotonic() - started
    error = found if isinstance(found, Exception) else None
    outcome: Outcome = "ignore"
    try:
        if error is not None or not isinstance(found, BaseException):
            outcome = outcome_of(judge, found)
    finally:
        circuit.settle(generation, outcome, elapsed, error)
