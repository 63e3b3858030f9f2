"""The driver against toys that are right, and toys that are broken in one known way each."""

from __future__ import annotations

import asyncio
import re
from collections import deque

import anyio
import pytest

from aiopatterns.core.waiters import Waiters
from aiopatterns.testing import (
    DeadlockError,
    LivelockError,
    SimLoop,
    Trial,
    Visited,
    cancel_everywhere,
)
from aiopatterns.testing.cancel import KINDS, _Disturbance, _stepped


class HandOver:
    """Broken: hands an item to a parked receiver, who may be cancelled before it can take it."""

    def __init__(self):
        self.items: deque[int] = deque()
        self.parked: deque[asyncio.Future[int]] = deque()

    def put(self, item):
        while self.parked:
            receiver = self.parked.popleft()
            if not receiver.done():
                receiver.set_result(item)
                return
        self.items.append(item)

    async def get(self):
        if self.items:
            return self.items.popleft()
        receiver = asyncio.get_running_loop().create_future()
        self.parked.append(receiver)
        return await receiver


class WakeThenPop(HandOver):
    """Right: a woken receiver takes the item itself, or hands its turn on."""

    def __init__(self):
        super().__init__()
        self.waiters = Waiters()

    def put(self, item):
        self.items.append(item)
        self.waiters.wake()

    async def get(self):
        while not self.items:
            await self.waiters.wait()
        return self.items.popleft()


def transfer(queue_type):
    """Two items on their way; none may be lost, wherever the receiver is cancelled."""

    def scenario():
        queue = queue_type()
        got = []

        async def work():
            loop = asyncio.get_running_loop()
            under_way = {n: loop.call_later(n + 1, queue.put, n) for n in range(2)}
            try:
                for _ in range(2):
                    got.append(await queue.get())
            finally:
                for number, timer in under_way.items():
                    if timer.when() > loop.time():
                        timer.cancel()
                        queue.put(number)  # what is still under way arrives now

        def check():
            assert sorted([*got, *queue.items]) == [0, 1]

        return Trial(work(), check)

    return scenario


def failing(factory, error=AssertionError, **options):
    with pytest.raises(error) as caught:
        cancel_everywhere(factory, **options)
    return str(caught.value), caught.value.__notes__[-1]


# --- what it finds


def test_an_item_lost_in_a_hand_over_is_found_at_its_position():
    _, note = failing(transfer(HandOver), kinds=["native"])
    assert re.fullmatch(
        r"native cancel when about to resume at 1 "
        r"\(testing/test_cancel\.py:\d+ in HandOver\.get\), seed 0",
        note,
    )
    _, note = failing(transfer(HandOver), kinds=["timeout"], seed=3)
    assert note.startswith("timeout cancel when about to resume at 1")
    assert note.endswith("seed 3")
    # A scope waits until the receiver has what it was given.
    assert cancel_everywhere(transfer(HandOver), kinds=["scope"]).positions == 2


@pytest.mark.parametrize("seed", range(5))
def test_a_queue_that_is_right_passes(seed):
    visited = cancel_everywhere(transfer(WakeThenPop), kinds=KINDS, minimum=2, seed=seed)
    assert visited.positions == 2
    # 2 positions, 2 moments, 4 kinds, the undisturbed run, and second blows.
    assert visited.runs >= 1 + 2 * 2 * 4


def test_memory_streams_of_anyio_lose_an_item_under_native_cancel_only():
    def scenario():
        send, receive = anyio.create_memory_object_stream[int](0)
        sent, got = [], []

        async def produce():
            with send:
                for number in range(2):
                    try:
                        await send.send(number)
                    except anyio.BrokenResourceError:
                        return
                    sent.append(number)

        async def work():
            producer = asyncio.create_task(produce())
            try:
                with receive:
                    await asyncio.sleep(0)
                    async for item in receive:
                        got.append(item)
            finally:
                with anyio.CancelScope(shield=True):
                    await producer

        def check():
            assert got == sent

        return Trial(work(), check)

    _, note = failing(scenario, kinds=["native"])
    assert "about to resume" in note
    cancel_everywhere(scenario, kinds=["scope"], minimum=3)


def test_a_cancellation_that_is_swallowed_is_found():
    async def work():
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            return

    for kind in ("native", "scope", "timeout"):
        message, note = failing(work, kinds=[kind])
        assert message == "the work swallowed its cancellation"
        assert note.startswith(f"{kind} cancel when suspended at 1 (asyncio/tasks.py:")


