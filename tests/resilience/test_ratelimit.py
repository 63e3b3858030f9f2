"""Limiters: promises of each algorithm, order, refusals, conservation, keys, being a policy."""

from __future__ import annotations

import math
import random
from collections import deque
from itertools import pairwise
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import bind_deadline
from aiopatterns.core.errors import RateLimitedError
from aiopatterns.resilience import ratelimit
from aiopatterns.resilience.ratelimit import GCRA, Rate, SlidingWindow, TokenBucket
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, explore, simulate

LIMITERS = {
    "TokenBucket": lambda **options: TokenBucket(Rate(2), **options),
    "GCRA": lambda **options: GCRA(Rate(2), burst=2, **options),
    "SlidingWindow": lambda **options: SlidingWindow(Rate(2), **options),
}
every_limiter = pytest.mark.parametrize("make", LIMITERS.values(), ids=LIMITERS)


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


def takes(limiter, attempts):
    return sum(limiter.try_acquire().allowed for _ in range(attempts))


def test_a_token_bucket_saves_up_to_its_burst():
    async def scenario():
        bucket = TokenBucket(Rate(10), burst=20)
        assert takes(bucket, 100) == 20
        await sleep(1)
        assert takes(bucket, 100) == 10
        await sleep(60)
        assert takes(bucket, 100) == 20

    simulate(scenario)


def test_gcra_spaces_evenly():
    async def scenario():
        limiter = GCRA(Rate(10))
        times = []
        for _ in range(5):
            await limiter.acquire()
            times.append(monotonic())
        gaps = [after - before for before, after in pairwise(times)]
        assert gaps == pytest.approx([0.1] * 4)

    simulate(scenario)


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.floats(0, 0.7), st.sampled_from([0.5, 1.0, 2.0])), max_size=60),
)
def test_a_sliding_window_never_exceeds_its_limit_in_any_window(limit, steps):
    async def scenario():
        window = SlidingWindow(Rate(limit))
        taken: deque[tuple[float, float]] = deque()
        for wait, cost in steps:
            await sleep(wait)
            now = monotonic()
            used = sum(each for at, each in taken if at > now - 1 + 1e-6)
            surely = sum(each for at, each in taken if at > now - 1 - 1e-6)
            grant = window.try_acquire(cost)
            assert not grant.allowed or used + cost <= limit + 1e-6
            assert grant.allowed or surely + cost > limit - 1e-6
            if grant.allowed:
                taken.append((now, cost))

    simulate(scenario)


@given(
    st.sampled_from([1.0, 2.0, 5.0]),
    st.lists(st.tuples(st.floats(0, 2), st.sampled_from([0.5, 1.0, 2.0, 5.0])), max_size=60),
)
def test_a_bucket_agrees_with_the_plain_model(burst, steps):
    async def scenario():
        bucket = TokenBucket(Rate(3, per=2), burst=burst)
        tokens, at = burst, monotonic()
        for wait, cost in steps:
            await sleep(wait)
            tokens, at = min(burst, tokens + (monotonic() - at) * 1.5), monotonic()
            if abs(tokens - cost) < 1e-6:
                continue
            grant = bucket.try_acquire(cost)
            assert grant.allowed is (tokens > cost)
            tokens -= cost * grant.allowed
            assert abs(grant.remaining - tokens) < 1.001
            assert grant.reset_after == pytest.approx((burst - tokens) / 1.5)
            if not grant.allowed:
                never = cost > burst
                assert grant.retry_after == (
                    math.inf if never else pytest.approx((cost - tokens) / 1.5)
                )

    simulate(scenario)


def test_memory_of_a_busy_window_is_bounded_and_it_stays_strict():
    async def scenario():
        window = SlidingWindow(Rate(5000))
        dice = random.Random(1)
        taken: deque[float] = deque()
        for _ in range(9000):
            await sleep(dice.random() * 0.0003)
            now = monotonic()
            while taken and taken[0] <= now - 1:
                taken.popleft()
            if window.try_acquire().allowed:
                taken.append(now)
            assert len(taken) <= 5000
        assert len(wrong(window._one)._slices) <= 2100
        await sleep(1.01)
        assert takes(window, 6000) == 5000

    simulate(scenario)


