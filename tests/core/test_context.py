"""A coroutine in a captured context, and what is bound there."""

from __future__ import annotations

import asyncio
import math
from contextlib import nullcontext
from contextvars import ContextVar, copy_context
from typing import Any

import anyio
import pytest

from aiopatterns.core import clock
from aiopatterns.core.context import (
    Context,
    Steps,
    adopt,
    bind_correlation,
    bind_deadline,
    correlation_id,
    deadline,
    forget_deadline,
    new_id,
    pop_correlation,
    pop_deadline,
    push_correlation,
    push_deadline,
    remaining,
    run_in,
)
from aiopatterns.testing import Trial, cancel_everywhere, fail_everywhere

colour: ContextVar[str] = ContextVar("colour", default="none")


def context_with(value):
    variables = copy_context()
    variables.run(colour.set, value)
    return variables


async def stepped(variables, work):
    steps: Steps[Any] = Steps()
    awaited = variables.run(steps.send, work)
    if awaited is not steps:
        await steps.rest(variables, awaited)
    return steps.result


in_steps = pytest.mark.parametrize("step", [run_in, stepped])


@in_steps
async def test_every_step_runs_in_the_captured_context(step):
    seen = []

    async def work():
        for _ in range(3):
            seen.append(colour.get())
            await anyio.sleep(0)
        colour.set("changed")
        return "result"

    variables = context_with("red")
    assert await step(variables, work()) == "result"
    assert seen == ["red"] * 3
    assert colour.get() == "none"
    assert variables[colour] == "changed"


@in_steps
async def test_two_at_once_do_not_mix(step):
    async def work(expected):
        for _ in range(5):
            assert colour.get() == expected
            await anyio.sleep(0)

    async with anyio.create_task_group() as tasks:
        for name in ("red", "green"):
            tasks.start_soon(wrapped, step(context_with(name), work(name)))


@in_steps
async def test_its_error_leaves_as_it_is(step):
    error = KeyError("lost")

    async def work():
        await anyio.sleep(0)
        raise error

    with pytest.raises(KeyError) as caught:
        await step(context_with("red"), work())
    assert caught.value is error


@in_steps
async def test_tasks_timers_and_scopes_work_inside(step):
    async def work():
        with anyio.move_on_after(0) as scope:
            await anyio.sleep(10)
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.sleep(10)

        async def child():
            return colour.get()

        return await asyncio.create_task(child())

    assert await step(context_with("red"), work()) == "red"


@in_steps
def test_a_cancellation_arrives_inside_the_context(step):
    def factory():
        seen = []

        async def work():
            try:
                await clock.yield_now()
                await asyncio.sleep(1)
                await asyncio.Event().wait()
            finally:
                seen.append(colour.get())
                await asyncio.sleep(0)
                seen.append(colour.get())

        async def run():
            with anyio.move_on_after(5):
                await step(context_with("red"), work())

        def check():
            assert set(seen) <= {"red"}

        return Trial(run(), check)

    assert cancel_everywhere(factory, minimum=3).positions >= 3


@in_steps
def test_an_error_can_be_handled_inside(step):
    def factory(fault):
        async def work():
            try:
                await clock.yield_now()
                fault()
            finally:
                assert colour.get() == "red"

        return step(context_with("red"), work())

    assert fail_everywhere(lambda fault: wrapped(factory(fault))).positions == 1


async def wrapped(awaitable):
    return await awaitable


@in_steps
def test_closing_closes_the_work_inside_the_context(step):
    closed = []

    async def work():
        try:
            await clock.yield_now()
        finally:
            closed.append(colour.get())

    stepping = wrapped(step(context_with("red"), work()))
    stepping.send(None)
    stepping.close()
    assert closed == ["red"]


async def test_one_after_the_other_whatever_becomes_of_each():
    steps: Steps[str] = Steps()
    rest = 0

    async def work(value):
        if value == "late":
            await clock.yield_now()
        if value == "broken":
            raise KeyError(value)
        return f"{value} {colour.get()}"

    for value in ("at once", "broken", "late", "broken", "at once"):
        variables = context_with("red")
        with pytest.raises(KeyError) if value == "broken" else nullcontext():
            awaited = variables.run(steps.send, work(value))
            if awaited is not steps:
                rest += 1
                await steps.rest(variables, awaited)
            assert steps.result == f"{value} red"
    assert rest == 1
    assert colour.get() == "none"


