"""Calls of user functions: async or not, context variables, cancellation, blame."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context

import anyio
import pytest

from aiopatterns.core.clock import yield_now
from aiopatterns.core.errors import JobCancelledError
from aiopatterns.flow.calls import (
    NotAsyncError,
    as_failure,
    blame,
    blame_source,
    called,
    own_cancellation,
    own_error,
    untouched,
)

variable: ContextVar[int] = ContextVar("variable", default=0)


async def test_untouched_knows_whether_a_variable_was_set():
    async def check():
        variables = copy_context()
        assert untouched(variables)
        token = variable.set(1)
        assert not untouched(variables)
        variable.reset(token)
        assert untouched(variables)

    await asyncio.create_task(check())


async def test_only_a_cancellation_nobody_asked_for_is_ones_own():
    assert own_cancellation(asyncio.CancelledError())
    assert not own_cancellation(KeyboardInterrupt())
    with anyio.CancelScope() as scope:
        scope.cancel()
        assert not own_cancellation(asyncio.CancelledError())
    error = own_error("the call", cause := asyncio.CancelledError())
    assert isinstance(error, JobCancelledError)
    assert error.__cause__ is cause


async def test_as_failure_raises_what_is_none():
    error = ValueError()
    assert as_failure(error, "the call") is error
    own = as_failure(asyncio.CancelledError(), "the call")
    assert isinstance(own, JobCancelledError)
    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(asyncio.CancelledError):
            as_failure(asyncio.CancelledError(), "the call")
    with pytest.raises(KeyboardInterrupt):
        as_failure(KeyboardInterrupt(), "the call")


async def test_called_refuses_a_plain_function():
    async def fine(item: int) -> int:
        await yield_now()
        return item

    assert await called(fine, 1) == 1
    with pytest.raises(NotAsyncError, match="fn must be an async function, but str returned '1'"):
        await called(str, 1)  # type: ignore[arg-type]


def test_notes():
    assert blame(ValueError(), 3).__notes__ == ["raised by the call for item 3"]
    assert blame_source(ValueError(), 3).__notes__ == [
        "raised by the source of the items, after 3 items"
    ]
