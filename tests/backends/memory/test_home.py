from __future__ import annotations

import pytest

from aiopatterns.backends.memory.home import MemoryHome
from aiopatterns.core.clock import ClockSource, monotonic, rng, set_source, sleep, wall
from aiopatterns.core.errors import ClosedError
from aiopatterns.testing import simulate


def test_a_closed_home_says_how_to_open_it():
    home = MemoryHome()
    for use in (home.require_open, home.time, home.leave):
        with pytest.raises(
            ClosedError, match="backend memory:// is not open; use it inside 'async"
        ):
            use()
    assert not home.is_open


def test_entries_are_counted_and_it_opens_again():
    home = MemoryHome()
    for _ in range(2):
        home.enter()
        home.enter()
        home.leave()
        home.require_open()
        assert home.is_open
        home.leave()
        assert not home.is_open


def test_closing_tells_everybody_once():
    home, told = MemoryHome(), []
    home.enter()

    def one() -> None:
        told.append(1)

    def other() -> None:
        told.append(2)

    home.on_close(one)
    home.on_close(one)
    home.on_close(other)
    home.forget(other)
    home.forget(other)
    home.leave()
    home.enter()
    home.leave()
    assert told == [1]


async def test_time_is_wall_time_that_goes_on_by_the_monotonic_clock():
    home = MemoryHome()
    before = wall()
    home.enter()
    began, first = home.now(), home.time()
    assert before - 0.001 <= first <= wall() + 0.001
    await sleep(0.002)
    passed = home.time() - first
    assert 0.0005 < passed < home.now() - began + 1e-4


def test_a_jump_of_the_wall_clock_changes_nothing():
    jumps = iter([1_000.0, 9e9])
    previous = set_source(ClockSource(monotonic, wall, rng()))
    try:
        now = 50.0
        set_source(ClockSource(lambda: now, lambda: next(jumps), previous.random))
        home = MemoryHome()
        home.enter()
        assert home.time() == 1_000.0
        now = 51.0
        assert home.time() == 1_001.0
        home.leave()
        home.enter()
        assert home.time() == 1_001.0
    finally:
        set_source(previous)


def test_time_goes_on_where_it_was_in_the_next_simulated_loop():
    home = MemoryHome()

    async def hour() -> tuple[float, float]:
        home.enter()
        began = home.now()
        await sleep(3600)
        ended = home.now()
        home.leave()
        return began, ended

    assert simulate(hour) == (0.0, 3600.0)
    assert simulate(hour) == (3600.0, 7200.0)
