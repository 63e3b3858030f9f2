from __future__ import annotations

import asyncio

import anyio
import pytest

from aiopatterns.testing import InjectedError, Trial, Visited, fail_everywhere


def failing(factory, error=AssertionError, **options):
    with pytest.raises(error) as caught:
        fail_everywhere(factory, **options)
    return str(caught.value), caught.value.__notes__[-1]


@pytest.mark.promise("testing-positions")
def test_every_call_fails_once_and_the_calls_are_reported(capsys):
    seen = []

    def scenario(fault):
        failed = []

        async def work():
            for number in range(3):
                try:
                    fault()
                except InjectedError as error:
                    failed.append((number, str(error)))
                await asyncio.sleep(1)

        return Trial(work(), lambda: seen.append(failed))

    assert fail_everywhere(scenario, minimum=3) == Visited(positions=3, runs=4)
    assert seen == [
        [],
        [(0, "call 1 of fault()")],
        [(1, "call 2 of fault()")],
        [(2, "call 3 of fault()")],
    ]
    out = capsys.readouterr().out
    assert out == f"fail_everywhere({scenario.__qualname__}): 3 positions, 4 runs\n"
    with pytest.raises(AssertionError, match=r"called fault\(\) 3 times, expected at least 4"):
        fail_everywhere(scenario, minimum=4)
    with pytest.raises(AssertionError, match=r"called fault\(\) 0 times, expected at least 1"):
        fail_everywhere(lambda _: asyncio.sleep(0))
    assert fail_everywhere(lambda _: asyncio.sleep(0), minimum=0) == Visited(0, 1)


def test_the_injected_error_may_leave_in_any_guise():
    async def bare(fault):
        fault()

    async def grouped(fault):
        async with anyio.create_task_group() as group:
            group.start_soon(bare, fault)

    async def caused(fault):
        try:
            fault()
        except InjectedError as error:
            raise KeyError from error

    async def in_context(fault):
        try:
            fault()
        except InjectedError:
            raise KeyError

    for scenario in (bare, grouped, caused, in_context):
        assert fail_everywhere(scenario) == Visited(positions=1, runs=2)


def test_another_error_is_a_failure():
    async def work(fault):
        try:
            fault()
        except InjectedError:
            pass
        else:
            return
        raise KeyError("mine")

    def scenario(fault):
        async def outer():
            try:
                await asyncio.create_task(work(fault))
            except KeyError as error:
                error.__context__ = None
                raise

        return outer()

    message, note = failing(scenario, KeyError)
    assert (message, note) == ("'mine'", "call 1 of fault() failed, seed 0")


def test_an_error_of_the_undisturbed_work_is_reported_as_such():
    async def work(fault):
        raise InjectedError

    _, note = failing(work, InjectedError, seed=4)
    assert note == "undisturbed, seed 4"


def test_work_that_cancels_itself_is_a_failure():
    async def work(fault):
        try:
            fault()
        except InjectedError:
            raise asyncio.CancelledError from None

    def scenario(fault):
        async def outer():
            task = asyncio.create_task(work(fault))
            await asyncio.wait([task])
            if task.cancelled():
                raise asyncio.CancelledError

        return outer()

    message, _ = failing(scenario)
    assert message == "the work was cancelled, but not by this test"


def test_what_is_left_after_a_failure_is_found():
    async def work(fault):
        task = asyncio.create_task(asyncio.sleep(1), name="forgotten")
        fault()
        await task

    message, note = failing(work)
    assert message.startswith("1 task(s) left alive:\n    forgotten")
    assert note == "call 1 of fault() failed, seed 0"


def test_the_check_is_called_and_its_failure_says_which_call():
    def scenario(fault):
        permits = [1]

        async def work():
            permits.pop()
            await asyncio.sleep(1)
            fault()
            permits.append(1)

        def check():
            assert permits

        return Trial(work(), check)

    assert failing(scenario)[1] == "call 1 of fault() failed, seed 0"


def test_a_scenario_that_is_not_made_afresh_is_found():
    runs: list = []

    async def work(fault):
        runs.append(True)
        if len(runs) == 1:
            fault()

    message, _ = failing(work)
    assert message.endswith("the scenario must be made afresh")


@pytest.mark.promise("testing-bad-input")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"factory": 3}, TypeError, "factory must be a function, not 3"),
        ({"minimum": -1}, ValueError, "minimum must be a whole number >= 0, not -1"),
        ({"minimum": 1.5}, TypeError, "minimum must be a whole number >= 0, not 1.5"),
        ({"seed": -1}, ValueError, "seed must be a whole number >= 0, not -1"),
    ],
)
def test_bad_input_is_refused(options, error, message):
    made: list = []
    with pytest.raises(error, match=message):
        fail_everywhere(**{"factory": made.append} | options)
    assert not made


@pytest.mark.promise("testing-bad-input")
def test_a_factory_that_makes_no_coroutine_is_refused():
    with pytest.raises(TypeError, match="factory must return a fresh coroutine or a Trial"):
        fail_everywhere(lambda fault: None)


async def test_async_code_is_refused():
    with pytest.raises(RuntimeError, match="call it from a plain function"):
        fail_everywhere(lambda fault: asyncio.sleep(1))
