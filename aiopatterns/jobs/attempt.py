"""One attempt: one call of a job's function, for one job or for a batch of them.

It knows what the call is made with and settles its jobs when the call has ended; how the call is
run is the affair of the runner. Everything here is synchronous.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.core.clock import call_later, monotonic
from aiopatterns.core.context import bind_correlation, forget_deadline, push_deadline
from aiopatterns.core.errors import CodecError, JobCancelledError, TimeoutExceededError
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.tracing import NO_SPAN
from aiopatterns.jobs.context import Context
from aiopatterns.jobs.hold import Cut
from aiopatterns.jobs.tracing import processing
from aiopatterns.jobs.verdict import Verdict, after_error, after_value, unwanted
from aiopatterns.jobs.workerevents import (
    JobCancelled,
    JobDead,
    JobDone,
    JobLost,
    JobReleased,
    JobRetried,
    JobStarted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context as Variables
    from typing import Protocol

    from aiopatterns.core.clock import Alarms
    from aiopatterns.core.tracing import Span
    from aiopatterns.jobs.envelope import Envelope
    from aiopatterns.jobs.hold import Hold
    from aiopatterns.jobs.job import Job
    from aiopatterns.jobs.shop import Shop
    from aiopatterns.jobs.workerevents import AttemptEvent

    class Timer(Protocol):
        """What a timer of the loop can do."""

        def cancel(self) -> None: ...


__all__ = ["Attempt"]

_CANCELLED: Final = Verdict("cancelled", b"")


@final
class Attempt:
    """A call that is ready to be made.

    Args:
        shop: The queue.
        job: What is called.
        calls: The jobs that it is for, each with its envelope; one, or those of a batch.
        variables: A context of its own.
    """

    __slots__ = (
        "_alarms",
        "_halt",
        "_span",
        "_timer",
        "calls",
        "cut",
        "job",
        "shop",
        "started",
        "variables",
    )

    def __init__(
        self,
        shop: Shop,
        job: Job[..., Any],
        calls: list[tuple[Hold, Envelope]],
        variables: Variables,
    ) -> None:
        self.shop: Shop = shop
        self.job: Job[..., Any] = job
        self.calls: list[tuple[Hold, Envelope]] = calls
        self.variables: Variables = variables
        self.cut: Cut | None = None
        self.started: float = 0.0
        self._halt: Callable[[], object] | None = None  # cancels the function, while it runs
        self._alarms: Alarms | None = None
        self._timer: Timer | None = None
        self._span: Span = NO_SPAN

    # ---------------------------------------------------------------- what the runner calls

    def begin(
        self, halt: Callable[[], object], alarms: Callable[[float], Alarms]
    ) -> Coroutine[Any, Any, Any]:
        """Begin; returns the work, none of which has run.

        Args:
            halt: Cancels the function.
            alarms: Gives the timer that calls with an equal timeout share.
        """
        hold, envelope = self.calls[0]
        self._halt = halt
        self.started = now = monotonic()
        deadline, timeout = self._deadline(), self.job.options.timeout
        if timeout is not None and (deadline is None or now + timeout <= deadline):
            self._alarms = alarms(timeout)
            deadline = self._alarms.arm(self._time_over)
        elif deadline is not None:
            self._timer = call_later(max(deadline - now, 0.0), self._time_over)
        header = envelope.header
        ctx = Context(
            attempt=hold.attempt,
            deadline=deadline,
            correlation_id=header.correlation_id,
            hops=header.hops,
            state=self.shop.state,
            job_id=hold.id,
            name=envelope.name,
            report=self._report,
        )
        self.variables.run(_bind, ctx)
        self._span = processing(self.shop.name, self.job, self.calls, self.variables)
        self.shop.ledger.running += len(self.calls)
        for each, _ in self.calls:
            each.at = self
        if listening():
            self._tell(JobStarted)
        if self.job.kind == "batch":
            return self.job.attempt(ctx, [[_item(call) for _, call in self.calls]], {})
        return self.job.attempt(ctx, envelope.args, envelope.kwargs)

    def interrupt(self, hold: Hold, cut: Cut) -> None:
        """Cancel the function for ``hold``; of a batch only if all of it is meant."""
        hold.cut = cut if hold.cut is None else max(cut, hold.cut)
        cuts = [each.cut or 0 for each, _ in self.calls]
        if all(cuts) and (self.cut is None or self.cut < min(cuts)):
            self._cancel(Cut(min(cuts)))

    def returned(self, value: object) -> None:
        """The function has returned ``value``."""
        seconds = self._end()
        self._span.end()
        envelopes, ledger = self.shop.envelopes, self.shop.ledger
        kept = self.job.options.result_ttl > 0
        values: Any = value if self.job.kind == "batch" else (value,)
        retry = self.job.options.retry
        for (hold, envelope), each in zip(self.calls, values, strict=True):
            ledger.seconds.record(seconds)
            verdict: Verdict | None = None
            if retry is not None:
                elapsed = _age(hold, envelope, seconds)
                verdict = self.variables.run(self._doubt, each, hold, elapsed)
            if verdict is None:
                verdict = after_value(envelopes, each, kept=kept)
            self._settle(hold, verdict, seconds)

    def raised(self, error: Exception) -> None:
        """The function has raised ``error``."""
        seconds = self._end()
        self._span.end(error)
        if self.cut is not None and self.cut > Cut.TIMEOUT:
            self._given_up()
            return
        for hold, envelope in self.calls:
            self.shop.ledger.seconds.record(seconds)
            if hold.cut is Cut.CANCEL:  # of a batch, which went on for the others
                self._settle(hold, _CANCELLED, seconds)
                continue
            elapsed = _age(hold, envelope, seconds)
            self._settle(hold, self.variables.run(self._judge, error, hold, elapsed), seconds)

    def split(self) -> list[tuple[Hold, Envelope]]:
        """Give the jobs of a batch up, to be run one by one; none if it is but one job."""
        if len(self.calls) == 1 or self.cut is not None:
            return []
        self._end()
        self._leave("split")
        return self.calls

    def sift(self) -> list[Hold]:
        """Take out and return the jobs that were cut off before the call began."""
        cut = [hold for hold, _ in self.calls if hold.cut is not None]
        if cut:
            self.calls = [call for call in self.calls if call[0].cut is None]
        return cut

    def interrupted(self) -> None:
        """The function has let a cancellation through."""
        if self.cut is None:
            self.raised(JobCancelledError(f"job {self.job.name!r} cancelled itself"))
        elif self.cut is Cut.TIMEOUT:
            timeout = self.job.options.timeout
            text = f"job {self.job.name!r} took longer than its {timeout} s"
            if self._alarms is None:
                text = f"the deadline of job {self.job.name!r} has passed"
            self.raised(TimeoutExceededError(text, timeout=timeout))
        else:
            self._end()
            self._leave(self.cut.name.lower())
            self._given_up()

    # --------------------------------------------------------------------------- private core

    def _deadline(self) -> float | None:
        """The earliest deadline that came with the jobs, in monotonic seconds."""
        earliest: float | None = None
        for hold, envelope in self.calls:
            if envelope.header.remaining is None:
                continue
            deadline = envelope.header.deadline(hold.turns.server_now())
            if earliest is None or (deadline is not None and deadline < earliest):
                earliest = deadline
        return earliest

    def _judge(self, error: Exception, hold: Hold, elapsed: float) -> Verdict:
        """Decide about an error, in the context of the call."""
        self._outlast()
        return after_error(
            self.shop.envelopes,
            error,
            self.job.options.retry,
            attempt=hold.attempt,
            elapsed=elapsed,
        )

    def _doubt(self, value: object, hold: Hold, elapsed: float) -> Verdict | None:
        """Decide whether a value is wanted, in the context of the call."""
        self._outlast()
        retry = self.job.options.retry
        assert retry is not None
        return unwanted(self.shop.envelopes, value, retry, attempt=hold.attempt, elapsed=elapsed)

    def _outlast(self) -> None:
        """Bind the deadline that came with the job alone: another attempt has time of its own."""
        forget_deadline()
        if (deadline := self._deadline()) is not None:
            push_deadline(deadline)

    def _time_over(self) -> None:
        self._cancel(Cut.TIMEOUT)

    def _cancel(self, cut: Cut) -> None:
        if self.cut is None or self.cut < cut:
            self.cut = cut
        if self._halt is not None:
            self._halt()

    def _report(self, fraction: float) -> None:
        for hold, _ in self.calls:
            hold.turns.tell(hold, fraction)

    def _end(self) -> float:
        """The call is over: stop its clocks; returns how long it took."""
        self._halt = None
        self.shop.ledger.running -= len(self.calls)
        if self._alarms is not None:
            self._alarms.disarm(self._time_over)
        if self._timer is not None:
            self._timer.cancel()
        for hold, _ in self.calls:
            hold.at = None
        return monotonic() - self.started

    def _leave(self, outcome: str) -> None:
        """The span ends without a value and without an error."""
        self._span.note("outcome", outcome)
        self._span.end()

    def _given_up(self) -> None:
        """It was cancelled, as was asked: settle it as that, or leave it to be given back."""
        for hold, _ in self.calls:
            if hold.cut is Cut.CANCEL:
                self._settle(hold, _CANCELLED, 0.0)
            elif listening():
                self._tell(JobLost if hold.cut is Cut.LOST else JobReleased, hold)

    def _settle(self, hold: Hold, verdict: Verdict, seconds: float) -> None:
        """Say what becomes of a job, count it, tell it."""
        how, data, delay, counted, _ = verdict
        falls = how == "retry" and counted and self.job.options.demote
        if not hold.turns.settle(
            hold, "demote" if falls else how, data, delay=delay, counted=counted
        ):
            if listening():
                self._tell(JobLost, hold)
            return
        ledger = self.shop.ledger
        if how == "done":
            ledger.processed += 1
        elif how == "dead":
            ledger.failed += 1
        elif how == "cancelled":
            ledger.cancelled += 1
        else:
            ledger.retried += 1
            hold.turns.note_retry(hold, delay)
        if listening():
            self._tell_end(hold, verdict, seconds)

    def _tell(self, kind: type[AttemptEvent], hold: Hold | None = None, *more: object) -> None:
        for each, envelope in self.calls:
            if hold is None or hold is each:
                emit(
                    kind(
                        self.shop.name,
                        self.job.name,
                        each.id,
                        each.attempt,
                        envelope.header.correlation_id,
                        *more,
                    )
                )

    def _tell_end(self, hold: Hold, verdict: Verdict, seconds: float) -> None:
        if verdict.how == "done":
            self._tell(JobDone, hold, seconds)
        elif verdict.how == "dead":
            self._tell(JobDead, hold, verdict.error)
        elif verdict.how == "cancelled":
            self._tell(JobCancelled, hold)
        else:
            self._tell(JobRetried, hold, verdict.delay, verdict.error)


def _item(call: Envelope) -> Any:
    """Return the item of a batch that a call brings; it may have been sent when it was no batch.

    Raises:
        CodecError: It brings something else.
    """
    if len(call.args) != 1 or call.kwargs:
        count, names = len(call.args), sorted(call.kwargs)
        msg = f"wrong arguments for the batch {call.name!r}: one item, not {count} and {names}"
        raise CodecError(msg)
    return call.args[0]


def _age(hold: Hold, envelope: Envelope, seconds: float) -> float:
    """Return the seconds since the first attempt began; of later ones since the job was sent."""
    now = hold.turns.server_now() if hold.attempt > 1 else None
    return seconds if now is None else now - envelope.enqueued_at


def _bind(ctx: Context) -> None:
    """Bind what travels with the job, in its own context variables."""
    if ctx.correlation_id is not None:
        bind_correlation(ctx.correlation_id).__enter__()
    if ctx.deadline is not None:
        push_deadline(ctx.deadline)
