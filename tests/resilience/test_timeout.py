"""Timeouts: only their own, the outer first, nothing left, for calls and for streams."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import bind_deadline, deadline, remaining
from aiopatterns.core.errors import TimeoutExceededError
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, explore, simulate


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


async def test_quick_work_passes():
    async def quick(n):
        await sleep(0)
        return n

    timeout = Timeout(60)
    assert await timeout(quick)(1) == 1
    assert await timeout.call(quick, 2) == 2
    with timeout.scope():
        await sleep(0)
    assert deadline() is None
    assert timeout.seconds == 60
    assert timeout.stream == "total"
    assert repr(timeout) == "Timeout(60)"


def test_slow_work_is_cancelled_on_time_and_the_error_says_so():
    async def scenario():
        start = monotonic()
        with capture_events() as events, pytest.raises(TimeoutExceededError) as caught:
            await Timeout(2.5).call(sleep, 10)
        assert monotonic() - start == pytest.approx(2.5)
        assert caught.value.timeout == 2.5
        assert "2.5 s" in str(caught.value)
        assert isinstance(caught.value, TimeoutError)
        assert [(event.name, wrong(event).seconds) for event in events] == [
            ("aiopatterns.timeout.expired", 2.5)
        ]
        assert deadline() is None

    simulate(scenario)


@pytest.mark.real
async def test_slow_work_is_cancelled_in_real_time():
    with pytest.raises(TimeoutExceededError):
        await Timeout(0.01).call(anyio.sleep_forever)


def test_calls_that_share_one_timeout_each_have_their_own_time():
    async def scenario():
        timeout = Timeout(1)
        ends: dict[int, tuple[str, Any]] = {}

        async def run(name, start, length):
            await sleep(start)
            try:
                await timeout.call(sleep, length)
            except TimeoutExceededError:
                ends[name] = ("late", monotonic())
            else:
                ends[name] = ("done", monotonic())

        begin = monotonic()
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(run, number, number / 10, 0.5 if number % 3 else 5.0)
        for number in range(20):
            what, after = ("done", 0.5) if number % 3 else ("late", 1.0)
            assert ends[number] == (what, pytest.approx(begin + number / 10 + after))

    simulate(scenario)


def test_one_object_serves_successive_loops():
    timeout = Timeout(1)

    async def late():
        with pytest.raises(TimeoutExceededError):
            await timeout.call(sleep, 10)

    for _ in range(3):
        simulate(late)


async def test_a_timeout_error_of_the_work_passes_untouched():
    error = TimeoutError("mine")

    async def work():
        raise error

    with capture_events() as events, pytest.raises(TimeoutError) as caught:
        await Timeout(60).call(work)
    assert caught.value is error
    assert not events


def test_what_the_work_makes_of_its_cancellation_counts():
    async def stubborn(answer):
        try:
            await sleep(10)
        except asyncio.CancelledError:
            if isinstance(answer, Exception):
                raise answer from None
            return answer

    async def scenario():
        assert await Timeout(1).call(stubborn, "in spite of it") == "in spite of it"
        with pytest.raises(ValueError, match="instead"):
            await Timeout(1).call(stubborn, ValueError("instead"))
        await sleep(0)  # and the task is not cancelled any more

    simulate(scenario)


@pytest.mark.promise("resilience-seeds")
@pytest.mark.parametrize(("outer", "inner"), [(1, 1), (1, 2)])
def test_of_two_that_are_over_the_outer_wins(outer, inner):
    async def scenario():
        swallowed = []

        async def middle():
            try:
                await Timeout(inner).call(sleep, 10)
            except TimeoutExceededError as error:
                swallowed.append(error)
                await sleep(10)

        with pytest.raises(TimeoutExceededError) as caught:
            await Timeout(outer).call(middle)
        assert caught.value.timeout == outer
        assert not swallowed

    explore(scenario, range(100))


def test_an_inner_one_that_is_over_first_is_seen_inside_only():
    async def scenario():
        async def middle():
            with pytest.raises(TimeoutExceededError):
                await Timeout(1).call(sleep, 10)
            await sleep(0.5)
            return "went on"

        assert await Timeout(2).call(middle) == "went on"

    simulate(scenario)


@pytest.mark.promise("resilience-seeds")
def test_a_cancellation_from_outside_wins():
    async def scenario():
        with anyio.move_on_after(1) as outer:
            await Timeout(1).call(sleep, 10)
        assert outer.cancelled_caught
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.5):
                await Timeout(1).call(sleep, 10)
        assert not isinstance(caught.value, TimeoutExceededError)

    explore(scenario, range(100))


@pytest.mark.promise("resilience-cancel-everywhere")
def test_cancelled_anywhere_it_leaves_nothing():
    timeout = Timeout(100)

    def factory():
        async def work():
            await timeout.call(sleep, 1)
            with timeout.scope():
                await sleep(1)

        def check():
            assert deadline() is None

        return Trial(work(), check)

    cancel_everywhere(factory, kinds=("native", "scope", "timeout", "native-twice"), minimum=2)


def test_the_deadline_is_bound_and_an_earlier_one_stays():
    async def scenario():
        with Timeout(10).scope():
            assert remaining() == pytest.approx(10)
            with Timeout(5).scope():
                assert remaining() == pytest.approx(5)
                with Timeout(20).scope():
                    assert remaining() == pytest.approx(5)
            assert remaining() == pytest.approx(10)
        assert remaining() is None
        with bind_deadline(monotonic() + 3), Timeout(10).scope():
            assert remaining() == pytest.approx(3)

    simulate(scenario)


async def ticks(*waits):
    for number, wait in enumerate(waits):
        await sleep(wait)
        yield number


def consumed(stream, pause=0.0):
    """What a stream gave, and what ended it."""

    async def consume():
        got, start = [], monotonic()
        try:
            async for item in stream():
                got.append(item)
                await sleep(pause)
        except TimeoutExceededError:
            return got, "late", pytest.approx(monotonic() - start)
        assert deadline() is None
        return got, "done", pytest.approx(monotonic() - start)

    return simulate(consume)


def test_total_time_of_a_stream_counts_the_reader_too():
    stream = Timeout(5)(ticks)
    assert consumed(lambda: stream(1, 1, 1)) == ([0, 1, 2], "done", 3)
    assert consumed(lambda: stream(1, 9)) == ([0], "late", 5)
    assert consumed(lambda: stream(1, 1, 1), pause=2) == ([0, 1], "late", 6)
    assert consumed(lambda: stream(1, 1, 1), pause=3.5) == ([0], "late", 5)


def test_time_to_the_first_item():
    stream = Timeout(2, stream="first")(ticks)
    assert consumed(lambda: stream(1, 9, 9)) == ([0, 1, 2], "done", 19)
    assert consumed(lambda: stream(9)) == ([], "late", 2)


def test_time_of_each_step():
    stream = Timeout(2, stream="each")(ticks)
    assert consumed(lambda: stream(1, 1, 1), pause=5) == ([0, 1, 2], "done", 18)
    assert consumed(lambda: stream(1, 9)) == ([0], "late", 3)


def test_no_scope_is_held_across_a_yield():
    async def scenario():
        async for _ in Timeout(1)(ticks)(0.1, 0.1):
            assert deadline() is None
            with anyio.CancelScope():  # would be refused on leaving if they were interleaved
                await sleep(0)

    simulate(scenario)


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_a_senseless_time_is_refused(seconds):
    with pytest.raises(ValueError, match=r"^seconds must be"):
        Timeout(seconds)


@pytest.mark.promise("resilience-bad-input")
def test_bad_input_is_one_clear_error():
    with pytest.raises(TypeError, match=r"^seconds must be"):
        Timeout(wrong("1"))
    with pytest.raises(ValueError, match=r"^stream must be one of 'total'"):
        Timeout(1, stream=wrong("some"))


def test_the_budget_bounds_what_is_inside():
    assert Timeout(3).bound(10) == 3
    assert Timeout(3).bound(1) == 1
