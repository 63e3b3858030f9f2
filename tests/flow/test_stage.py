"""What a stage does with an item that failed, and what counts as a failure."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import anyio
import pytest

from aiopatterns.core.errors import JobCancelledError
from aiopatterns.flow.channel import Channel
from aiopatterns.flow.executors import Inline, Threads
from aiopatterns.flow.stage import (
    DeadItem,
    DeadLetter,
    ItemFailed,
    Stage,
    failure,
    is_stray_cancel,
    name_of,
)
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import capture_events


def plain(x):
    return x


def stage(**options: Any) -> Stage:
    return Stage(verb="map", fn=plain, name="plain", **options)


async def test_stop_raises_the_same_error_with_a_note():
    error = LookupError("x")
    with pytest.raises(LookupError) as caught:
        await stage().refuse("item", 3, error, 1)
    assert caught.value is error
    assert error.__notes__ == ["in stage 'plain', item 3"]
    with pytest.raises(LookupError):
        await stage().refuse("item", 3, error, 5)
    assert error.__notes__[-1] == "in stage 'plain', item 3, attempt 5"


async def test_skip_goes_on():
    await stage(on_error="skip").refuse("item", 0, LookupError(), 1)


async def test_a_dead_letter_reaches_a_function_or_a_stream():
    taken: list[DeadItem] = []

    async def take(dead):
        taken.append(dead)

    channel = Channel[DeadItem](1)
    error = LookupError()
    for sink in (take, channel):
        await stage(on_error=DeadLetter(sink)).refuse("item", 3, error, 2)
    assert taken == [DeadItem("item", error, "plain", 2)] == [await channel.receive()]


async def test_a_failing_dead_letter_sink_raises_its_own_error():
    async def full(dead):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full") as caught:
        await stage(on_error=DeadLetter(full)).refuse("item", 3, LookupError(), 1)
    assert caught.value.__notes__ == ["in the dead letters of stage 'plain', item 3"]


async def test_every_failure_is_an_event():
    async def take(dead):
        pass

    error = LookupError()
    with capture_events() as events:
        await stage(on_error="skip").refuse("item", 1, error, 2)
        await stage(on_error=DeadLetter(take)).refuse("item", 2, error, 1)
        with pytest.raises(LookupError):
            await stage().refuse("item", 3, error, 1)
    assert [event for event in events if isinstance(event, ItemFailed)] == [
        ItemFailed("plain", 1, 2, error, "skip"),
        ItemFailed("plain", 2, 1, error, "dead_letter"),
        ItemFailed("plain", 3, 1, error, "stop"),
    ]
    assert events[0].name == "aiopatterns.pipeline.item_failed"


def caught_by_failure(error):
    try:
        raise error
    except BaseException as caught:
        return failure(caught)


async def test_errors_are_failures_as_they_are():
    error = LookupError()
    assert caught_by_failure(error) is error
    assert not is_stray_cancel(error)


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
async def test_what_would_end_a_loop_is_a_failure_by_another_name(kind):
    stop = kind()
    problem = caught_by_failure(stop)
    assert isinstance(problem, RuntimeError)
    assert str(problem) == f"the function raised {kind.__name__}"
    assert problem.__cause__ is stop


async def test_a_cancellation_nobody_asked_for_is_a_failure():
    stray = asyncio.CancelledError()
    problem = caught_by_failure(stray)
    assert isinstance(problem, JobCancelledError)
    assert problem.__cause__ is stray
    assert is_stray_cancel(problem)


async def test_a_cancellation_that_was_asked_for_is_no_failure():
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError as error:
            failure(error)
    assert scope.cancelled_caught


async def test_what_is_no_exception_is_no_failure():
    with pytest.raises(KeyboardInterrupt):
        caught_by_failure(KeyboardInterrupt())


def test_width_and_fusion():
    assert stage().width == stage(workers=1).width == 1
    assert stage(workers=3).width == stage(executor=Inline(3)).width == 3
    assert stage(executor=Inline(3), workers=2).width == 2
    assert stage().serial
    assert stage(key=plain, on_error="skip", ordered=False).serial
    for options in (
        {"workers": 2},
        {"retry": Retry(on=OSError)},
        {"timeout": 1.0},
        {"executor": Threads(1)},
    ):
        assert not stage(**options).serial


def test_names():
    class Callable:
        def __call__(self, x):
            return x

    assert name_of(plain) == "plain"
    assert name_of(partial(partial(plain, 1))) == "plain"
    assert name_of(Callable()) == "Callable"
    assert name_of(Callable().__call__) == "__call__"
