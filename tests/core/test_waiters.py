"""Waiting lines against a plain model: fair, and no wake-up is lost by any cancellation."""

from __future__ import annotations

import asyncio
import random

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core import clock
from aiopatterns.core.waiters import (
    Gate,
    PriorityWaiters,
    Waiters,
    cancel_count,
    cancel_requested,
    canceller,
    waiting_line,
)
from aiopatterns.testing import Trial, cancel_everywhere, explore, simulate

orders = pytest.mark.parametrize("order", ["fifo", "lifo", "priority"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, 3)),
        st.tuples(st.just("wake"), st.just(0)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("wake and cancel"), st.integers(0, 20)),
        st.tuples(st.just("turn"), st.just(0)),
    ),
    max_size=40,
)


class Model:
    """A plain list of who waits, and the rule who is next."""

    def __init__(self, order):
        self.order = order
        self.waiting = []

    def next(self):
        if self.order == "lifo":
            return self.waiting[-1]
        if self.order == "priority":
            return max(self.waiting, key=lambda each: (each[1], -each[0]))
        return self.waiting[0]


@orders
@given(steps)
@pytest.mark.promise("core-waiters-fair")
def test_who_is_woken_is_who_the_model_says(order, history):
    async def run():
        line, model = waiting_line(order), Model(order)
        tasks, served = {}, []

        async def wait(entry):
            await line.wait(priority=entry[1])
            served.append(entry)

        async def settle():
            for _ in range(3):
                await clock.yield_now()

        for number, (step, value) in enumerate(history):
            if step == "join":
                entry = (number, value)
                tasks[entry] = asyncio.create_task(wait(entry))
                model.waiting.append(entry)
                await settle()
            elif step == "turn":
                await settle()
            elif step == "wake" and model.waiting:
                chosen = model.next()
                assert line.wake()
                model.waiting.remove(chosen)
                await settle()
                assert served[-1] == chosen
            elif step == "wake":
                assert not line.wake()
            elif model.waiting:
                if step == "cancel":
                    chosen = model.waiting[value % len(model.waiting)]
                else:
                    chosen = model.next()
                    assert line.wake()
                tasks[chosen].cancel()
                model.waiting.remove(chosen)
                heir = model.next() if step == "wake and cancel" and model.waiting else None
                await settle()
                if heir is not None:  # the turn of the cancelled one is handed on
                    assert served[-1] == heir
                    model.waiting.remove(heir)
            assert len(line) == len(model.waiting)
        while model.waiting:
            chosen = model.next()
            assert line.wake()
            model.waiting.remove(chosen)
            await settle()
            assert served[-1] == chosen
        assert not line.wake()
        await asyncio.gather(*tasks.values(), return_exceptions=True)

    simulate(run)


@orders
@pytest.mark.promise("core-waiters-fair")
def test_permits_are_conserved_when_a_waiter_is_cancelled_anywhere(order):
    """A semaphore of one permit, granted by the waker and given back by ``lost``."""

    def factory():
        free, line, held = [1], waiting_line(order), []

        def release():
            if not line.wake():
                free[0] += 1

        async def use(name, priority):
            if free[0]:
                free[0] -= 1
            else:
                await line.wait(priority=priority, lost=release)
            held.append(name)
            assert len(held) == 1
            try:
                await clock.yield_now()
            finally:
                held.remove(name)
                release()

        async def work():
            async with asyncio.TaskGroup() as tasks:
                for name in range(3):
                    tasks.create_task(use(name, name))
                await clock.yield_now()
                await use("mine", 1)

        def check():
            assert free == [1]
            assert not held
            assert not len(line)

        return Trial(work(), check)

    assert cancel_everywhere(factory, minimum=3).positions >= 3


@orders
def test_no_wake_up_is_lost_under_any_schedule(order):
    """Items are put and got by wake-then-pop while half of the getters are cancelled."""

    async def run():
        dice = random.Random(clock.rng().random())
        items: list[int] = []
        got: list[int] = []
        line = waiting_line(order)

        async def get():
            while not items:
                await line.wait()
            got.append(items.pop())

        getters = [asyncio.create_task(get()) for _ in range(20)]
        for number in range(10):
            items.append(number)
            line.wake()
            if dice.random() < 0.5:
                await clock.yield_now()
            dice.choice(getters).cancel()
        await clock.sleep(1)
        done = sum(getter.done() and not getter.cancelled() for getter in getters)
        assert done == len(got)
        assert not items or not len(line)  # nobody waits beside an item
        for getter in getters:
            getter.cancel()
        await asyncio.gather(*getters, return_exceptions=True)
        assert not len(line)

    explore(run, range(200))


@orders
async def test_wake_all_wakes_everybody(order):
    line, woken = waiting_line(order), []

    async def wait(number):
        await line.wait(priority=number)
        woken.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(wait, number)
        await anyio.wait_all_tasks_blocked()
        assert len(line) == 3
        line.wake_all()
        assert len(line) == 0
    assert woken == ([0, 1, 2] if order == "fifo" else [2, 1, 0])
    line.wake_all()


