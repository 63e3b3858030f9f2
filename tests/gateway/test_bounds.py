from __future__ import annotations

import asyncio

import pytest

from aiopatterns.core.clock import Home, monotonic, sleep
from aiopatterns.gateway.bounds import Bound, Budgets
from aiopatterns.testing import Trial, cancel_everywhere, simulate


def test_a_block_ends_when_its_time_is_over():
    async def run() -> float:
        with Bound(Home(), Budgets().of(5.0)):
            await asyncio.Event().wait()
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        return monotonic()

    assert simulate(run) == 5.0


def test_a_block_that_ends_in_time_is_left_alone():
    async def run() -> str:
        home, alarms = Home(), Budgets().of(5.0)
        with Bound(home, alarms):
            await sleep(4.0)
        with pytest.raises(KeyError), Bound(home, alarms):
            raise KeyError
        await sleep(10.0)
        return "undisturbed"

    assert simulate(run) == "undisturbed"


def test_it_may_begin_anew_with_another_time():
    async def run() -> float:
        home, budgets = Home(), Budgets()
        with Bound(home, budgets.of(5.0)) as bound:
            await sleep(4.0)
            bound.move(budgets.of(2.0))
            await sleep(1.0)
            bound.move(budgets.of(2.0))
            await asyncio.Event().wait()
        at = monotonic()
        bound.move(budgets.of(2.0))  # it has ended
        await sleep(10.0)
        return at

    assert simulate(run) == 7.0


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_cancellation_from_elsewhere_passes_also_in_the_same_turn(first: str):
    async def work() -> None:
        with Bound(Home(), Budgets().of(5.0)):
            await asyncio.Event().wait()

    async def run() -> bool:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(work())
        if first == "ours":
            await asyncio.sleep(0)
        loop.call_later(5.0, task.cancel)
        await asyncio.wait((task,))
        return task.cancelled()

    assert simulate(run)


def test_cancelled_at_any_await_nothing_is_left():
    def scenario() -> Trial:
        alarms = Budgets().of(5.0)

        async def work() -> None:
            with Bound(Home(), alarms):
                await sleep(1.0)
                await sleep(1.0)

        return Trial(work(), lambda: None if not alarms._armed else pytest.fail("it is armed"))

    cancel_everywhere(scenario, minimum=2)


async def test_waits_of_one_length_share_a_timer_however_many_lengths_there_are():
    budgets = Budgets()
    first = budgets.of(1.0)
    assert budgets.of(1.0) is first
    for seconds in range(2, 2_000):
        budgets.of(float(seconds))
    assert len(budgets._alarms) <= 256
    assert budgets.of(1.0) is not first
