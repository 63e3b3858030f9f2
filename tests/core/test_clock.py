"""One source of time and chance, and alarms that share one timer."""

from __future__ import annotations

import asyncio
import math
import os
import random
import time

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core import clock
from aiopatterns.core.clock import Alarms, ClockSource
from aiopatterns.core.context import bind_deadline, new_id, remaining
from aiopatterns.core.windows import TimeWindow
from aiopatterns.testing import cancel_everywhere, simulate


@pytest.mark.promise("core-virtual-time")
def test_one_source_moves_everything():
    async def an_hour():
        window, rung = TimeWindow(60.0), []
        window.record()
        clock.call_later(1800, lambda: rung.append(clock.monotonic()))
        with bind_deadline(clock.monotonic() + 3600):
            await clock.sleep(1800)
            await clock.sleep_until(clock.monotonic() + 900)
            await anyio.sleep(900)
            return clock.monotonic(), remaining(), window.totals().calls, rung, new_id()

    before = time.monotonic()
    first, second = simulate(an_hour, seed=7), simulate(an_hour, seed=7)
    assert first[:4] == (3600, 0, 0, [1800])
    assert first == second  # the ids too
    assert first[4] != simulate(an_hour, seed=8)[4]
    assert time.monotonic() - before < 5


def test_the_source_can_be_replaced_and_put_back():
    mine = ClockSource(lambda: 5.0, lambda: 6.0, random.Random(1))
    imported_before, text = clock.monotonic, clock.monotonic.__doc__
    previous = clock.set_source(mine)
    try:
        assert (clock.monotonic(), clock.wall()) == (5.0, 6.0)
        assert (imported_before(), imported_before.__doc__) == (5.0, text)
        assert clock.rng() is mine.random
    finally:
        assert clock.set_source(previous) is mine
    assert abs(clock.wall() - time.time()) < 60
    assert abs(clock.monotonic() - time.monotonic()) < 60


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_seeded_dice_roll_the_same_and_are_nobody_elses():
    first, second = clock.seeded(7), clock.seeded(7)
    clock.rng().random()
    assert [first.random() for _ in range(3)] == [second.random() for _ in range(3)]
    assert clock.seeded().random() != clock.seeded().random()


def test_a_forked_child_makes_ids_of_its_own():
    def child_id():
        reader, writer = os.pipe()
        if not (pid := os.fork()):
            os.write(writer, new_id().encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            return pipe.read()

    ids = [child_id(), child_id(), new_id()]
    assert len(set(ids)) == 3
    assert all(len(each) == 24 for each in ids)


async def test_a_sleep_of_nothing_is_one_turn_of_the_loop():
    order = []

    async def other():
        order.append("other")

    for wait in (clock.sleep(0), clock.sleep(-5), clock.sleep_until(-5), clock.yield_now()):
        order.clear()
        task = asyncio.create_task(other())
        await wait
        order.append("me")
        await task
        assert order == ["other", "me"]


def test_sleeping_can_be_cancelled():
    async def work():
        await clock.yield_now()
        await clock.sleep(1)
        await clock.sleep_until(clock.monotonic() + 1)

    assert cancel_everywhere(work, minimum=3).positions == 3


async def test_a_late_call_can_be_cancelled():
    handle = clock.call_later(0.0, pytest.fail)
    handle.cancel()
    called = asyncio.Event()
    clock.call_later(-1.0, called.set)
    await called.wait()


async def test_home_is_the_loop_on_which_it_was_made():
    home = clock.Home()
    assert home.here
    assert home.future().get_loop() is asyncio.get_running_loop()
    home.future().cancel()


@pytest.mark.real
async def test_home_is_not_another_thread():
    home = clock.Home()
    assert not await asyncio.to_thread(lambda: home.here)


def test_home_is_not_another_loop():
    async def make() -> clock.Home:
        return clock.Home()

    with asyncio.Runner() as runner:
        home = runner.run(make())
        assert not home.here


class Call:
    """Something with a budget, and the time at which it was told that it is over."""

    def __init__(self):
        self.rung = None

    def expire(self):
        assert self.rung is None
        self.rung = clock.monotonic()


def timers_of(loop):
    return [each for each in loop._scheduled if not each.cancelled()]


def test_alarms_ring_in_time_on_one_timer():
    async def run():
        loop = asyncio.get_running_loop()
        alarms, calls = Alarms(10.0), [Call() for _ in range(5)]
        assert alarms.serves()
        for number, call in enumerate(calls):
            assert alarms.arm(call.expire) == number + 10
            await clock.sleep(1)
        assert len(timers_of(loop)) == 1
        alarms.disarm(calls[1].expire)
        alarms.disarm(calls[1].expire)
        await clock.sleep(60)
        alarms.disarm(calls[0].expire)  # harmless: it has rung
        assert not timers_of(loop)
        return [call.rung for call in calls]

    assert simulate(run) == [10, None, 12, 13, 14]


def test_an_alarm_may_arm_another_while_it_rings():
    async def run():
        alarms, rung = Alarms(10.0), []

        def again():
            rung.append(clock.monotonic())
            if len(rung) < 3:
                alarms.arm(again)

        alarms.arm(again)
        await clock.sleep(4)
        late = Call()
        alarms.arm(late.expire)
        await clock.sleep(60)
        assert late.rung == 14
        assert alarms._timer is None
        return rung

    assert simulate(run) == [10, 20, 30]


def test_alarms_without_a_budget_ring_at_once():
    async def run():
        alarms, call = Alarms(0), Call()
        alarms.arm(call.expire)
        await clock.sleep(0)
        await clock.sleep(0)
        return call.rung

    assert simulate(run) == 0


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 30)), max_size=20))
def test_alarms_against_a_timer_for_each_call(history):
    async def run():
        alarms = Alarms(10.0)

        async def one(pause, length, call):
            await clock.sleep(pause)
            start = clock.monotonic()
            alarms.arm(call.expire)
            await clock.sleep(length)
            alarms.disarm(call.expire)
            if length < 9.999:
                assert call.rung is None
            elif length > 10.001:
                assert call.rung == pytest.approx(start + 10)

        async with anyio.create_task_group() as tasks:
            for pause, length in history:
                tasks.start_soon(one, pause, length, Call())

    simulate(run)