@orders
async def test_a_cancelled_waiter_that_has_not_run_is_passed_over(order):
    line = waiting_line(order)
    first = asyncio.create_task(line.wait())
    second = asyncio.create_task(line.wait())
    await anyio.wait_all_tasks_blocked()
    chosen, other = (second, first) if order == "lifo" else (first, second)
    chosen.cancel()
    assert line.wake()
    await asyncio.wait((first, second))
    assert chosen.cancelled()
    assert not other.cancelled()
    assert len(line) == 0


@orders
async def test_only_cancelled_waiters_means_nobody_waits(order):
    line = waiting_line(order)
    tasks = [asyncio.create_task(line.wait()) for _ in range(3)]
    await anyio.wait_all_tasks_blocked()
    for task in tasks:
        task.cancel()
    assert not line.wake()
    await asyncio.wait(tasks)
    assert len(line) == 0


@orders
async def test_a_coroutine_that_is_closed_leaves_the_line(order):
    line = waiting_line(order)
    waiting = line.wait()
    waiting.send(None)
    assert len(line) == 1
    waiting.close()
    assert len(line) == 0
    assert not line.wake()
    handed_on = []
    waiting = line.wait(lost=lambda: handed_on.append(1))
    waiting.send(None)
    assert line.wake()
    waiting.close()
    assert handed_on == [1]


async def test_a_priority_line_forgets_those_who_left():
    line = PriorityWaiters()
    tasks = [asyncio.create_task(line.wait(priority=n)) for n in range(100)]
    await anyio.wait_all_tasks_blocked()
    for task in tasks[:90]:
        task.cancel()
    await asyncio.wait(tasks[:90])
    assert len(line) == 10
    assert len(line._heap) <= 2 * 10 + 1
    line.wake_all()
    await asyncio.wait(tasks)


async def test_whether_a_cancellation_was_asked_for():
    seen = []

    async def work():
        seen.append(cancel_requested())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(cancel_requested())
            raise

    task = asyncio.create_task(work())
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    await asyncio.wait((task,))
    with anyio.move_on_after(0):
        await work()
    assert seen == [False, True, False, True]


def test_nothing_is_cancelled_outside_a_task():
    async def asked():
        answer = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: answer.set_result(cancel_requested()))
        return await answer

    assert simulate(asked) is False


@pytest.mark.promise("core-bad-input")
@pytest.mark.parametrize("wrong", ["random", None, 1], ids=repr)
def test_an_unknown_order_is_refused(wrong):
    with pytest.raises(ValueError, match="order must be one of 'fifo', 'lifo', 'priority'"):
        waiting_line(wrong)
    with pytest.raises(ValueError, match="order must be one of 'fifo', 'lifo'"):
        Waiters(wrong)


async def test_cancel_count_tells_what_user_code_swallowed():
    counts = []

    async def work():
        asked = cancel_count()
        counts.append(asked())
        for _ in range(2):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                counts.append(asked())

    task = asyncio.ensure_future(work())
    for _ in range(2):
        await asyncio.sleep(0)
        task.cancel()
    await task
    assert counts == [0, 1, 2]


async def test_a_gate_lets_all_through_and_is_closed_again():
    gate = Gate(clock.Home())
    gate.open()  # for nobody
    passed = []

    async def work(name):
        await gate
        passed.append(name)

    async with anyio.create_task_group() as tasks:
        for name in range(5):
            tasks.start_soon(work, name)
        while len(passed) < 5:
            await asyncio.sleep(0)
            gate.open()
    assert sorted(passed) == [0, 1, 2, 3, 4]


async def test_a_gate_forgets_those_who_were_cancelled():
    gate = Gate(clock.Home())
    for _ in range(1000):
        with anyio.move_on_after(0):
            await gate
    assert not isinstance(gate._parked, list) or len(gate._parked) < 4
    tasks = [asyncio.ensure_future(_wait(gate)) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    gate.open()
    await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [False, True, False]


async def _wait(gate):
    await gate


def test_a_gate_cancelled_everywhere():
    def trial():
        async def work():
            gate = Gate(clock.Home())
            asyncio.get_running_loop().call_soon(gate.open)
            await gate

        return Trial(work())

    cancel_everywhere(trial)


async def test_the_truth_of_parked_tells_whether_anybody_waits():
    line = Waiters()
    parked = line.parked
    assert not parked
    task = asyncio.create_task(line.wait())
    await clock.yield_now()
    assert parked
    line.wake()
    assert not parked
    await task
    assert line.parked is parked


async def test_a_canceller_reaches_through_shields():
    found = []

    async def work():
        found.append(canceller())
        with anyio.CancelScope(shield=True):
            await clock.sleep(1000)

    task = asyncio.create_task(work())
    while not found:
        await clock.yield_now()
    found[0]()
    await asyncio.wait([task])
    assert task.cancelled()
