from __future__ import annotations

import asyncio
import functools
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import Alarms
from aiopatterns.testing import LeakGuard, leak_guard, simulate
from aiopatterns.testing.leaks import open_timers


async def fail():
    raise ZeroDivisionError("unseen")


@pytest.mark.promise("testing-leak-guard")
async def test_a_task_left_behind_is_found():
    release = asyncio.Event()
    guard = leak_guard()
    assert isinstance(guard, LeakGuard)
    await guard.__aenter__()
    task = asyncio.create_task(release.wait(), name="forgotten")
    await asyncio.sleep(0)
    with pytest.raises(AssertionError) as caught:
        await guard.__aexit__(None, None, None)
    assert str(caught.value).startswith(
        "1 task(s) left alive:\n    forgotten\n      asyncio/locks.py"
    )
    release.set()
    await task


async def test_a_block_that_leaves_nothing_passes():
    release = asyncio.Event()
    before = asyncio.create_task(release.wait())
    timer = asyncio.get_running_loop().call_later(3600, print)
    async with leak_guard():
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0.001)
        with anyio.move_on_after(3600):
            await anyio.sleep(0)
    timer.cancel()
    release.set()
    await before


async def test_a_guard_can_be_used_again():
    guard = leak_guard()
    async with guard:
        pass
    async with guard:
        pass


def test_a_timer_left_set_is_found_with_its_callback_and_time():
    async def scenario():
        loop = asyncio.get_running_loop()
        async with leak_guard():
            loop.call_later(5, print, "late", 1)
            loop.call_later(7, functools.partial(print))
            loop.call_later(9, print).cancel()

    with pytest.raises(AssertionError) as caught:
        simulate(scenario)
    assert str(caught.value).startswith("2 timer(s) left set:\n    print('late', 1) at 5\n    ")
    assert "functools.partial" in str(caught.value)
    assert str(caught.value).endswith("() at 7")


def test_a_shared_timer_without_a_call_is_no_leak():
    async def scenario():
        alarms = Alarms(10)
        async with leak_guard():
            alarms.arm(print)
            alarms.disarm(print)
        with pytest.raises(AssertionError, match=r"Alarms\._ring\(\) at 10"):
            async with leak_guard():
                alarms.disarm(print)
                await anyio.sleep(20)
                alarms.arm(fail)
                await anyio.sleep(0)
                raise AssertionError("Alarms._ring() at 10")

    simulate(scenario)


async def test_errors_that_nobody_retrieves_are_found():
    loop = asyncio.get_running_loop()
    handled = []
    loop.set_exception_handler(lambda _, context: handled.append(context["message"]))
    with pytest.raises(AssertionError) as caught:
        async with leak_guard():
            asyncio.create_task(fail())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            loop.call_exception_handler({"message": "something else"})
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 complaint(s) that nobody saw:"
    assert sorted(map(str.strip, lines[1:])) == [
        "Task exception was never retrieved: ZeroDivisionError('unseen')",
        "something else",
    ]
    assert not handled
    loop.call_exception_handler({"message": "the former handler is back"})
    assert handled == ["the former handler is back"]
    loop.set_exception_handler(None)


async def test_the_error_of_the_block_goes_on_and_gets_a_note():
    release = asyncio.Event()
    error = ZeroDivisionError()
    tasks = []
    with pytest.raises(ZeroDivisionError) as caught:
        async with leak_guard():
            tasks.append(asyncio.create_task(release.wait(), name="forgotten"))
            raise error
    assert caught.value is error
    assert "forgotten" in error.__notes__[0]
    release.set()
    await tasks[0]
    with pytest.raises(ZeroDivisionError) as caught:
        async with leak_guard():
            raise ZeroDivisionError
    assert not hasattr(caught.value, "__notes__")


def test_a_loop_that_shows_no_timers_has_none():
    class Opaque:
        pass

    opaque: Any = Opaque()
    assert open_timers(opaque) == []
