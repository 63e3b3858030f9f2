from __future__ import annotations

import asyncio
from contextvars import copy_context
from types import coroutine

from aiopatterns.core.context import run_in
from aiopatterns.testing import simulate
from aiopatterns.testing.stacks import await_chain, describe_tasks, innermost


async def deep(level):
    if level:
        await deep(level - 1)
    await asyncio.Event().wait()


@coroutine
def by_generator(awaitable):
    return (yield from awaitable.__await__())


async def numbers():
    await by_generator(deep(0))
    yield 1


async def over_generators():
    async for _ in numbers():
        pass


async def stepped():
    await run_in(copy_context(), deep(0))


def chain(fn):
    """Names of the functions in which a task of ``fn`` waits."""

    async def scenario():
        task = asyncio.create_task(fn(), name="watched")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        found = [*await_chain(task.get_coro())], innermost(task.get_coro()), describe_tasks([task])
        task.cancel()
        await asyncio.wait([task])
        return found

    return simulate(scenario)


def names(places):
    return [place.rpartition(" in ")[2].rpartition(".")[2] for place in places]


def test_the_chain_goes_down_to_the_innermost_frame():
    places, place, text = chain(lambda: deep(2))
    assert names(places) == ["deep", "deep", "deep", "wait"]
    assert places[0].startswith("testing/test_stacks.py:")
    assert place == places[-1]
    assert "asyncio/locks.py:" in place
    assert text == "\n      ".join(["    watched", *places])


def test_generators_and_async_generators_are_links():
    places, _, _ = chain(over_generators)
    assert names(places)[:2] == ["over_generators", "numbers"]
    assert names(places)[-2:] == ["deep", "wait"]
    assert "by_generator" in names(places)


def test_a_coroutine_that_is_stepped_by_hand_is_followed():
    places, _, _ = chain(stepped)
    assert names(places) == ["stepped", "run_in", "deep", "wait"]


def test_what_has_ended_or_is_no_coroutine_has_no_chain():
    async def nothing():
        pass

    async def scenario():
        task = asyncio.create_task(nothing(), name="over")
        await task
        return task

    task = simulate(scenario)
    assert [*await_chain(task.get_coro())] == []
    assert [*await_chain(object())] == []
    assert innermost(task.get_coro()) == "its end"
    assert describe_tasks([task]).startswith("    over\n      <coroutine object")
    assert describe_tasks([]) == "    none"


def test_tasks_are_listed_in_the_order_of_their_numbers():
    async def scenario():
        tasks = [asyncio.create_task(asyncio.sleep(1)) for _ in range(12)]
        text = describe_tasks({*tasks})
        await asyncio.gather(*tasks)
        return [line.strip() for line in text.splitlines() if "Task" in line]

    assert simulate(scenario) == [f"Task-{number}" for number in range(2, 14)]
