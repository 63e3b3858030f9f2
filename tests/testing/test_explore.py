from __future__ import annotations

import asyncio
import re
from typing import Any

import anyio
import pytest

from aiopatterns.testing import DeadlockError, SimLoop, explore, simulate
from aiopatterns.testing.explore import asked_seeds, run_on


@pytest.fixture
def no_sweep():
    """These tests name their seeds, whatever the command line asks for."""
    token = asked_seeds.set(None)
    yield
    asked_seeds.reset(token)


pytestmark = pytest.mark.usefixtures("no_sweep")


async def hasty():
    """A race that asyncio's own order hides: one turn is taken for time enough to start."""
    ready = []

    async def server(name):
        ready.append(name)

    async with anyio.create_task_group() as group:
        for name in range(2):
            group.start_soon(server, name)
        await asyncio.sleep(0)
        assert ready == [0, 1], ready


def seed_now():
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    return loop.seed


def test_simulate_gives_the_result():
    async def add():
        await anyio.sleep(1)
        return 1 + 1

    assert simulate(add) == 2
    assert simulate(add, 5) == 2


@pytest.mark.promise("testing-replay")
def test_explore_finds_a_race_that_asyncio_hides_and_its_seed_replays_it():
    asyncio.run(hasty())
    simulate(hasty)
    with pytest.raises(ExceptionGroup) as caught:
        explore(hasty, range(200))
    [note] = caught.value.__notes__
    found = re.search(
        r"^under seed (\d+) \(trace ([0-9a-f]{16})\); replay it with "
        r"simulate\(hasty, seed=(\d+)\), or under pytest with --sim-seed=(\d+)$",
        note,
    )
    assert found is not None
    seed = int(found[1])
    assert seed > 0
    assert found[1] == found[3] == found[4]
    for _ in range(3):
        loop = SimLoop(seed)
        with pytest.raises(ExceptionGroup) as again:
            run_on(loop, hasty)
        assert repr(again.value) == repr(caught.value)
        assert loop.trace == found[2]


def test_explore_runs_every_seed_and_returns_nothing():
    seen = []

    async def scenario():
        seen.append(seed_now())

    explore(scenario, [5, 3])
    explore(scenario, iter(range(3)))
    assert seen == [5, 3, 0, 1, 2]


def test_explore_stops_at_the_first_seed_that_fails():
    seen = []

    async def scenario():
        seen.append(seed_now())
        assert len(seen) < 3

    with pytest.raises(AssertionError):
        explore(scenario, range(10))
    assert seen == [0, 1, 2]


def test_seeds_of_the_command_line_take_the_place_of_those_in_the_code():
    seen = []

    async def scenario():
        seen.append(seed_now())

    asked_seeds.set(range(7, 9))
    explore(scenario, range(200))
    assert seen == [7, 8]


def test_a_function_without_a_name_is_shown():
    class Scenario:
        def __call__(self):
            return asyncio.Event().wait()

        def __repr__(self):
            return "<my scenario>"

    with pytest.raises(DeadlockError) as caught:
        explore(Scenario(), [4])
    assert "simulate(<my scenario>, seed=4)" in caught.value.__notes__[0]


@pytest.mark.promise("testing-bad-input")
@pytest.mark.parametrize("bad", [None, 3, "fn"])
def test_what_is_no_function_is_refused(bad):
    with pytest.raises(TypeError, match=f"fn must be a function, not {bad!r}"):
        simulate(bad)
    with pytest.raises(TypeError, match=f"fn must be a function, not {bad!r}"):
        explore(bad, range(3))


@pytest.mark.promise("testing-bad-input")
def test_what_is_no_async_function_without_arguments_is_refused():
    plain: Any = lambda: 3
    with pytest.raises(TypeError, match="fn must be an async function without arguments"):
        simulate(plain)

    async def wants(argument):
        raise AssertionError

    needs: Any = wants

    with pytest.raises(TypeError, match="argument"):
        simulate(needs)


@pytest.mark.promise("testing-bad-input")
def test_bad_seeds_are_refused():
    ran = []
    number: Any = 200
    text: Any = "123"

    async def scenario():
        ran.append(True)

    with pytest.raises(ValueError, match=r"seed must be a whole number >= 0, not -1"):
        simulate(scenario, -1)
    with pytest.raises(TypeError, match=r"seeds must be an iterable of whole numbers.*, not 200"):
        explore(scenario, number)
    with pytest.raises(ValueError, match="seeds must hold at least one seed"):
        explore(scenario, [])
    with pytest.raises(TypeError, match=r"seed must be a whole number >= 0, not '1'"):
        explore(scenario, text)
    assert not ran


async def test_a_simulation_inside_async_code_is_refused():
    for call in (lambda: simulate(asyncio.Event().wait), lambda: explore(hasty, [1])):
        with pytest.raises(RuntimeError, match="call it from a plain function"):
            call()