def test_a_cancellation_that_is_replaced_is_found():
    async def work():
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            raise KeyError("gone") from None

    for kind in KINDS:
        message, _ = failing(work, kinds=[kind])
        assert message == "the work raised KeyError('gone') in place of its cancellation"


def test_a_task_that_is_left_is_found():
    async def work():
        task = asyncio.create_task(asyncio.sleep(5), name="forgotten")
        await asyncio.sleep(1)
        await task

    message, note = failing(work, kinds=["scope"])
    assert message.startswith("1 task(s) left alive:\n    forgotten\n      asyncio/tasks.py")
    assert "scope cancel when suspended at 1" in note


def test_a_task_that_is_cancelled_and_not_awaited_is_left():
    async def child():
        try:
            await asyncio.sleep(5)
        finally:
            await asyncio.sleep(1)

    async def work():
        task = asyncio.create_task(child())
        try:
            await asyncio.sleep(1)
        finally:
            task.cancel()

    assert failing(work)[0].startswith("1 task(s) left alive")


def test_a_timer_that_is_left_is_found():
    async def work():
        timer = asyncio.get_running_loop().call_later(60, print)
        await asyncio.sleep(1)
        timer.cancel()

    assert failing(work)[0] == "1 timer(s) left set:\n    print() at 60"


def test_an_error_that_nobody_sees_is_found():
    async def fail():
        raise ZeroDivisionError

    async def work():
        task = asyncio.create_task(fail())
        await asyncio.sleep(1)
        task.exception()

    assert "Task exception was never retrieved: ZeroDivisionError()" in failing(work)[0]


def test_a_hang_in_the_cleanup_is_found():
    async def work():
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    message, note = failing(work, DeadlockError, kinds=["native"])
    assert "test_a_hang_in_the_cleanup_is_found.<locals>.work" in message
    assert "asyncio/locks.py" in message
    assert note.startswith("native cancel")


def test_a_cleanup_that_never_ends_is_found(monkeypatch):
    async def work():
        try:
            await asyncio.sleep(1)
        finally:
            while not done:
                await asyncio.sleep(0)

    done: list = []
    monkeypatch.setattr(
        "aiopatterns.testing.trial.SimLoop", lambda seed: SimLoop(seed, max_steps=5000)
    )
    with pytest.raises(LivelockError):
        cancel_everywhere(work, kinds=["native"])


def test_a_cleanup_that_only_a_second_cancel_breaks_needs_two():
    def scenario():
        state = ["clean"]

        async def work():
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                state.append("dirty")
                await asyncio.sleep(1)
                state.append("clean")
                raise

        def check():
            assert state[-1] == "clean"

        return Trial(work(), check)

    assert cancel_everywhere(scenario, kinds=["native", "timeout"]).positions == 1
    _, note = failing(scenario, kinds=["native-twice"])
    assert "native cancel when suspended at 1 and 2" in note


# --- what it lets pass


def test_work_that_finishes_before_the_cancellation_is_delivered_passes():
    async def work():
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(1)

    assert cancel_everywhere(work, kinds=["scope"]).positions == 1


def test_work_may_end_with_its_cancellation_pending():
    async def work():
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            assert me is not None
            me.cancel()  # puts it off to the next suspension
        return "done"

    cancel_everywhere(work, kinds=["native"])


def test_cancellations_of_the_work_itself_are_not_taken_for_ours():
    async def work():
        with anyio.move_on_after(1):
            await anyio.sleep_forever()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anyio.sleep_forever()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            await anyio.sleep(1)
            group.cancel_scope.cancel()

    for seed in range(10):
        visited = cancel_everywhere(work, kinds=KINDS, minimum=4, seed=seed)
        assert visited.runs > 4 * visited.positions


def test_a_child_that_takes_its_time_is_waited_for_at_every_moment():
    async def child(ended):
        try:
            await asyncio.sleep(1)
        finally:
            await asyncio.sleep(1)
            ended.append(True)

    def scenario():
        ended: list[bool] = []

        async def work():
            task = asyncio.create_task(child(ended))
            try:
                await task
            finally:
                assert task.done()

        return Trial(work(), lambda: ended)

    cancel_everywhere(scenario)


def test_bare_yields_have_one_moment():
    async def work():
        await asyncio.sleep(0)
        await asyncio.sleep(1)

    assert cancel_everywhere(work, kinds=["native"]) == Visited(positions=2, runs=1 + 1 + 2)


# --- how it is used