@every_limiter
@pytest.mark.promise("resilience-refused-consumes-nothing")
def test_a_refused_call_consumes_nothing(make):
    async def scenario():
        limiter = make()
        assert takes(limiter, 2) == 2
        before = limiter.peek()
        for _ in range(50):
            assert not limiter.try_acquire().allowed
            with pytest.raises(RateLimitedError):
                await limiter.acquire(max_wait=0)
        assert limiter.peek() == before
        await sleep(before.retry_after)
        assert limiter.try_acquire().allowed

    simulate(scenario)


@every_limiter
def test_the_answer_says_what_is_left_and_when(make):
    async def scenario():
        limiter = make()
        assert limiter.peek() == (True, 0.0, 2, 0.0)
        assert limiter.try_acquire() == (True, 0.0, 1, pytest.approx(0.5, abs=0.51))
        assert limiter.try_acquire().remaining == 0
        refused = limiter.try_acquire()
        assert not refused.allowed
        assert 0 < refused.retry_after <= refused.reset_after == pytest.approx(1.0)
        await sleep(refused.reset_after)
        assert limiter.peek() == (True, 0.0, 2, pytest.approx(0))

    simulate(scenario)


@every_limiter
def test_waiting_is_first_come_first_served_and_keeps_the_rate(make):
    async def scenario():
        limiter = make()
        start, order = monotonic(), []

        async def call(number, cost):
            grant = await limiter.acquire(cost)
            assert grant.allowed
            order.append((number, monotonic() - start))

        async with anyio.create_task_group() as group:
            for number, cost in enumerate((1, 1, 2, 1, 1)):
                group.start_soon(call, number, cost)
                await sleep(1e-6)  # the simulation shuffles what is ready at one time
        assert [number for number, _ in order] == [0, 1, 2, 3, 4]
        return [at for _, at in order]

    expected = [0, 0, 1, 2, 2] if make is LIMITERS["SlidingWindow"] else [0, 0, 1, 1.5, 2]
    assert simulate(scenario) == pytest.approx(expected, abs=1e-5)


@every_limiter
def test_nobody_passes_a_waiting_task(make):
    async def scenario():
        limiter = make()
        takes(limiter, 2)
        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire, 2)
            await sleep(0.7)
            refused = limiter.try_acquire()  # a token is there, but it is spoken for
            assert not refused.allowed
            assert refused.remaining == 0
            assert refused.retry_after >= 0.3
            with pytest.raises(RateLimitedError) as caught:
                await limiter.acquire(max_wait=0.2)
            assert caught.value.retry_after == pytest.approx(refused.retry_after)

    simulate(scenario)


@every_limiter
def test_a_wait_that_would_be_too_long_is_refused_at_once(make):
    async def scenario():
        limiter = make(max_wait=1.2)
        takes(limiter, 2)
        start = monotonic()
        with capture_events() as events:
            async with anyio.create_task_group() as group:
                group.start_soon(limiter.acquire, 2)
                await sleep(0.1)
                with pytest.raises(RateLimitedError) as caught:
                    await limiter.acquire(2)
                assert monotonic() - start == pytest.approx(0.1)
                group.start_soon(lambda: limiter.acquire(2, max_wait=math.inf))
        assert monotonic() - start == pytest.approx(2)
        assert caught.value.retry_after == pytest.approx(1.9)
        assert caught.value.name == type(limiter).__name__
        assert [event.name for event in events] == ["aiopatterns.ratelimit.rejected"]

    simulate(scenario)


@every_limiter
def test_a_wait_that_would_end_after_the_deadline_is_refused_at_once(make):
    async def scenario():
        limiter = make()
        takes(limiter, 2)
        with bind_deadline(monotonic() + 0.3), pytest.raises(RateLimitedError):
            await limiter.acquire()
        with bind_deadline(monotonic() + 5):
            await limiter.acquire()

    simulate(scenario)


