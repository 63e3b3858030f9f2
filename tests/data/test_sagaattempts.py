"""What is known after the attempts of a step."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import bind_correlation, bind_deadline, correlation_id, remaining
from aiopatterns.core.errors import OutcomeUnknownError, TimeoutExceededError
from aiopatterns.data.sagaattempts import Attempts, is_unknown, unbounded
from aiopatterns.resilience.timeout import Timeout


async def make(attempts: Attempts, error: Exception | None = None) -> None:
    async def action(context: dict[str, Any]) -> None:
        context["called"] = True
        if error is not None:
            raise error

    context: dict[str, Any] = {}
    try:
        await attempts.make(action, context)
    finally:
        assert context == {"called": True}


async def test_an_error_that_says_nothing_is_remembered_also_after_one_that_does():
    attempts = Attempts(None)
    for error, unknown in (
        (ValueError(), False),
        (ConnectionResetError(), True),
        (KeyError(), True),
    ):
        with pytest.raises(type(error)):
            await make(attempts, error)
        assert attempts.unknown == unknown
    await make(attempts)
    assert attempts.number == 4


async def test_whether_an_attempt_that_took_too_long_has_done_it_is_not_known():
    attempts = Attempts(Timeout(0.001))
    await make(attempts)
    assert not attempts.unknown
    with pytest.raises(TimeoutExceededError):
        await attempts.make(sleep, 5.0)
    assert (attempts.number, attempts.unknown) == (2, True)


@pytest.mark.parametrize(
    ("error", "unknown"),
    [
        (ValueError(), False),
        (TimeoutError(), True),
        (OutcomeUnknownError("who knows"), True),
        (ExceptionGroup("", [ValueError(), ExceptionGroup("", [BrokenPipeError()])]), True),
        (ExceptionGroup("", [ValueError()]), False),
    ],
)
def test_which_errors_say_nothing(error, unknown):
    assert is_unknown(error) == unknown


async def test_what_is_unbounded_knows_no_deadline_of_its_caller_but_all_else():
    async def seen() -> tuple[float | None, str | None]:
        return remaining(), correlation_id()

    with bind_correlation("order-17"), bind_deadline(monotonic() + 5):
        assert await unbounded(seen()) == (None, "order-17")
        assert remaining() is not None