def test_alarms_belong_to_their_loop():
    async def make():
        return Alarms(1.0)

    alarms = simulate(make)

    async def serves():
        return alarms.serves()

    assert not simulate(serves)


@pytest.mark.promise("core-bad-input")
@pytest.mark.parametrize(
    ("wrong", "error"), [(math.nan, ValueError), ("1", TypeError), (None, TypeError)], ids=repr
)
async def test_senseless_times_are_refused(wrong, error):
    with pytest.raises(error, match="seconds must be a number"):
        await clock.sleep(wrong)
    with pytest.raises(error, match="delay must be a number"):
        clock.call_later(wrong, pytest.fail)
    with pytest.raises(error, match="seconds must be a finite number >= 0"):
        Alarms(wrong)


@pytest.mark.promise("core-bad-input")
@pytest.mark.parametrize("wrong", [None, 5], ids=repr)
def test_only_a_source_replaces_the_source(wrong):
    with pytest.raises(TypeError, match="source must be a ClockSource"):
        clock.set_source(wrong)


async def test_an_interrupt_is_told_apart_from_other_cancellations():
    async def work(how: str) -> str:
        interrupt = clock.Interrupt()
        assert not interrupt.took(None)
        asyncio.get_running_loop().call_soon(interrupt.fire)
        if how == "both":
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)
        try:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                interrupt.fire()  # once is all
                if how == "other":
                    raise KeyError from None
                if how != "swallowed":
                    raise
        except BaseException as error:
            if not interrupt.took(error):
                raise
            return "taken"
        assert not interrupt.took(None)
        return "ended"

    assert await work("taken") == "taken"
    assert await work("swallowed") == "ended"
    with pytest.raises(KeyError):
        await work("other")
    await asyncio.sleep(0)  # nothing is left to be delivered
    inner = asyncio.ensure_future(work("both"))
    with pytest.raises(asyncio.CancelledError):
        await inner
    assert inner.cancelled()


async def test_an_interrupt_needs_a_task():
    found: list[BaseException] = []

    def make() -> None:
        try:
            clock.Interrupt()
        except RuntimeError as error:
            found.append(error)

    asyncio.get_running_loop().call_soon(make)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert "is made in the task" in str(found[0])