def test_correlation_travels_and_ends_with_its_block():
    assert correlation_id() is None
    with bind_correlation("abc") as outer:
        assert outer == correlation_id() == "abc"
        with bind_correlation() as inner:
            assert correlation_id() == inner != "abc"
            assert len(inner) == 24
        assert correlation_id() == "abc"
    assert correlation_id() is None


def test_a_binding_is_in_force_once_at_a_time():
    binding = bind_correlation("abc")
    with binding:
        with pytest.raises(RuntimeError, match="in force already"), binding:
            pass
        assert correlation_id() == "abc"
    with binding:
        assert correlation_id() == "abc"
    assert correlation_id() is None
    binding.__exit__(None, None, None)  # harmless when it is not in force


def test_the_earliest_deadline_holds():
    assert deadline() is remaining() is None
    now = clock.monotonic()
    with bind_deadline(now + 10):
        assert deadline() == now + 10
        assert remaining() == pytest.approx(10, abs=0.5)
        with bind_deadline(now + 20):
            assert deadline() == now + 10
        with bind_deadline(None):
            assert deadline() == now + 10
        with bind_deadline(now + 5):
            assert deadline() == now + 5
    with bind_deadline(None):
        assert deadline() is None


def test_a_deadline_can_be_forgotten():
    def work():
        with bind_deadline(clock.monotonic() + 10):
            forget_deadline()
            return deadline()

    assert copy_context().run(work) is None


def test_a_deadline_without_a_block():
    now = clock.monotonic()
    outer = push_deadline(now + 10)
    assert push_deadline(now + 20) is None
    inner = push_deadline(now + 5)
    assert deadline() == now + 5
    pop_deadline(inner)
    pop_deadline(None)
    assert deadline() == now + 10
    pop_deadline(outer)
    assert deadline() is None


def test_the_handlers_context_tells_what_remains():
    assert Context().remaining is None
    context = Context(attempt=2, deadline=clock.monotonic() + 5, correlation_id="abc", hops=1)
    assert context.remaining == pytest.approx(5, abs=0.5)
    assert (context.attempt, context.correlation_id, context.hops) == (2, "abc", 1)
    assert context.state == {}


def test_ids_differ():
    assert len({new_id() for _ in range(1000)}) == 1000


@pytest.mark.promise("core-bad-input")
def test_senseless_bindings_are_refused():
    with pytest.raises(ValueError, match="id must be a non-empty string"):
        bind_correlation("")
    with pytest.raises(ValueError, match="at must be a number, not nan"):
        bind_deadline(math.nan)
    wrong: Any = [5]
    with pytest.raises(TypeError, match="id must be a non-empty string"):
        bind_correlation(wrong)
    with pytest.raises(TypeError, match="at must be a number"):
        bind_deadline(wrong)


async def test_closing_steps_close_what_would_swallow_its_cancellation():
    log = []

    async def swallows():
        try:
            while True:
                try:
                    await clock.sleep(1000)
                except asyncio.CancelledError:
                    log.append("swallowed")
        finally:
            log.append("closed")

    steps, variables = Steps[None](), copy_context()

    async def work():
        awaited = variables.run(steps.send, swallows())
        await steps.rest(variables, awaited)

    task = asyncio.create_task(work())
    for _ in range(3):
        await clock.yield_now()
    task.cancel()
    for _ in range(3):
        await clock.yield_now()
    assert (log, task.done()) == (["swallowed"], False)
    steps.closing = True
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert log == ["swallowed", "closed"]


def test_what_is_adopted_is_bound_for_good_in_its_context():
    def inside() -> None:
        adopt("seventeen", 5.0)
        assert (correlation_id(), deadline()) == ("seventeen", 5.0)
        adopt(None, None)
        assert (correlation_id(), deadline()) == ("seventeen", 5.0)
        adopt("eighteen", 9.0)  # a later deadline as well: the work is another's
        assert (correlation_id(), deadline()) == ("eighteen", 9.0)

    copy_context().run(inside)
    assert (correlation_id(), deadline()) == (None, None)


def test_a_correlation_without_a_block():
    with bind_correlation("outer"):
        token = push_correlation("inner")
        assert correlation_id() == "inner"
        pop_correlation(token)
        assert correlation_id() == "outer"
