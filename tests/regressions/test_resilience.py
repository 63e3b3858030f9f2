"""Defects of other retry, timeout and rate-limit libraries, each a test that would find it here."""

from __future__ import annotations

import asyncio
import random
import warnings
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import TimeoutExceededError
from aiopatterns.resilience.backoff import Constant, Exponential
from aiopatterns.resilience.ratelimit import GCRA, Rate, SlidingWindow, TokenBucket
from aiopatterns.resilience.retry import Retry, Until
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.testing import simulate

AT_ONCE = Constant(0)


async def test_tenacity_529_a_cancellation_is_never_retried():
    calls = 0

    async def work():
        nonlocal calls
        calls += 1
        await anyio.sleep_forever()

    task = asyncio.create_task(Retry(lambda e: True, backoff=AT_ONCE).call(work))
    await sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == 1


async def test_stamina_a_predicate_never_sees_a_cancellation():
    shown: list[BaseException] = []

    def predicate(error):
        shown.append(error)
        return True

    with anyio.CancelScope() as scope:
        scope.cancel()
        await Retry(predicate).call(anyio.sleep_forever)
    assert scope.cancelled_caught
    assert not shown


async def test_tenacity_93_calls_that_share_a_policy_do_not_share_their_count():
    retry = Retry(OSError, attempts=3, backoff=AT_ONCE)
    calls = {"a": 0, "b": 0}

    async def fail(name):
        calls[name] += 1
        await sleep(0)
        raise OSError(name)

    async with anyio.create_task_group() as group:
        for name in calls:

            async def call(name=name):
                with pytest.raises(OSError, match=name):
                    await retry.call(fail, name)

            group.start_soon(call)
    assert calls == {"a": 3, "b": 3}


def test_tenacity_104_and_polly_2163_backoff_does_not_overflow():
    for jitter in ("full", "decorrelated"):
        assert 0 <= Exponential(jitter=jitter).delay(10**6, rng=random.Random(1)) <= 5


def test_stamina_a_limit_of_time_stops_a_hung_attempt_and_spares_a_late_sleep():
    async def scenario():
        start = monotonic()
        with pytest.raises(TimeoutExceededError):
            await Retry(OSError, until=Until(total=0.3)).call(anyio.sleep_forever)
        assert monotonic() - start == pytest.approx(0.3)

        async def fail():
            raise OSError

        start = monotonic()
        with pytest.raises(OSError):
            await Retry(OSError, backoff=Constant(1), until=Until(elapsed=0.3)).call(fail)
        assert monotonic() == start

    simulate(scenario)


async def test_stamina_60_it_says_which_limit_ended_it():
    async def fail():
        raise OSError

    with pytest.raises(OSError) as caught:
        await Retry(OSError, attempts=2, backoff=AT_ONCE).call(fail)
    assert "no attempt is left" in caught.value.__notes__[0]
    with pytest.raises(OSError) as caught:
        await Retry(OSError, backoff=Constant(9), until=Until(elapsed=1)).call(fail)
    assert "the next would begin too late" in caught.value.__notes__[0]


async def test_stamina_60_a_plain_for_is_refused():
    retry: Any = Retry(OSError).attempts()
    with pytest.raises(TypeError):
        iter(retry)


async def test_stamina_19_nested_retries_are_noticed():
    calls = 0

    async def fail():
        nonlocal calls
        calls += 1
        raise OSError

    retry = Retry(OSError, attempts=2, backoff=AT_ONCE)
    with pytest.warns(RuntimeWarning, match="their attempts multiply"), pytest.raises(OSError):
        await retry(retry(fail))()
    assert calls == 4


async def test_hyx_a_timeout_error_of_the_work_is_not_rewritten():
    async def work():
        raise TimeoutError("the work's own")

    with pytest.raises(TimeoutError, match="the work's own") as caught:
        await Timeout(60).call(work)
    assert type(caught.value) is TimeoutError


def test_hyx_one_timeout_used_by_two_tasks_ends_both():
    timeout = Timeout(1)

    async def scenario():
        ended = []

        async def call():
            with pytest.raises(TimeoutExceededError):
                await timeout.call(anyio.sleep_forever)
            ended.append(monotonic())

        start = monotonic()
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            group.start_soon(call)
        assert ended == pytest.approx([start + 1] * 2)

    simulate(scenario)


def test_hyx_policies_are_made_without_a_running_loop():
    policies = (
        TokenBucket(Rate(1)),
        GCRA(Rate(1)),
        SlidingWindow(Rate(1)),
        Timeout(1),
        Retry(OSError),
    )
    assert len(policies) == 5


def test_aiolimiter_reuse_on_another_loop_neither_warns_nor_blocks():
    bucket = TokenBucket(Rate(1))

    async def wait():
        await bucket.acquire()
        await bucket.acquire()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            simulate(wait)


def test_aiolimiter_a_big_request_does_not_starve():
    async def scenario():
        bucket = TokenBucket(Rate(4))
        bucket.try_acquire(4)
        order = []

        async def call(name, cost):
            await bucket.acquire(cost)
            order.append(name)

        async with anyio.create_task_group() as group:
            for name, cost in (("s0", 1), ("big", 4), ("s1", 1), ("s2", 1)):
                group.start_soon(call, name, cost)
                await sleep(0.001)
        assert order == ["s0", "big", "s1", "s2"]

    simulate(scenario)


@pytest.mark.promise("regression-09-window-edge-burst")
@pytest.mark.parametrize("idle", [0.0, 0.5, 0.999, 60.0])
def test_aiolimiter_298_a_burst_at_the_edge_of_a_window_or_after_idling(idle):
    """Each limiter by its promise: see the table in its docs."""

    async def busiest(limiter):
        await sleep(idle)
        times: list[float] = []
        for _ in range(300):
            if limiter.try_acquire().allowed:
                times.append(monotonic())
            await sleep(0.01)
        return max(sum(at <= each < at + 0.999 for each in times) for at in times)

    async def scenario():
        assert await busiest(SlidingWindow(Rate(10))) == 10
        assert await busiest(GCRA(Rate(10))) <= 11
        assert await busiest(TokenBucket(Rate(10), burst=10)) <= 20
        assert await busiest(TokenBucket(Rate(10), burst=1)) <= 11

    simulate(scenario)


def test_aiolimiter_73_many_waiters_have_one_timer():
    async def scenario():
        bucket = TokenBucket(Rate(1000), burst=1)
        async with anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(bucket.acquire)
            await sleep(0.05)
            assert len(bucket._one.line) > 100
            loop = asyncio.get_running_loop()
            timers = [t for t in getattr(loop, "_scheduled", ()) if not t.cancelled()]
            assert len(timers) <= 2  # the limiter's, and at most one other

    simulate(scenario)


async def test_pyrate_limiter_a_wait_does_not_block_the_loop():
    bucket = TokenBucket(Rate(50), burst=1)
    await bucket.acquire()
    turns = 0
    async with anyio.create_task_group() as group:
        group.start_soon(bucket.acquire)
        while len(bucket._one.line) or not turns:
            turns += 1
            await sleep(0.001)
    assert turns > 2


async def test_pybreaker_7_a_policy_on_a_plain_function_is_refused_when_it_decorates():
    def plain():
        return 1

    for policy in (Retry(OSError), Timeout(1), TokenBucket(Rate(1))):
        with pytest.raises(TypeError, match="must be an async function"):
            policy(plain)
