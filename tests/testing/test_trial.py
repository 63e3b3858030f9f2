from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import pytest

from aiopatterns.testing import Trial, Visited
from aiopatterns.testing.trial import ended, run_trial, small_heap


class Unclosed:
    """An owner as they should be: it warns if nobody closes it."""

    def __del__(self):
        warnings.warn("nobody closed me", ResourceWarning, source=self, stacklevel=1)


async def nothing():
    await asyncio.sleep(1)


async def plainly(work):
    await work


def failing(factory, drive=plainly):
    with pytest.raises(AssertionError) as caught:
        run_trial(factory, drive, seed=1)
    return str(caught.value)


def test_a_clean_run_passes_and_is_checked():
    checked = []

    async def check_later():
        await asyncio.sleep(1)
        checked.append(asyncio.get_running_loop().time())

    run_trial(nothing, plainly, seed=1)
    run_trial(lambda: Trial(nothing()), plainly, seed=1)
    run_trial(lambda: Trial(nothing(), lambda: checked.append(0)), plainly, seed=1)
    run_trial(lambda: Trial(nothing(), check_later), plainly, seed=1)
    assert checked == [0, 2]


def test_a_check_that_fails_fails_the_run():
    def check():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_trial(lambda: Trial(nothing(), check), plainly, seed=1)


def test_a_task_left_alive_is_found_before_the_check():
    async def work():
        kept.append(asyncio.create_task(nothing(), name="forgotten"))

    kept: list = []
    assert "1 task(s) left alive:\n    forgotten" in failing(lambda: Trial(work(), kept.clear))
    assert kept


def test_a_timer_left_set_is_found():
    async def work():
        asyncio.get_running_loop().call_later(5, print)

    assert failing(work) == "1 timer(s) left set:\n    print() at 5"


def test_errors_warnings_and_forgotten_coroutines_are_found_also_in_cycles():
    async def fail():
        raise ZeroDivisionError

    async def work():
        task = asyncio.create_task(fail())
        cycle = [task, Unclosed(), nothing()]
        cycle.append(cycle)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    lines = failing(work).splitlines()
    assert lines[0] == "3 complaint(s) that nobody saw:"
    assert sorted(line.strip() for line in lines[1:]) == [
        "ResourceWarning: nobody closed me",
        "RuntimeWarning: coroutine 'nothing' was never awaited",
        "Task exception was never retrieved: ZeroDivisionError()",
    ]


def test_what_nobody_saw_is_a_note_on_another_error():
    async def work():
        Unclosed()
        raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        run_trial(work, plainly, seed=1)
    assert "ResourceWarning: nobody closed me" in caught.value.__notes__[0]


def test_other_warnings_go_their_way():
    async def work():
        warnings.warn("look", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="look"):
        run_trial(work, plainly, seed=1)


def test_ended_gives_the_error_of_the_work():
    async def fail():
        raise ZeroDivisionError

    async def give_up():
        raise asyncio.CancelledError

    async def drive(work):
        assert await ended(nothing()) is None
        assert isinstance(await ended(fail()), ZeroDivisionError)
        assert isinstance(await ended(give_up()), asyncio.CancelledError)
        await work

    run_trial(nothing, drive, seed=1)


def test_a_small_heap_keeps_what_exists_out_of_collections():
    with pytest.raises(ZeroDivisionError), small_heap():
        assert gc.get_freeze_count() > 1000
        raise ZeroDivisionError
    assert gc.get_freeze_count() == 0


@pytest.mark.promise("testing-bad-input")
def test_bad_trials_are_refused():
    wrong: Any = nothing
    number: Any = 3
    with pytest.raises(TypeError, match=r"work must be a fresh coroutine, not <function nothing"):
        Trial(wrong)
    work = nothing()
    with pytest.raises(TypeError, match="check must be a function, not 3"):
        Trial(work, number)
    work.close()
    with pytest.raises(
        TypeError, match=r"factory must return a fresh coroutine or a Trial.* not 3"
    ):
        run_trial(lambda: 3, plainly, seed=1)


def test_visited_is_a_record():
    assert Visited(positions=3, runs=7) == Visited(3, 7)
    assert hash(Visited(3, 7)) == hash(Visited(3, 7))
