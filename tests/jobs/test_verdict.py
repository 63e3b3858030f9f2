from __future__ import annotations

import pytest

from aiopatterns.core.errors import Reject, RetryLater
from aiopatterns.jobs.envelope import Envelopes, ErrorRecord
from aiopatterns.jobs.verdict import Verdict, after_error, after_value, dead, unwanted
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry, Until

ENVELOPES = Envelopes(max_bytes=1_000)
RETRY = Retry(on=OSError, attempts=3, backoff=Constant(2.0), until=Until(elapsed=60))


def error_of(verdict: Verdict) -> ErrorRecord:
    return ENVELOPES.decode_error(verdict.data)


def test_a_value_is_kept_if_anybody_may_ask():
    kept = after_value(ENVELOPES, {"a": 1}, kept=True)
    assert (kept.how, ENVELOPES.decode_result(kept.data)) == ("done", {"a": 1})
    assert after_value(ENVELOPES, object(), kept=False) == Verdict("done", b"")


@pytest.mark.parametrize(
    ("value", "text"), [(object(), "cannot encode"), ("x" * 2_000, "max_bytes")]
)
def test_a_value_that_cannot_be_kept_is_dead(value, text):
    verdict = after_value(ENVELOPES, value, kept=True)
    assert verdict.how == "dead"
    assert error_of(verdict).type == "CodecError"
    assert text in error_of(verdict).message


@pytest.mark.parametrize(
    ("error", "retry", "attempt", "elapsed", "expected"),
    [
        (OSError("x"), RETRY, 1, 0.0, ("retry", 2.0, True)),
        (OSError("x"), RETRY, 2, -1.0, ("retry", 2.0, True)),
        (OSError("x"), RETRY, 3, 1.0, ("dead", 0.0, True)),
        (OSError("x"), RETRY, 2, 59.0, ("dead", 0.0, True)),
        (KeyError("x"), RETRY, 1, 0.0, ("dead", 0.0, True)),
        (OSError("x"), None, 1, 0.0, ("dead", 0.0, True)),
        (Reject("no"), RETRY, 1, 0.0, ("dead", 0.0, True)),
        (Reject("no"), Retry(on=Exception), 1, 0.0, ("dead", 0.0, True)),
        (RetryLater(7.0), None, 1, 0.0, ("retry", 7.0, False)),
        (RetryLater(-7.0), RETRY, 9, 1e9, ("retry", 0.0, False)),
    ],
)
def test_errors(error, retry, attempt, elapsed, expected):
    verdict = after_error(ENVELOPES, error, retry, attempt=attempt, elapsed=elapsed)
    assert (verdict.how, verdict.delay, verdict.counted) == expected
    assert verdict.error is error
    assert error_of(verdict).type == type(error).__name__


class _Backoff:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def delay(self, n: int, *, rng: object) -> float:
        return self.seconds


@pytest.mark.parametrize("delay", [float("inf"), float("nan"), 10**400, "30", None, True])
def test_a_delay_that_is_no_time_makes_a_job_dead(delay):
    error = RetryLater(delay)
    verdict = after_error(ENVELOPES, error, None, attempt=1, elapsed=0.0)
    assert verdict.how == "dead"
    assert verdict.error is not None
    assert verdict.error.__cause__ is error
    record = error_of(verdict)
    assert record.type in {"TypeError", "ValueError"}
    assert record.message.startswith("delay must be a")


@pytest.mark.parametrize("delay", [float("inf"), float("nan")])
def test_a_backoff_that_is_no_time_makes_a_job_dead(delay):
    retry = Retry(on=OSError, attempts=3, backoff=_Backoff(delay))
    verdict = after_error(ENVELOPES, OSError("x"), retry, attempt=1, elapsed=0.0)
    assert (verdict.how, error_of(verdict).type) == ("dead", "ValueError")
    assert "OSError: x" in error_of(verdict).traceback


def test_a_predicate_that_fails_is_what_the_job_died_of():
    def broken(error: Exception) -> bool:
        raise ZeroDivisionError

    verdict = after_error(ENVELOPES, OSError(), Retry(on=broken), attempt=1, elapsed=0.0)
    assert verdict.how == "dead"
    assert error_of(verdict).type == "ZeroDivisionError"


def test_an_error_of_any_length_is_kept():
    verdict = dead(ENVELOPES, ValueError("x" * 100_000))
    assert error_of(verdict).type == "ValueError"
    assert len(verdict.data) < 10_000


def test_a_result_that_is_not_wanted_is_tried_again_until_it_is_the_last():
    retry = Retry(on=OSError, attempts=2, backoff=Constant(3.0), on_result=lambda value: value < 0)
    assert unwanted(ENVELOPES, 1, retry, attempt=1, elapsed=0.0) is None
    verdict = unwanted(ENVELOPES, -1, retry, attempt=1, elapsed=-1.0)
    assert verdict is not None
    assert (verdict.how, verdict.delay, verdict.counted) == ("retry", 3.0, True)
    assert error_of(verdict).message == "its retry does not want the result -1"
    assert unwanted(ENVELOPES, -1, retry, attempt=2, elapsed=0.0) is None
    broken = unwanted(ENVELOPES, "x", retry, attempt=1, elapsed=0.0)
    assert broken is not None
    assert (broken.how, error_of(broken).type) == ("dead", "TypeError")


def test_an_unwanted_result_that_cannot_be_shown_is_what_the_job_died_of():
    class Shy:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    retry = Retry(on=OSError, on_result=lambda value: True)
    verdict = unwanted(ENVELOPES, Shy(), retry, attempt=1, elapsed=0.0)
    assert verdict is not None
    assert (verdict.how, error_of(verdict).type) == ("dead", "ZeroDivisionError")
