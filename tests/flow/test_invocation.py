"""Calls of a task's function: arguments, threads, and the two limits of time."""

from __future__ import annotations

import asyncio
import threading
import warnings
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import remaining
from aiopatterns.core.errors import TimeoutExceededError
from aiopatterns.flow.invocation import Invocations
from aiopatterns.flow.node import Node
from aiopatterns.flow.task import Given, Task
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry, Until
from aiopatterns.testing import simulate


def begun(fn, *, attempts=1, **options: Any) -> Node:
    arguments = options.pop("args", {})
    node = Node(Task(fn, **options), {k: Given(v) for k, v in arguments.items()}, (0, 0, 0), 0)
    for _ in range(attempts):
        node.begin()
    return node


def value_of(source: Any) -> object:
    return source.value


def calls(limit=1):
    return Invocations(limit, value_of)


def add(x, y):
    return x + y


async def add_here(x, y):
    return x + y


def add_later(x, y):
    return add_here(x, y)


@pytest.mark.parametrize("fn", [add, add_here, add_later])
async def test_arguments_and_both_kinds_of_functions(fn):
    assert await calls().call(begun(fn, args={"x": 1, "y": 2})) == 3


@pytest.mark.real
async def test_no_more_threads_than_the_limit():
    running = most = 0
    lock = threading.Lock()

    def work():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1

    invocations = calls(limit=2)
    await asyncio.gather(*(invocations.call(begun(work)) for _ in range(6)))
    assert most == 2


def test_the_time_of_an_attempt_and_of_all_together():
    async def scenario():
        retry = Retry(on=OSError, until=Until(total=5))

        async def slow():
            left.append(remaining())
            await sleep(100)

        left: list[float | None] = []
        with pytest.raises(TimeoutExceededError, match="task 'slow' took longer than 2 s"):
            await calls().call(begun(slow, timeout=2))
        node = begun(slow, retry=retry, timeout=9)
        with pytest.raises(TimeoutExceededError, match="timed out after 5 s"):
            await calls().call(node)
        assert monotonic() == 7
        with pytest.raises(TimeoutExceededError, match="timed out after 5 s"):
            await calls().call(node)
        assert left == [None, 5], "the last was not begun"

    simulate(scenario)


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_retry_inside_a_retry_is_seen(attempts):
    async def fail():
        raise OSError

    fn = Retry(on=OSError, attempts=2, backoff=Constant(0)).wrap(fail)
    with warnings.catch_warnings(record=True) as caught, pytest.raises(OSError):
        warnings.simplefilter("always")
        await calls().call(begun(fn, attempts=attempts))
    assert len(caught) == attempts - 1


@pytest.mark.real
async def test_a_late_result_of_a_thread_counts():
    release = threading.Event()

    def slow():
        release.wait(10)
        return "late"

    async def let_go():
        await anyio.sleep(0.05)
        release.set()

    async with anyio.create_task_group() as group:
        group.start_soon(let_go)
        assert await calls().call(begun(slow, timeout=0.01)) == "late"
