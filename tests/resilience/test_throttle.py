"""Throttles: the ratio as in the book, what counts, and a service that recovers."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import rng, sleep
from aiopatterns.core.errors import OverloadedError, RateLimitedError
from aiopatterns.resilience.policy import Policy
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.throttle import Throttle
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, explore, simulate


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


async def answers():
    pass


async def fails():
    raise OSError


async def ask(throttle, fn, times=1):
    """Call ``fn``; the number of calls that reached it."""
    reached = 0

    async def counted():
        nonlocal reached
        reached += 1
        await fn()

    for _ in range(times):
        with contextlib.suppress(OSError, OverloadedError):
            await throttle.call(counted)
    return reached


RATIOS = {
    "nothing yet": ({}, "", 0),
    "all accepted": ({}, "++++++++++", 0),
    "half accepted": ({}, "+-+-+-+-+-", 0),
    "a little less than half": ({}, "+-+-+-+-+--", 1 / 12),
    "none accepted": ({"max_ratio": 1}, "----", 4 / 5),
    "the cap": ({"max_ratio": 0.5}, "----", 0.5),
    "a factor of 1": ({"factor": 1}, "+++-", 1 / 5),
    "a factor of 4": ({"factor": 4}, "+---", 0),
    "never": ({"max_ratio": 0}, "----", 0),
}


@pytest.mark.parametrize(("options", "calls", "ratio"), RATIOS.values(), ids=RATIOS)
def test_the_ratio(options, calls, ratio):
    async def scenario():
        throttle = Throttle(**options)
        throttle_all = Throttle(**{**options, "max_ratio": 0})
        throttle_all.adopt(throttle)
        for call in calls:  # through one that never refuses, so that each call is made
            await ask(throttle_all, answers if call == "+" else fails)
        assert throttle_all.adopt(throttle)
        throttle = Throttle(**options)
        throttle.adopt(throttle_all)
        assert throttle.reject_ratio == pytest.approx(ratio)

    simulate(scenario)


def test_refused_calls_are_as_many_as_the_ratio_says():
    async def scenario():
        reached = await ask(Throttle(), fails, 4000)
        assert reached / 4000 == pytest.approx(0.1, abs=0.02)

    explore(scenario, range(10))


def test_refused_calls_count_as_calls():
    async def scenario():
        throttle = Throttle(max_ratio=1, factor=1)
        reached = await ask(throttle, fails, 2000)
        assert 1 <= reached < 30  # 1/n of the calls, about their logarithm
        assert throttle.reject_ratio == pytest.approx(2000 / 2001)

    simulate(scenario)


def test_a_service_that_recovers_is_asked_again():
    async def scenario():
        throttle = Throttle(window=10)
        for _ in range(100):
            await ask(throttle, fails)
            await sleep(0.1)
        assert throttle.reject_ratio > 0.8
        for _ in range(300):
            await ask(throttle, answers)
            await sleep(0.1)
        assert throttle.reject_ratio == 0
        assert await ask(throttle, answers, 20) == 20

    explore(scenario, range(20))


def test_after_a_quiet_window_nothing_is_refused():
    async def scenario():
        throttle = Throttle(window=10)
        await ask(throttle, fails, 100)
        await sleep(10)
        assert throttle.reject_ratio == 0
        assert await ask(throttle, answers) == 1

    simulate(scenario)


@given(st.lists(st.sampled_from("+-x"), max_size=60), st.sampled_from([1.0, 1.5, 2.0]))
def test_it_agrees_with_the_plain_model(calls, factor):
    async def scenario():
        throttle = Throttle(factor=factor)
        made = accepted = 0
        for call in calls:
            ratio = min(max(0, (made - factor * accepted) / (made + 1)), 0.9)
            assert throttle.reject_ratio == pytest.approx(ratio)
            if call == "x":  # cancelled: nothing, unless it is refused
                with anyio.move_on_after(1) as scope:
                    await ask(throttle, anyio.sleep_forever)
                made += not scope.cancelled_caught
                continue
            reached = await ask(throttle, answers if call == "+" else fails)
            made += 1
            accepted += reached and call == "+"

    simulate(scenario)


def test_a_cancelled_call_counts_as_nothing():
    def factory():
        throttle = Throttle()

        def check():
            assert throttle.reject_ratio == 0
            assert not throttle._calls.totals().calls

        async def work():
            await throttle.call(sleep, 1)
            throttle._calls.clear()

        return Trial(work(), check)

    cancel_everywhere(factory, minimum=1)


def test_which_errors_are_failures():
    async def scenario():
        throttle = Throttle(on=OSError)

        async def is_an_answer():
            raise KeyError

        async def is_refused_inside():
            raise RateLimitedError("not now")

        for _ in range(20):
            with pytest.raises(KeyError):
                await throttle.call(is_an_answer)
        assert throttle._calls.totals().successes == 20
        with pytest.raises(RateLimitedError):
            await throttle.call(is_refused_inside)
        assert throttle._calls.totals().calls == 20
        named = Throttle(on=RateLimitedError)
        with pytest.raises(RateLimitedError):
            await named.call(is_refused_inside)
        assert named._calls.totals().failures == 1

    simulate(scenario)


def test_a_refusal_is_an_error_and_an_event_and_is_not_retried():
    async def scenario():
        throttle = Throttle(max_ratio=1)
        await ask(throttle, fails, 5)
        rng().random()
        with capture_events() as events:
            while not events:
                try:
                    await Retry(Exception, attempts=5).call(throttle(answers))
                except OverloadedError as error:
                    assert error.name == "Throttle"
                    assert error.retry_after is None
                    assert "of the calls are refused" in str(error)
        assert [each.name for each in events] == ["aiopatterns.throttle.rejected"]
        assert 0 < wrong(events[0]).ratio < 1
        await ask(throttle, fails, 50)  # nobody listens

    simulate(scenario)


async def test_as_a_policy_it_works_on_every_loop():
    throttle = Throttle()

    @throttle
    async def double(n):
        return 2 * n

    @throttle
    async def numbers():
        yield 1
        yield 2

    assert [await double(n) for n in range(3)] == [0, 2, 4]
    assert [n async for n in numbers()] == [1, 2]
    assert repr(throttle) == "Throttle(factor=2)"


def test_it_goes_on_where_another_stood():
    async def scenario():
        old, new = Throttle(), Throttle(factor=4)
        await ask(old, fails, 20)
        assert new.adopt(old)
        assert new.reject_ratio == old.reject_ratio
        other: Policy = Timeout(1)
        assert not new.adopt(other)
        assert not new.adopt(Throttle(window=1))

    simulate(scenario)


BAD = (
    (lambda: Throttle(factor=0.9), ValueError, "factor"),
    (lambda: Throttle(factor=math.nan), ValueError, "factor"),
    (lambda: Throttle(factor=math.inf), ValueError, "factor"),
    (lambda: Throttle(factor=wrong("2")), TypeError, "factor"),
    (lambda: Throttle(window=0), ValueError, "window"),
    (lambda: Throttle(window=math.inf), ValueError, "window"),
    (lambda: Throttle(window=wrong(None)), TypeError, "window"),
    (lambda: Throttle(max_ratio=-0.1), ValueError, "max_ratio"),
    (lambda: Throttle(max_ratio=1.1), ValueError, "max_ratio"),
    (lambda: Throttle(max_ratio=math.nan), ValueError, "max_ratio"),
    (lambda: Throttle(on=wrong("busy")), TypeError, "on"),
)


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(("make", "error", "name"), BAD, ids=range(len(BAD)))
def test_bad_input_is_one_clear_error(make, error, name):
    with pytest.raises(error, match=rf"^{name} must be"):
        make()
