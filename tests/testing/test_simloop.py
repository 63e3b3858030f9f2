from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import os
import subprocess
import sys
import threading
import time
import warnings

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core import clock
from aiopatterns.testing import DeadlockError, LivelockError, SimLoop, explore, simulate

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def run(fn, seed=0, **options):
    """Run on a loop that is handed back, closed."""
    loop = SimLoop(seed, **options)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(fn())
    return result, loop


async def chatter(workers=4, turns=3):
    """Every worker says its name each turn; gives the order in which they spoke."""
    said = []

    async def worker(name):
        for _ in range(turns):
            said.append(name)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for name in range(workers):
            group.create_task(worker(name))
    return tuple(said)


# --- time


def test_an_hour_passes_at_once():
    async def scenario():
        began = time.perf_counter()
        await anyio.sleep(3600)
        with anyio.move_on_after(86400) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await asyncio.Event().wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.5)
        assert time.perf_counter() - began < 5
        return asyncio.get_running_loop().time()

    for seed in range(20):
        assert simulate(scenario, seed) == 3600 + 86400 + 2


def test_time_stands_still_while_something_is_ready():
    async def scenario():
        for _ in range(1000):
            await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    assert simulate(scenario) == 0


def test_timers_fire_in_order_of_their_time():
    async def scenario():
        fired: list[int] = []
        loop = asyncio.get_running_loop()
        for delay in (3, 1, 2):
            loop.call_later(delay, fired.append, delay)
        await asyncio.sleep(4)
        return fired

    for seed in range(20):
        assert simulate(scenario, seed) == [1, 2, 3]


def test_a_loop_that_polls_for_a_time_gets_there():
    async def scenario():
        loop = asyncio.get_running_loop()
        while loop.time() < 0.5:
            await asyncio.sleep(0)
        return loop.time()

    assert simulate(scenario) == pytest.approx(0.5, abs=1e-3)


def test_cancelled_timers_do_not_pile_up():
    async def scenario():
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        most = 0
        first = loop.call_later(1, print)
        for _ in range(2000):
            loop.call_later(3600, print).cancel()
            await asyncio.sleep(0)
            most = max(most, len(loop._scheduled))
        assert 100 < most < 300
        first.cancel()
        await asyncio.sleep(0)
        assert len(loop._scheduled) == 0
        kept: list[str] = []
        loop.call_later(5, kept.append, "kept")
        await asyncio.sleep(6)
        return kept

    assert simulate(scenario) == ["kept"]


@pytest.mark.promise("core-virtual-time")
def test_the_clock_of_the_library_is_that_of_the_loop_while_it_runs():
    async def scenario():
        assert (clock.monotonic(), clock.wall()) == (0, 1_700_000_000)
        await clock.sleep(10)
        assert (clock.monotonic(), clock.wall()) == (10, 1_700_000_010)
        return clock.rng().random()

    before = clock.monotonic()
    dice = clock.rng()
    first = simulate(scenario, 3)
    assert simulate(scenario, 3) == first != simulate(scenario, 4)
    assert clock.monotonic() >= before
    assert clock.rng() is dice
    with pytest.raises(ZeroDivisionError):
        simulate(divide, 3)
    assert clock.rng() is dice


async def divide():
    await asyncio.sleep(1)
    return 1 / 0


async def test_async_tests_run_in_virtual_time_on_the_simulated_loop():
    loop = asyncio.get_running_loop()
    if not isinstance(loop, SimLoop):
        return
    assert loop.time() == clock.monotonic()
    began = loop.time()
    await anyio.sleep(1000)
    assert loop.time() == began + 1000


# --- schedules


def test_seed_0_keeps_the_order_of_asyncio():
    assert simulate(chatter) == asyncio.run(chatter())


def test_other_seeds_find_many_orders():
    orders = {simulate(chatter, seed) for seed in range(1, 100)}
    assert len(orders) > 60
    heads = {order[:4] for order in orders}
    assert len({head for head in heads if len(set(head)) == 4}) > 15  # of 24
    assert any(len(set(head)) < 4 for head in heads), "some seeds hold tasks back"


