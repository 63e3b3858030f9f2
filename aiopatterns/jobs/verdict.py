"""What becomes of a job after an attempt: pure decisions, made before anything is said.

==========================================  ===========================================
the attempt came to                         the job is
==========================================  ===========================================
a value                                     done; dead if the value cannot be kept
a value that its retry does not want        back after the backoff; done if that was the last
bytes that nobody can read                  dead
``Reject``                                  dead, with the type Reject
``RetryLater``                              back after its delay, no attempt counted
another error, and its retry says again     back after the backoff, an attempt counted
a delay of either that is no finite number  dead: it can be scheduled for no time
another error                               dead
its timeout                                 as after an error: ``TimeoutExceededError``
a cancellation that somebody asked for      cancelled
==========================================  ===========================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aiopatterns.core.errors import CodecError, JobError, Reject, RetryLater
from aiopatterns.core.validate import non_negative, number
from aiopatterns.jobs.envelope import ErrorRecord
from aiopatterns.resilience.retry import Stop

if TYPE_CHECKING:
    from aiopatterns.backends.queue import How
    from aiopatterns.jobs.envelope import Envelopes
    from aiopatterns.resilience.retry import Retry

__all__ = ["Verdict", "after_error", "after_value", "dead", "unwanted"]


class Verdict(NamedTuple):
    """How a job is settled; ``error`` is what it failed with, if it did.

    The other fields are those of :class:`~aiopatterns.backends.queue.Settled`.
    """

    how: How
    data: bytes
    delay: float = 0.0
    counted: bool = True
    error: Exception | None = None


def after_value(envelopes: Envelopes, value: object, *, kept: bool) -> Verdict:
    """Decide about a job whose function has returned ``value``, which is wanted.

    Args:
        envelopes: Of the job's queue.
        value: The result.
        kept: Whether anybody may ask for it.
    """
    if not kept:
        return Verdict("done", b"")
    try:
        return Verdict("done", envelopes.encode_result(value))
    except CodecError as error:
        return dead(envelopes, error)


def unwanted(
    envelopes: Envelopes, value: object, retry: Retry, *, attempt: int, elapsed: float
) -> Verdict | None:
    """Decide whether ``value`` is one that the retry does not want; called like the next.

    Returns:
        None if it is wanted, or is the last there will be.
    """
    try:
        delay = retry.after_result(attempt, value, max(elapsed, 0.0))
        if delay is None:
            return None
        error = JobError(f"its retry does not want the result {value!r:.80}")
    except Exception as broken:  # of a predicate, or of the value's repr
        return dead(envelopes, broken)
    return _again(envelopes, error, delay, counted=True)


def after_error(
    envelopes: Envelopes, error: Exception, retry: Retry | None, *, attempt: int, elapsed: float
) -> Verdict:
    """Decide about a job whose function has raised ``error``; called in the job's own context.

    Args:
        envelopes: Of the job's queue.
        error: What it raised.
        retry: The job's retry.
        attempt: Which attempt it was, from 1.
        elapsed: Seconds since the first began.
    """
    if isinstance(error, RetryLater):
        return _again(envelopes, error, error.delay, counted=False)
    if retry is None or isinstance(error, Reject):
        return dead(envelopes, error)
    try:
        decision = retry.decide(attempt, error, max(elapsed, 0.0))
    except Exception as broken:  # of a predicate: an error of the user's like any other
        return dead(envelopes, broken)
    if isinstance(decision, Stop):
        return dead(envelopes, error)
    return _again(envelopes, error, decision.delay, counted=True)


def dead(envelopes: Envelopes, error: Exception) -> Verdict:
    """Decide that a job has failed for good."""
    return Verdict("dead", envelopes.encode_error(ErrorRecord.of(error)), error=error)


def _again(envelopes: Envelopes, error: Exception, delay: float, *, counted: bool) -> Verdict:
    try:
        seconds = max(number("delay", delay), 0.0)
        non_negative("delay", seconds)
    except (TypeError, ValueError) as broken:  # of a handler or a backoff of the user's
        broken.__cause__ = error
        return dead(envelopes, broken)
    data = envelopes.encode_error(ErrorRecord.of(error))
    return Verdict("retry", data, seconds, counted, error)
