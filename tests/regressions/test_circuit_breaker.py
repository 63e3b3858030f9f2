"""Defects of other circuit breakers, each a test that would find it here."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest

from aiopatterns.core import clock
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import CircuitOpenError
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.circuitstate import CircuitState
from aiopatterns.resilience.halfopen import HalfOpen
from aiopatterns.resilience.registry import PolicyRegistry
from aiopatterns.resilience.trip import Consecutive, Count, Seconds, Trip
from aiopatterns.testing import simulate


def after(n, **options):
    return CircuitBreaker("it", trip=Trip(Consecutive(n)), **options)


async def fail(error: Exception | None = None):
    await sleep(0)
    raise error or OSError("the real one")


async def cancelled(call):
    task = asyncio.create_task(call())
    await sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_circuitbreaker_purgatory_aiobreaker_hyx_half_open_admits_its_probes_and_not_20_of_20():
    async def scenario():
        breaker = after(1, open_for=1)
        with pytest.raises(OSError):
            await breaker.call(fail)
        await sleep(1)
        admitted = []

        @breaker
        async def call():
            admitted.append(1)
            await sleep(1)

        async def caller():
            with suppress(CircuitOpenError):
                await call()

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(caller)
        assert len(admitted) == 1

    simulate(scenario)


async def test_circuitbreaker_a_cancelled_call_does_not_reset_the_count():
    breaker = after(2)
    with pytest.raises(OSError):
        await breaker.call(fail)
    await cancelled(breaker(anyio.sleep_forever))
    with pytest.raises(OSError):
        await breaker.call(fail)
    assert breaker.state is CircuitState.OPEN


async def test_purgatory_cancelled_calls_do_not_open_it():
    breaker = after(2)
    for _ in range(4):
        await cancelled(breaker(anyio.sleep_forever))
    assert breaker.state is CircuitState.CLOSED
    assert breaker.statistics().in_flight == 0


async def test_polly_a_cancelled_probe_does_not_close_it():
    breaker = after(1, open_for=0.001)
    with pytest.raises(OSError):
        await breaker.call(fail)
    await sleep(0.002)
    await cancelled(breaker(anyio.sleep_forever))
    assert breaker.state is CircuitState.HALF_OPEN
    assert await breaker.call(sleep, 0) is None
    assert breaker.statistics().state is CircuitState.CLOSED


@pytest.mark.parametrize("half_open", [False, True])
def test_circuitbreaker_and_polly_217_a_late_success_closes_nothing(half_open):
    async def scenario():
        breaker = after(2, open_for=5)
        async with anyio.create_task_group() as group:
            group.start_soon(breaker(sleep), 10 if half_open else 1)
            await sleep(0.5)
            for _ in range(2):
                with pytest.raises(OSError):
                    await breaker.call(fail)
            if half_open:
                await sleep(6)
                probe = breaker.try_acquire()
                await sleep(4)
                assert breaker.state is CircuitState.HALF_OPEN
                probe.record("failure")
            await sleep(1)
            assert breaker.state is CircuitState.OPEN

    simulate(scenario)


async def test_aiobreaker_and_pybreaker_60_the_call_that_trips_raises_the_real_error():
    breaker = after(1)
    error = OSError("the real one")
    with pytest.raises(OSError) as caught:
        await breaker.call(fail, error)
    assert caught.value is error
    assert not isinstance(caught.value, CircuitOpenError)


async def test_circuitbreaker_24_the_refusal_names_the_breaker_and_the_last_error():
    breaker = after(1)
    with pytest.raises(OSError):
        await breaker.call(fail)
    with pytest.raises(CircuitOpenError) as refused:
        await breaker.call(fail)
    assert (refused.value.name, refused.value.cause) == ("it", "OSError('the real one')")


def test_purgatory_and_aiobreaker_a_wall_clock_that_jumps_changes_no_break():
    async def scenario():
        breaker = after(1, open_for=30)
        with pytest.raises(OSError):
            await breaker.call(fail)
        for jump in (-7200.0, 7200.0):
            source = clock._source
            previous = clock.set_source(replace(source, wall=partial(float, jump)))
            try:
                assert breaker.state is CircuitState.OPEN
                assert breaker.retry_after == 30 - monotonic()
            finally:
                clock.set_source(previous)
        await sleep(30)
        assert breaker.state is CircuitState.HALF_OPEN

    simulate(scenario)


async def test_pybreaker_7_a_stream_is_no_success_when_it_is_made():
    breaker = after(1)

    @breaker
    async def stream():
        yield 1
        raise OSError

    with pytest.raises(OSError):
        async for _ in stream():
            assert breaker.statistics().calls == 0
    assert breaker.state is CircuitState.OPEN


def test_pybreaker_7_a_plain_function_is_refused_when_it_is_decorated():
    def plain():
        return 1

    policy: Any = after(1)
    with pytest.raises(TypeError, match="must be an async function"):
        policy(plain)


async def test_resilience4j_exceptions_that_are_answers_count_as_successes():
    def judge(found):
        return "failure" if isinstance(found, OSError) else "success"

    breaker = CircuitBreaker("it", trip=Trip(Count(4)), judge=judge)
    for _ in range(4):
        with pytest.raises(ValueError):
            await breaker.call(fail, ValueError())
    assert breaker.statistics().successes == 4


def test_resilience4j_935_2028_a_probe_that_hangs_does_not_hold_it_for_ever():
    async def scenario():
        breaker = after(1, open_for=10)
        async with anyio.create_task_group() as group:
            with pytest.raises(OSError):
                await breaker.call(fail)
            await sleep(10)
            group.start_soon(breaker(anyio.sleep_forever))
            await sleep(10)
            assert breaker.state is CircuitState.OPEN
            await sleep(10)
            await breaker.call(sleep, 0)
            assert breaker.statistics().state is CircuitState.CLOSED
            group.cancel_scope.cancel()
        assert breaker.statistics().in_flight == 0

    simulate(scenario)


def test_resilience4j_903_an_ignored_probe_gives_its_place_back():
    async def scenario():
        breaker = after(1, half_open=HalfOpen(2), judge=lambda found: "ignore")
        breaker.open(1)
        await sleep(1)
        for _ in range(10):
            with pytest.raises(OSError):
                await breaker.call(fail)
        assert breaker.state is CircuitState.HALF_OPEN

    simulate(scenario)


def test_polly_1854_low_traffic_opens_it_too():
    async def scenario():
        breaker = CircuitBreaker("it", trip=Trip(Seconds(60), min_calls=3))
        for _ in range(3):
            with pytest.raises(OSError):
                await breaker.call(fail)
            await sleep(15)
        assert breaker.state is not CircuitState.CLOSED

    simulate(scenario)


async def test_resilience4j_clamped_a_minimum_above_the_window_is_refused():
    with pytest.raises(ValueError, match="min_calls must be at most the 10"):
        Trip(Count(10), min_calls=100)


async def test_resilience4j_975_2181_rules_change_while_it_is_open():
    policies = PolicyRegistry()
    handle = policies.define("db", after(1))
    with pytest.raises(OSError):
        await handle.call(fail)
    policies.reload("db", after(1, open_for=1))
    with pytest.raises(CircuitOpenError):
        await handle.call(fail)


def test_hyx_it_is_made_without_a_running_loop():
    assert after(1).state is CircuitState.CLOSED