@every_limiter
@pytest.mark.promise("resilience-permits", "resilience-cancel-everywhere")
def test_tokens_are_conserved_when_cancelled_anywhere(make):
    def factory():
        limiter = make()
        takes(limiter, 2)
        began = monotonic()
        got = []

        async def call(cost):
            await limiter.acquire(cost)
            got.append((monotonic(), cost))

        async def work():
            async with anyio.create_task_group() as group:
                for cost in (1, 2, 1):
                    group.start_soon(call, cost)
                await call(1)

        async def check():
            assert not limiter._one.line
            assert limiter._one._timer is None
            # As if the cancelled had never come: what was taken, and no more, is missing.
            await sleep(10 - (monotonic() - began))
            assert takes(limiter, 5) == 2

        return Trial(work(), check)

    cancel_everywhere(factory, kinds=("native", "scope", "timeout", "native-twice"), minimum=2)


@every_limiter
@pytest.mark.promise("resilience-permits")
def test_what_was_taken_for_a_task_that_is_cancelled_goes_to_the_next(make):
    async def scenario():
        limiter = make()
        takes(limiter, 2)
        done = []

        async def call(name, scope):
            with scope:
                await limiter.acquire(2)
                done.append((name, monotonic()))

        scopes = [anyio.CancelScope() for _ in range(3)]
        start = monotonic()
        async with anyio.create_task_group() as group:
            for name, scope in enumerate(scopes):
                group.start_soon(call, name, scope)
                await sleep(0.001)
            await sleep(start + 1 - monotonic())
            # In this very turn the first is served, or has just been: cancelled either way.
            scopes[0].cancel()
            scopes[1].cancel()
        assert [name for name, _ in done if name] == [2]
        assert done[-1][1] - start <= 2 + 1e-6
        assert limiter.peek().remaining == 0

    explore(scenario, range(60))


@every_limiter
@pytest.mark.promise("resilience-seeds", "resilience-permits")
def test_the_rate_holds_under_any_schedule_and_any_cancellation(make):
    async def scenario():
        limiter = make()
        dice = random.Random(monotonic())
        times = []

        async def call(number):
            await sleep(number % 7 * 0.1)
            with anyio.move_on_after(None if number % 3 else 0.5 + number * 0.1):
                await limiter.acquire(1 + number % 2)
                times.extend([monotonic()] * (1 + number % 2))
            await sleep(dice.random())

        start = monotonic()
        async with anyio.create_task_group() as group:
            for number in range(16):
                group.start_soon(call, number)
        for index, at in enumerate(times):
            assert index + 1 <= 2 + 2 * (at - start) + 1e-6
        assert not limiter._one.line

    explore(scenario, range(67))


@every_limiter
async def test_one_object_serves_successive_loops_and_clocks(make):
    limiter = make()
    assert takes(limiter, 5) == 2


@every_limiter
def test_a_clock_that_goes_back_blocks_nobody(make):
    limiter = make()

    async def late():
        await sleep(1000)
        assert takes(limiter, 5) == 2

    async def early():
        await limiter.acquire()
        await limiter.acquire()

    simulate(late)
    simulate(early)


@every_limiter
async def test_a_cost_that_can_never_be_there(make):
    limiter = make()
    assert limiter.try_acquire(3) == (False, math.inf, 2, 0.0)
    assert limiter.peek(3).allowed is False
    with pytest.raises(ValueError, match=r"^cost must be at most 2 for"):
        await limiter.acquire(3)
    assert takes(limiter, 3) == 2


@every_limiter
async def test_keys_have_limits_of_their_own(make):
    limiter = make()
    assert [limiter.try_acquire(key="a").allowed for _ in range(3)] == [True, True, False]
    assert limiter.peek(key="b") == (True, 0.0, 2, 0.0)
    assert "b" not in limiter._meters
    assert (await limiter.acquire(key="b")).remaining == 1
    assert takes(limiter, 3) == 2


@every_limiter
def test_keys_at_rest_are_forgotten(make):
    async def scenario():
        limiter = make()
        for number in range(500):
            limiter.try_acquire(key=number)
            await sleep(0.1)
        assert len(limiter._meters) <= 12

    simulate(scenario)


@every_limiter
def test_keys_are_bounded_but_none_on_which_a_task_waits_is_forgotten(make, monkeypatch):
    async def scenario():
        monkeypatch.setattr(ratelimit, "MAX_KEYS", 10)
        limiter = make()
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(lambda: limiter.acquire(2, key="waits"))
            await sleep(0)
            await sleep(0)
            for number in range(100):
                limiter.try_acquire(key=number)
                assert len(limiter._meters) <= 11
            assert not limiter.try_acquire(key="waits").allowed

    simulate(scenario)


