"""Plain functions in threads: context, values, awaitables, errors, cancellation."""

from __future__ import annotations

import threading

import anyio
import pytest

from aiopatterns.core.context import bind_correlation, correlation_id
from aiopatterns.core.threads import call_in_thread


async def test_a_plain_function_gets_its_arguments_and_the_context():
    def fn(a: int, *, b: int) -> tuple[int, str | None]:
        return a + b, correlation_id()

    with bind_correlation("request-7"):
        assert await call_in_thread(fn, 1, b=2) == (3, "request-7")


async def test_what_it_returns_is_awaited_if_that_is_possible():
    async def later() -> str:
        return threading.current_thread().name

    assert await call_in_thread(later) == threading.current_thread().name


async def test_its_error_is_the_callers():
    def fn() -> None:
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        await call_in_thread(fn)


@pytest.mark.real
async def test_it_is_not_on_the_loop_and_is_waited_for_when_cancelled():
    begun, go, done = threading.Event(), threading.Event(), []

    def fn() -> None:
        begun.set()
        go.wait(10)
        done.append(threading.current_thread())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call_in_thread, fn)
        while not begun.is_set():
            await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()
        go.set()
    assert done != [threading.current_thread()]
    assert len(done) == 1
