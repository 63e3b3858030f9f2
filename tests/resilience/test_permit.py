"""Permits and guards: each call ends once, however it ends."""

from __future__ import annotations

import gc
import math
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import CircuitOpenError, RateLimitedError
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.circuitstate import CircuitState
from aiopatterns.resilience.trip import Consecutive, Count, Slow, Trip
from aiopatterns.testing import Trial, cancel_everywhere, simulate


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


def one(**options):
    return CircuitBreaker("it", trip=Trip(Consecutive(1)), **options)


def counts(breaker):
    seen = breaker.statistics()
    return seen.successes, seen.failures, seen.in_flight


async def test_a_permit_records_once():
    breaker = CircuitBreaker("it", trip=Trip(Count(10)))
    permit = breaker.try_acquire()
    assert counts(breaker) == (0, 0, 1)
    assert not permit.released
    permit.record("success")
    assert counts(breaker) == (1, 0, 0)
    assert permit.released
    for outcome in ("success", "failure", "ignore"):
        with pytest.raises(RuntimeError, match="has ended already"):
            permit.record(wrong(outcome))
    permit.drop()
    assert counts(breaker) == (1, 0, 0)


async def test_ignore_is_an_end_as_well():
    breaker = one()
    permit = breaker.try_acquire()
    permit.record("ignore")
    assert counts(breaker) == (0, 0, 0)
    with pytest.raises(RuntimeError):
        permit.record("ignore")


@pytest.mark.untraced
async def test_a_permit_that_is_dropped_says_nothing():
    breaker = one()
    breaker.try_acquire()
    gc.collect()
    assert counts(breaker) == (0, 0, 0)
    breaker.open(0.001)
    await sleep(0.002)
    breaker.try_acquire()  # the one probe, and it is gone at once
    gc.collect()
    assert breaker.statistics().state is CircuitState.HALF_OPEN
    breaker.try_acquire().record("success")
    assert breaker.state is CircuitState.CLOSED


def test_elapsed_is_measured_unless_it_is_said():
    async def scenario():
        breaker = CircuitBreaker("it", trip=Trip(Count(10), slow=Slow(5, 1.0)))
        permit = breaker.try_acquire()
        await sleep(2)
        permit.record("success")
        assert breaker.statistics().mean_elapsed == 2.0
        breaker.try_acquire().record("success", elapsed=8)
        assert breaker.statistics().mean_elapsed == 5.0
        assert breaker.statistics().slow == 1
        breaker.try_acquire().record("success", elapsed=0)
        assert breaker.statistics().calls == 3

    simulate(scenario)


@pytest.mark.promise("resilience-bad-input")
async def test_a_senseless_record_leaves_the_permit_as_it_was():
    breaker = CircuitBreaker("it", trip=Trip(Count(10)))
    permit = breaker.try_acquire()
    with pytest.raises(ValueError, match=r"^outcome must be one of 'success', 'failure', 'ignore'"):
        permit.record(wrong("ok"))
    for elapsed in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"^elapsed must be a finite number >= 0"):
            permit.record("success", elapsed=elapsed)
    with pytest.raises(TypeError, match=r"^elapsed must be"):
        permit.record("success", elapsed=wrong("1"))
    assert counts(breaker) == (0, 0, 1)
    permit.record("failure")
    assert counts(breaker) == (0, 1, 0)


async def test_a_guard_ends_by_how_the_block_is_left():
    breaker = CircuitBreaker("it", trip=Trip(Count(10)))
    async with breaker.guard():
        assert counts(breaker) == (0, 0, 1)
    assert counts(breaker) == (1, 0, 0)
    error = OSError()
    with pytest.raises(OSError) as raised:
        async with breaker.guard():
            raise error
    assert raised.value is error
    assert counts(breaker) == (1, 1, 0)
    with pytest.raises(RateLimitedError):
        async with breaker.guard():
            raise RateLimitedError
    assert counts(breaker) == (1, 1, 0)
    for ends in (KeyboardInterrupt, GeneratorExit):
        with pytest.raises(ends):
            async with breaker.guard():
                raise ends
    assert counts(breaker) == (1, 1, 0)


async def test_the_block_may_say_otherwise():
    breaker = CircuitBreaker("it", trip=Trip(Count(10)))
    async with breaker.guard() as permit:
        permit.record("failure")
    assert counts(breaker) == (0, 1, 0)
    with pytest.raises(OSError):
        async with breaker.guard() as permit:
            permit.record("success")
            raise OSError
    assert counts(breaker) == (1, 1, 0)


async def test_a_guard_asks_the_judge_about_errors_only():
    seen = []

    def judge(found):
        seen.append(found)
        return "ignore"

    breaker = one(judge=judge)
    error = OSError()
    async with breaker.guard():
        pass
    with pytest.raises(OSError):
        async with breaker.guard():
            raise error
    assert seen == [error]
    assert counts(breaker) == (1, 0, 0)


async def test_a_judge_that_raises_gives_the_permit_back():
    def judge(found):
        raise LookupError

    breaker = one(judge=judge)
    with pytest.raises(LookupError) as raised:
        async with breaker.guard():
            raise OSError
    assert isinstance(raised.value.__context__, OSError)
    assert counts(breaker) == (0, 0, 0)


async def test_a_guard_is_used_once_and_refuses_like_the_breaker():
    breaker = one()
    guard = breaker.guard()
    async with guard:
        pass
    with pytest.raises(RuntimeError, match="a guard is used once"):
        async with guard:
            pass
    breaker.open()
    refused = breaker.guard()
    with pytest.raises(CircuitOpenError):
        async with refused:
            pass
    await refused.__aexit__(None, None, None)
    assert counts(breaker)[2] == 0


async def test_a_guard_opens_the_circuit_and_its_error_is_known():
    breaker = one()
    with pytest.raises(OSError):
        async with breaker.guard():
            raise OSError("down")
    with pytest.raises(CircuitOpenError) as refused:
        breaker.try_acquire()
    assert refused.value.cause == "OSError('down')"


@pytest.mark.promise("resilience-cancel-everywhere")
@pytest.mark.parametrize("half_open", [False, True])
def test_cancelled_anywhere_in_a_guard_a_permit_is_given_back(half_open):
    def factory():
        breaker = one()
        done = []
        if half_open:
            breaker.open(1)

        async def work():
            await sleep(2)
            for _ in range(2):
                async with breaker.guard():
                    await sleep(0)
                    await sleep(1)
                done.append(True)

        async def check():
            await sleep(1)  # the cancellation may have come during the break
            seen = breaker.statistics()
            assert seen.in_flight == seen.failures == 0
            if half_open and not done:
                assert seen.state is CircuitState.HALF_OPEN
            breaker.try_acquire().record("success")
            assert breaker.state is CircuitState.CLOSED

        return Trial(work(), check)

    cancel_everywhere(factory, kinds=("native", "scope", "timeout", "native-twice"), minimum=5)


async def test_a_timeout_around_the_block_is_no_failure():
    breaker = one()
    with anyio.move_on_after(0.001):
        async with breaker.guard():
            await anyio.sleep_forever()
    assert counts(breaker) == (0, 0, 0)