@every_limiter
async def test_as_a_policy_it_takes_one_token_for_each_call(make):
    async def double(n):
        return 2 * n

    limiter = make(max_wait=0)
    limited = limiter(double)
    assert [await limited(n) for n in (1, 2)] == [2, 4]
    with pytest.raises(RateLimitedError, match="used up; try again in"):
        await limited(3)
    assert limiter.bound(3) == 3


@every_limiter
async def test_a_function_decorated_before_takes_from_what_was_adopted(make):
    old, new = make(max_wait=0), make(max_wait=0)

    @new
    async def call():
        return "done"

    assert not new.adopt(TokenBucket(Rate(7)))
    assert new.adopt(old)
    assert takes(old, 5) == 2
    with pytest.raises(RateLimitedError):
        await call()


@every_limiter
async def test_as_a_policy_with_a_key(make):
    async def load(user, n):
        return user, n

    limited = make(max_wait=0, key=lambda user, n: user)(load)
    assert [await limited("a", n) for n in (1, 2)] == [("a", 1), ("a", 2)]
    assert await limited("b", 1) == ("b", 1)
    assert await make(key=lambda user, n: None)(load)("c", 1) == ("c", 1)
    with pytest.raises(RateLimitedError):
        await limited("a", 3)


@every_limiter
def test_as_a_policy_it_waits(make):
    async def nothing():
        pass

    async def scenario():
        start = monotonic()
        limited = make()(nothing)
        keyed = make(key=lambda: 1)(nothing)
        for _ in range(3):
            await limited()
            await keyed()
        return monotonic() - start

    assert 0.5 <= simulate(scenario) <= 1.5


async def test_a_stream_takes_one_token():
    bucket = TokenBucket(Rate(1), max_wait=0)

    @bucket
    async def stream():
        yield 1
        yield 2

    assert [n async for n in stream()] == [1, 2]
    with pytest.raises(RateLimitedError):
        await anext(stream())


def test_names():
    assert repr(TokenBucket(Rate(5, per=60))) == "TokenBucket(5 per 60 s)"
    assert GCRA(Rate(5)).rate == Rate(5, per=1.0)
    assert TokenBucket(Rate(0.5)).peek().remaining == 1


BAD = (
    (lambda: Rate(0), ValueError, "amount"),
    (lambda: Rate(math.nan), ValueError, "amount"),
    (lambda: Rate(1, per=0), ValueError, "per"),
    (lambda: Rate(wrong("1")), TypeError, "amount"),
    (lambda: TokenBucket(wrong(100)), TypeError, "rate"),
    (lambda: TokenBucket(Rate(1), burst=0), ValueError, "burst"),
    (lambda: TokenBucket(Rate(1), burst=0.5), ValueError, "burst"),
    (lambda: TokenBucket(Rate(1), key=wrong("user")), TypeError, "key"),
    (lambda: TokenBucket(Rate(1), max_wait=-1), ValueError, "max_wait"),
    (lambda: GCRA(Rate(1), burst=math.inf), ValueError, "burst"),
    (lambda: GCRA(wrong(None)), TypeError, "rate"),
    (lambda: SlidingWindow(Rate(0.5)), ValueError, "rate.amount"),
    (lambda: TokenBucket(Rate(1)).try_acquire(0), ValueError, "cost"),
    (lambda: TokenBucket(Rate(1)).try_acquire(wrong("1")), TypeError, "cost"),
    (lambda: TokenBucket(Rate(1)).peek(-1), ValueError, "cost"),
)


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(("make", "error", "name"), BAD, ids=range(len(BAD)))
def test_bad_input_is_one_clear_error(make, error, name):
    with pytest.raises(error, match=rf"^{name} must be"):
        make()


@pytest.mark.promise("resilience-bad-input")
async def test_bad_input_of_acquire_consumes_nothing():
    bucket = TokenBucket(Rate(1))
    with pytest.raises(ValueError, match=r"^cost must be"):
        await bucket.acquire(math.nan)
    with pytest.raises(ValueError, match=r"^max_wait must be"):
        await bucket.acquire(max_wait=-1)
    assert bucket.try_acquire().allowed