@pytest.mark.promise("testing-positions")
def test_positions_are_reported_and_their_minimum_is_asserted(capsys):
    async def three():
        for _ in range(3):
            await asyncio.sleep(0)

    assert cancel_everywhere(three, minimum=3) == Visited(positions=3, runs=1 + 3 * 3)
    name = three.__qualname__
    assert capsys.readouterr().out == f"cancel_everywhere({name}): 3 positions, 10 runs\n"
    with pytest.raises(AssertionError, match="was suspended 3 times, expected at least 4"):
        cancel_everywhere(three, minimum=4)

    async def none():
        pass

    with pytest.raises(AssertionError, match="was suspended 0 times, expected at least 1"):
        cancel_everywhere(none)
    assert cancel_everywhere(none, minimum=0) == Visited(positions=0, runs=1)


def test_the_check_is_called_after_every_run_on_its_loop():
    seeds = []

    def scenario():
        async def check():
            await asyncio.sleep(1)
            loop = asyncio.get_running_loop()
            assert isinstance(loop, SimLoop)
            seeds.append(loop.seed)

        return Trial(asyncio.sleep(1), check)

    visited = cancel_everywhere(scenario, seed=9)
    assert seeds == [9] * visited.runs


def test_an_error_of_the_undisturbed_work_is_reported_as_such():
    async def fail():
        raise ZeroDivisionError

    async def hang():
        await asyncio.Event().wait()

    async def give_up():
        raise asyncio.CancelledError

    _, note = failing(fail, ZeroDivisionError)
    assert note == "undisturbed, seed 0"
    _, note = failing(hang, DeadlockError)
    assert note == "undisturbed, seed 0"
    message, _ = failing(give_up)
    assert message == "the work was cancelled, but not by this test"


def test_errors_that_have_nothing_to_do_with_the_cancellation_go_their_way():
    ran: list = []

    async def work():
        ran.append(True)
        await asyncio.sleep(0)
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(1)
        if len(ran) > 1:
            raise error

    error: Exception = KeyError("mine")
    _, note = failing(work, KeyError, kinds=["scope"])
    assert note.startswith("scope cancel when suspended at 2")


def test_a_timeout_of_the_work_itself_is_not_taken_for_ours():
    async def work():
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            raise TimeoutError("mine") from None

    message, _ = failing(work, kinds=["timeout"])
    assert message == "the work raised TimeoutError('mine') in place of its cancellation"


def test_a_scenario_that_is_not_made_afresh_is_found():
    runs: list = []

    async def work():
        runs.append(True)
        for _ in range(3 if len(runs) == 1 else 1):
            await asyncio.sleep(0)

    message, note = failing(work, kinds=["native"])
    assert message.endswith("the scenario must be made afresh")
    assert note == "native cancel when suspended at 2, seed 0"


def test_work_that_is_dropped_is_closed():
    closed = []

    async def work():
        try:
            await asyncio.sleep(0)
        finally:
            closed.append(True)

    steps = _stepped(work(), _Disturbance())
    next(steps)
    steps.close()
    assert closed == [True]


@pytest.mark.promise("testing-bad-input")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"factory": 3}, TypeError, "factory must be a function, not 3"),
        ({"kinds": ()}, ValueError, "kinds must be a collection of 'native'.*, not be empty"),
        ({"kinds": "native"}, TypeError, "kinds must be a collection of .*, not 'native'"),
        ({"kinds": 3}, TypeError, "kinds must be a collection of .*, not 3"),
        ({"kinds": ["polite"]}, ValueError, "kinds must be one of 'native', .*, not 'polite'"),
        ({"minimum": -1}, ValueError, "minimum must be a whole number >= 0, not -1"),
        ({"minimum": None}, TypeError, "minimum must be a whole number >= 0, not None"),
        ({"seed": -1}, ValueError, "seed must be a whole number >= 0, not -1"),
        ({"seed": "x"}, TypeError, "seed must be a whole number >= 0, not 'x'"),
    ],
)
def test_bad_input_is_refused(options, error, message):
    made: list = []
    with pytest.raises(error, match=message):
        cancel_everywhere(**{"factory": made.append} | options)
    assert not made


@pytest.mark.promise("testing-bad-input")
def test_a_factory_that_makes_no_coroutine_is_refused():
    with pytest.raises(TypeError, match="factory must return a fresh coroutine or a Trial"):
        cancel_everywhere(lambda: 3)


async def test_async_code_is_refused():
    with pytest.raises(RuntimeError, match="call it from a plain function"):
        cancel_everywhere(lambda: asyncio.sleep(1))
