"""Attempts as blocks of code, and retries inside retries."""

from __future__ import annotations

import warnings

import anyio
import pytest

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import deadline
from aiopatterns.core.errors import TimeoutExceededError
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.retry import Retry, Until
from aiopatterns.testing import simulate

retry = Retry(OSError, attempts=3, backoff=Constant(0))


async def test_the_block_is_repeated_until_it_ends_normally():
    numbers = []
    async for attempt in retry.attempts():
        async with attempt:
            numbers.append(attempt.number)
            if attempt.number < 3:
                raise OSError
    assert numbers == [1, 2, 3]


async def test_break_and_return_end_it():
    async for attempt in retry.attempts():
        async with attempt:
            break

    async def find():
        async for attempt in retry.attempts():
            async with attempt:
                return attempt.number
        return None

    assert await find() == 1


async def test_in_the_end_the_original_error_leaves():
    error = OSError()
    with pytest.raises(OSError) as caught:
        async for attempt in retry.attempts():
            async with attempt:
                raise error
    assert caught.value is error
    assert error.__notes__[-1].startswith("gave up after 3 attempts")


async def test_another_error_passes():
    with pytest.raises(ValueError):
        async for attempt in retry.attempts():
            async with attempt:
                raise ValueError


async def test_an_attempt_that_is_not_entered_is_an_error():
    with pytest.raises(RuntimeError, match="async with attempt:"):
        async for attempt in retry.attempts():
            assert attempt.number == 1


@pytest.mark.parametrize("leave", ["before the first", "after the first", "before the second"])
async def test_a_loop_that_is_left_outside_a_block_leaves_the_budget_balanced(leave):
    budget = Budget.ratio(1.0)
    patient = Retry(on=OSError, attempts=3, backoff=Constant(0), budget=budget)
    async for attempt in patient.attempts():
        if leave == "before the first" or (leave == "before the second" and attempt.number == 2):
            break
        async with attempt:
            raise OSError
        if leave == "after the first":
            break
    del attempt
    assert budget._calls == budget._extras == 0


def test_total_time_is_shared_by_the_blocks():
    async def scenario():
        budget = Budget.ratio()
        timed = Retry(OSError, backoff=Constant(1), until=Until(total=5), budget=budget)
        start, numbers = monotonic(), []
        with pytest.raises(TimeoutExceededError):
            async for attempt in timed.attempts():
                async with attempt:
                    assert deadline() == pytest.approx(start + 5)
                    numbers.append(attempt.number)
                    if attempt.number == 1:
                        raise OSError
                    await sleep(100)
        assert monotonic() - start == pytest.approx(5)
        assert numbers == [1, 2]
        assert deadline() is None

        with pytest.raises(TimeoutExceededError):
            async for attempt in timed.attempts():
                await sleep(6)  # outside of the block, where nothing is cancelled
                async with attempt:
                    numbers.append(99)
        assert numbers == [1, 2]
        assert budget._calls == budget._extras == 0

    simulate(scenario)


async def test_a_retry_inside_a_retry_warns():
    async def fail():
        raise OSError

    with pytest.warns(RuntimeWarning, match="their attempts multiply"), pytest.raises(OSError):
        await retry(retry(fail))()

    async def block():
        async for attempt in retry.attempts():
            async with attempt:
                await retry.call(fail)

    with pytest.warns(RuntimeWarning, match="their attempts multiply"), pytest.raises(OSError):
        await block()


async def test_the_warning_names_each_place_that_nests():
    """Not a line of this library, which would be the same for all places, and so warn once."""

    async def fail():
        raise OSError

    async def first():
        await retry(retry(fail))()

    async def second():
        async for attempt in retry.attempts():
            async with attempt:
                await retry(retry(fail))()

    async def third():
        async for attempt in retry.attempts():
            async with attempt:
                async for inner in retry.attempts():
                    async with inner:
                        await fail()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for place in (first, second, third):
            with pytest.raises(OSError):
                await place()
    assert len(caught) == 3
    assert {each.filename for each in caught} == {__file__}


async def test_no_warning_where_nothing_multiplies():
    calls = 0

    async def fail_first():
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The inner one has done it; the outer one has nothing to do.
        await retry(retry(fail_first))()
        calls = 0
        await retry.call(fail_first)
        assert calls == 2


async def test_a_task_that_outlives_the_attempt_is_not_inside_it():
    """It has a copy of the context in which it was started."""

    async def fail():
        raise OSError

    async def later(go):
        await go.wait()
        with pytest.raises(OSError):
            await retry.call(fail)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        go = anyio.Event()
        async with anyio.create_task_group() as group:
            async for attempt in retry.attempts():
                async with attempt:
                    if attempt.number == 1:
                        raise OSError
                    group.start_soon(later, go)
            go.set()