def test_equal_timers_fire_in_any_order():
    async def scenario():
        fired: list[int] = []
        loop = asyncio.get_running_loop()
        for name in range(3):
            loop.call_later(1, fired.append, name)
        await asyncio.sleep(2)
        return tuple(fired)

    assert simulate(scenario)[0] == 0
    assert len({simulate(scenario, seed) for seed in range(1, 100)}) == 6


def test_callbacks_keep_their_order_and_are_not_overtaken():
    async def scenario():
        ran: list[tuple[str, int]] = []
        loop = asyncio.get_running_loop()

        async def step(number):
            ran.append(("step", number))

        tasks = []
        for number in range(5):
            tasks.append(loop.create_task(step(number)))
            loop.call_soon(ran.append, ("callback", number))
        await asyncio.gather(*tasks)
        callbacks = [number for kind, number in ran if kind == "callback"]
        assert callbacks == [0, 1, 2, 3, 4]
        for number in range(1, 5):
            # Step n was scheduled behind callback n - 1.
            assert ran.index(("step", number)) > ran.index(("callback", number - 1))
        return tuple(ran)

    explore(scenario, range(100))
    assert len({simulate(scenario, seed) for seed in range(1, 100)}) > 50


async def crowd():
    """Groups in groups that are cancelled: sets everywhere."""
    said = []

    async def member(name):
        try:
            await anyio.sleep(3600)
        finally:
            said.append(name)

    with anyio.move_on_after(1):
        async with anyio.create_task_group() as outer:
            for name in "abc":
                outer.start_soon(member, name)
            for number in range(4):
                outer.start_soon(nest, member, number)
    async with anyio.create_task_group() as group:
        names = [group.create_task(member(name)) for name in "wxyz"]
        await anyio.sleep(0.1)
        for each in names:
            each.cancel()
    return said


async def nest(member, number):
    async with anyio.create_task_group() as inner:
        inner.start_soon(member, number)
        inner.start_soon(member, -number)


def test_a_cancelled_callback_does_not_run():
    async def scenario():
        ran: list[int] = []
        loop = asyncio.get_running_loop()
        loop.call_soon(ran.append, 1).cancel()
        await asyncio.sleep(1)
        assert not ran

    explore(scenario, range(5))


@pytest.mark.promise("testing-replay")
def test_one_seed_is_one_run():
    for scenario, seeds in ((chatter, range(50)), (crowd, range(1, 50))):
        for seed in seeds:
            first, loop = run(scenario, seed)
            again, replayed = run(scenario, seed)
            assert first == again
            assert loop.trace == replayed.trace
    assert len({run(crowd, seed)[1].trace for seed in range(1, 50)}) == 49


@pytest.mark.promise("testing-replay")
def test_one_seed_is_one_run_in_another_process():
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; "
        "from tests.testing.test_simloop import *; "
        "print(*[f'{run(crowd, seed)[1].trace}' for seed in (1, 2, 17)])"
    )
    paths = [each for each in sys.path if each]
    traces = {
        subprocess.run(
            [sys.executable, "-c", code, *paths],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert traces == {" ".join(run(crowd, seed)[1].trace for seed in (1, 2, 17)) + "\n"}


def test_tasks_are_numbered_on_every_loop():
    async def scenario():
        async def nothing():
            pass

        named = asyncio.create_task(nothing(), name="mine")
        plain = asyncio.create_task(nothing())
        await asyncio.gather(named, plain)
        names = [task.get_name() for task in (asyncio.current_task(), named, plain) if task]
        return tuple(names)

    for _ in range(2):
        assert simulate(scenario) == ("Task-1", "mine", "Task-3")


def test_a_task_keeps_the_context_it_is_given():
    async def scenario():
        async def read():
            return variable.get()

        context = contextvars.copy_context()
        context.run(variable.set, "given")
        return await asyncio.create_task(read(), context=context), await read()

    assert simulate(scenario) == ("given", "unset")


def test_a_task_factory_is_asked():
    made = []

    def factory(loop, coro, **options):
        made.append(coro.__name__)
        return asyncio.Task(coro, loop=loop, **options)

    async def scenario():
        asyncio.get_running_loop().set_task_factory(factory)
        return await chatter()

    assert len({simulate(scenario, seed) for seed in range(1, 20)}) > 10
    assert made.count("worker") == 19 * 4


def test_set_and_dict_of_tasks_work_as_usual():
    async def scenario():
        async def nothing():
            pass

        tasks = [asyncio.create_task(nothing()) for _ in range(10)]
        assert [*set(tasks)] == tasks
        assert len({*tasks, *tasks}) == 10
        assert tasks[0] != tasks[1]
        done, pending = await asyncio.wait(tasks)
        assert (done, pending) == ({*tasks}, set())

    simulate(scenario, 5)


# --- ends


@pytest.mark.promise("testing-deadlock")
def test_a_hang_is_an_error_with_all_stacks():
    async def scenario():
        async def inner():
            await asyncio.Event().wait()

        async with anyio.create_task_group() as group:
            group.start_soon(inner, name="the stuck one")

    with pytest.raises(DeadlockError) as caught:
        simulate(scenario, 7)
    text = str(caught.value)
    assert text.startswith("nothing is ready and no timer is set (seed 7, time 0); tasks alive:")
    assert "the stuck one" in text
    assert "in test_a_hang_is_an_error_with_all_stacks.<locals>.scenario.<locals>.inner" in text
    assert "asyncio/locks.py" in text


@pytest.mark.promise("testing-deadlock")
def test_a_timer_that_never_fires_does_not_hide_a_hang():
    with pytest.raises(DeadlockError):
        simulate(lambda: asyncio.sleep(math.inf))


def test_after_a_hang_the_tasks_are_cancelled_and_the_loop_closes():
    ended = []

    async def scenario():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            ended.append(asyncio.get_running_loop().time())

    loop = SimLoop()
    with pytest.raises(DeadlockError), asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(scenario())
    assert ended == [1]
    assert loop.is_closed()


def test_a_run_without_an_end_is_an_error():
    async def scenario():
        while True:
            await asyncio.sleep(0)

    with pytest.raises(LivelockError, match="1000 callbacks ran, and there is no end"):
        run(scenario, max_steps=1000)

    async def heartbeat():
        while True:
            await asyncio.sleep(1)

    with pytest.raises(LivelockError, match="heartbeat"):
        run(heartbeat, max_steps=1000)


def test_a_loop_may_be_stopped_with_nothing_left_to_do():
    loop = SimLoop(3)
    ran: list[int] = []
    loop.call_soon(ran.append, 1)
    loop.call_later(5, ran.append, 2)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert (ran, loop.time()) == ([1], 0)
    loop.call_later(6, loop.stop)
    loop.run_forever()
    assert (ran, loop.time()) == ([1, 2], 6)
    loop.stop()
    loop.run_forever()
    with pytest.raises(DeadlockError, match="none"):
        loop.run_forever()
    loop.close()
    loop.close()


def test_an_interrupt_leaves_the_other_callbacks_where_they_are():
    ran: list[int] = []

    def interrupt():
        raise KeyboardInterrupt

    loop = SimLoop(1)
    loop.call_soon(interrupt)
    loop.call_soon(ran.append, 1)
    loop.call_soon(loop.stop)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert not ran
    loop.run_forever()
    assert ran == [1]
    loop.close()


def test_a_closed_loop_takes_no_work():
    loop = SimLoop()
    loop.close()
    work = divide()
    with pytest.raises(RuntimeError, match="closed"):
        loop.create_task(work)
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_in_executor(None, print)
    work.close()


def test_a_loop_that_nobody_closes_warns():
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        SimLoop()


def test_async_generators_are_closed_at_the_end():
    closed = []

    async def numbers():
        try:
            yield 1
        finally:
            await asyncio.sleep(1)
            closed.append(True)

    async def scenario():
        kept.append(numbers())
        await anext(kept[0])

    kept: list = []
    simulate(scenario, 2)
    assert closed == [True]


def test_debug_mode_works():
    async def scenario():
        asyncio.get_running_loop().set_debug(True)
        return await chatter()

    assert len(simulate(scenario, 4)) == 12


@pytest.mark.promise("testing-bad-input")
@pytest.mark.parametrize(
    ("seed", "options", "error", "message"),
    [
        (-1, {}, ValueError, "seed must be a whole number >= 0, not -1"),
        (1.5, {}, TypeError, "seed must be a whole number >= 0, not 1.5"),
        (True, {}, TypeError, "seed must be a whole number >= 0, not True"),
        ("1", {}, TypeError, "seed must be a whole number >= 0, not '1'"),
        (0, {"max_steps": 0}, ValueError, "max_steps must be a whole number >= 1, not 0"),
        (0, {"max_steps": None}, TypeError, "max_steps must be a whole number >= 1, not None"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing_open(seed, options, error, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match=message):
            SimLoop(seed, **options)
        gc.collect()


# --- threads


def test_a_thread_call_runs_inline_at_a_seeded_turn():
    async def scenario():
        said: list[object] = []

        async def count():
            for number in range(5):
                said.append(number)
                await asyncio.sleep(0)

        def call(word):
            assert threading.current_thread() is threading.main_thread()
            with pytest.raises(RuntimeError, match="no running event loop"):
                asyncio.get_running_loop()
            said.append(word)
            return word

        counting = asyncio.create_task(count())
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, call, "called") == "called"
        assert asyncio.get_running_loop() is loop
        await counting
        return said.index("called")

    assert simulate(scenario) == simulate(scenario)
    assert len({simulate(scenario, seed) for seed in range(50)}) > 2


def test_a_thread_call_inherits_no_context_but_to_thread_does():
    async def scenario():
        variable.set("set")
        loop = asyncio.get_running_loop()
        return (
            await loop.run_in_executor(None, variable.get),
            await asyncio.to_thread(variable.get),
        )

    for seed in range(10):
        assert simulate(scenario, seed) == ("unset", "set")


def test_a_failing_thread_call_fails_its_caller():
    async def scenario():
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)

    explore(scenario, range(10))


def test_a_thread_call_that_is_cancelled_in_time_does_not_begin():
    async def scenario():
        called: list[int] = []
        waiting = asyncio.get_running_loop().run_in_executor(None, called.append, 1)
        waiting.cancel()
        await asyncio.sleep(1)
        assert not called

    explore(scenario, range(10))


def test_a_thread_call_that_is_cancelled_while_it_runs_is_done_in_vain():
    async def scenario():
        def well():
            asyncio_future.cancel()

        def badly():
            asyncio_future.cancel()
            raise ZeroDivisionError

        for call in (well, badly):
            asyncio_future = asyncio.get_running_loop().run_in_executor(None, call)
            with pytest.raises(asyncio.CancelledError):
                await asyncio_future

    explore(scenario, range(10))


def test_a_real_loop_can_run_inside_a_thread_call():
    async def scenario():
        return await asyncio.to_thread(lambda: asyncio.run(chatter()))

    assert len(simulate(scenario, 3)) == 12


# --- against a plain model


@given(
    timers=st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 1.0, 1.5, 7.0]), st.booleans()), max_size=12
    ),
    steps=st.lists(st.integers(0, 4), max_size=6),
    seed=st.integers(0, 1000),
)
def test_everything_runs_once_in_the_order_of_time(timers, steps, seed):
    """Timers fire once, at their time, unless cancelled; tasks make all their steps."""

    async def scenario():
        loop = asyncio.get_running_loop()
        fired: list[tuple[float, int]] = []
        made: list[int] = []

        def fire(number):
            fired.append((loop.time(), number))

        async def worker(number, turns):
            for _ in range(turns):
                await asyncio.sleep(0)
            made.append(number)

        tasks = [asyncio.create_task(worker(*each)) for each in enumerate(steps)]
        for number, (delay, cancelled) in enumerate(timers):
            timer = loop.call_later(delay, fire, number)
            if cancelled:
                timer.cancel()
        await asyncio.sleep(10)
        assert fired == sorted(fired, key=lambda each: each[0])
        assert sorted(fired) == sorted(
            (d, n) for n, (d, cancelled) in enumerate(timers) if not cancelled
        )
        assert sorted(made) == [*range(len(steps))]
        assert all(task.done() for task in tasks)

    simulate(scenario, seed)
