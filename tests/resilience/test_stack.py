"""Stacks: order, compilation, lints, the standard order, and what explain says."""

from __future__ import annotations

import math
import warnings
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import RateLimitedError, TimeoutExceededError
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.policy import Policy
from aiopatterns.resilience.ratelimit import Rate, TokenBucket
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.singleflight import SingleFlight
from aiopatterns.resilience.stack import Stack, StackWarning
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.testing import Trial, cancel_everywhere, explore, simulate


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


class Traced(Policy):
    """Writes down when a call enters and leaves it."""

    def __init__(self, name, log):
        self.name = name
        self.log = log

    def __repr__(self):
        return f"Traced({self.name!r})"

    def wrap(self, fn):
        async def traced(*args, **kwargs):
            self.log.append(f"+{self.name}")
            try:
                return await fn(*args, **kwargs)
            finally:
                self.log.append(f"-{self.name}")

        return traced


def kinds(*names):
    made = {name: type(name, (Traced,), {"kind": name}) for name in names}
    return [made[name](name, []) for name in names]


async def echo(*args, **kwargs):
    await sleep(0)
    return args, kwargs


async def test_the_first_is_the_outermost():
    log: list[str] = []
    stack = Stack(Traced("a", log), Traced("b", log), Traced("c", log))
    assert await stack(echo)(1, x=2) == ((1,), {"x": 2})
    assert log == ["+a", "+b", "+c", "-c", "-b", "-a"]
    assert await stack.call(echo, 3) == ((3,), {})


async def test_stacks_of_stacks_are_flat():
    log: list[str] = []
    inner = Stack(Traced("b", log), Traced("c", log))
    stack = Stack(Traced("a", log), inner)
    await stack.call(echo)
    assert log[:3] == ["+a", "+b", "+c"]
    assert [wrong(policy).name for policy in stack.policies] == ["a", "b", "c"]


async def test_streams_pass_through_all():
    log: list[str] = []

    @Stack(Traced("a", log), Timeout(10), Traced("b", log))
    async def stream(n):
        for i in range(n):
            yield i

    assert [i async for i in stream(3)] == [0, 1, 2]
    assert log == ["+a", "+b", "-b", "-a"]


def test_a_whole_stack_at_work():
    async def scenario():
        calls = []

        async def flaky():
            calls.append(round(monotonic() - start, 6))
            if len(calls) == 1:
                await sleep(100)
            if len(calls) == 2:
                raise OSError
            return "done"

        stack = Stack(
            Timeout(20),
            Retry(OSError, backoff=Constant(1)),
            TokenBucket(Rate(1, per=4), burst=1),
            Timeout(2),
        )
        start = monotonic()
        assert await stack.call(flaky) == "done"
        assert calls == pytest.approx([0, 4, 8])
        start = monotonic()
        calls.clear()
        with pytest.raises(RateLimitedError):  # the deadline is nearer than the next token
            await Timeout(1).call(stack(flaky))

    simulate(scenario)


@pytest.mark.promise("resilience-cancel-everywhere")
def test_cancelled_anywhere_a_stack_leaves_nothing():
    def factory():
        bucket = TokenBucket(Rate(1), burst=1)
        stack = Stack(Timeout(50), Retry(OSError, backoff=Constant(1)), bucket, Timeout(5))
        calls = 0

        async def flaky():
            nonlocal calls
            calls += 1
            await sleep(1)
            if calls < 3:
                raise OSError

        async def check():
            await sleep(5)
            assert bucket.try_acquire().allowed
            assert not bucket.try_acquire().allowed

        return Trial(stack.call(flaky), check)

    cancel_everywhere(factory, kinds=("native", "scope", "timeout", "native-twice"), minimum=5)


@pytest.mark.promise("resilience-seeds")
@pytest.mark.parametrize(
    ("budgets", "active", "fires"),
    [
        ((10, 2), [2], 2),
        ((2, 10), [2], 2),
        ((2, 2), [2], 2),
        ((10, 5, 2), [2], 2),
        ((10, 2, 5), [2], 2),
        ((3, 9, 1), [1], 1),
    ],
    ids=str,
)
def test_neighbouring_timeouts_share_one_scope(budgets, active, fires):
    stack = Stack(*map(Timeout, budgets))
    assert [wrong(policy).seconds for policy in stack._active] == active

    async def scenario():
        with pytest.raises(TimeoutExceededError) as caught:
            await stack.call(sleep, 100)
        assert caught.value.timeout == fires

    explore(scenario, range(20))


def test_timeouts_that_mean_different_things_are_kept():
    retry = Retry(OSError)
    assert len(Stack(Timeout(10), retry, Timeout(2))._active) == 3
    assert len(Stack(Timeout(2), retry, Timeout(10))._active) == 2
    assert len(Stack(Timeout(10), Timeout(2, stream="each"))._active) == 2
    assert len(Stack(Timeout(2), Timeout(10, stream="each"))._active) == 2


def test_a_timeout_inside_a_single_flight_bounds_the_flight():
    """Each caller waits 2 s at most, but one after the other they would keep it up for ever."""
    stack = Stack(Timeout(2), SingleFlight(), Timeout(5))
    assert len(stack._active) == 3
    assert not any("can never fire" in text for text in stack.lints)
    assert len(Stack(Timeout(2), SingleFlight(), Timeout(5), Timeout(6))._active) == 3
    ended = []

    @stack
    async def hang(key):
        try:
            await sleep(1000)
        finally:
            ended.append(monotonic())

    async def ask():
        with pytest.raises(TimeoutExceededError):
            await hang("key")

    async def scenario():
        async with anyio.create_task_group() as callers:
            for _ in range(6):
                callers.start_soon(ask)
                await sleep(1)
        assert ended == [5, 7]

    simulate(scenario)


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (("breaker", "retry"), "put the breaker inside the retry"),
        (("throttle", "retry"), "put the throttle inside the retry"),
        (("bulkhead", "retry"), "put the bulkhead inside the retry"),
        (("retry", "retry"), "the attempts of two retries multiply"),
        (("hedge", "hedge"), "the calls of two hedges multiply"),
        (("hedge", "retry"), "a retry that waits is hedged; put the hedge inside"),
        (("retry", "fallback"), "put the fallback outside"),
        (("hedge", "fallback"), "put the fallback outside"),
        (("breaker", "fallback"), "put the fallback outside"),
    ],
    ids=str,
)
def test_an_order_that_is_hardly_ever_meant_warns_when_it_is_built(order, text):
    outer, inner = order
    with pytest.warns(StackWarning, match=text) as caught:
        stack = Stack(*kinds("other", outer, "other", inner))
    assert caught[0].filename == __file__
    assert any(text in lint for lint in stack.lints)
    assert text in stack.explain()


def test_a_good_order_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stack = Stack(*kinds("fallback", "timeout", "retry", "breaker", "bulkhead", "timeout"))
    assert not stack.lints


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (("timeout", "fallback"), "nothing is answered when that time is over"),
        (("ratelimit", "retry"), "it counts a call once, however many are made of it"),
        (("ratelimit", "hedge"), "it counts a call once"),
        (("bulkhead", "hedge"), "it counts a call once"),
        (("chaos", "retry"), "what it injects is not retried; put it innermost"),
        (("chaos", "breaker"), "what it injects is not counted; put it innermost"),
        (("chaos", "timeout"), "the time that it takes has no bound; put it innermost"),
    ],
    ids=str,
)
def test_an_order_in_doubt_is_advice(order, text):
    outer, inner = order
    stack = Stack(*kinds(outer, "other", inner))
    assert text in stack.lints[0]
    assert f"lint: {stack.lints[0]}" in stack.explain()
    turned = Stack(*kinds(inner, "other", outer)).lints
    assert not any(text in lint for lint in turned)


def test_advice_is_no_warning():
    stack = Stack(Timeout(10), Retry(OSError))
    assert stack.lints == (
        "no timeout inside the retry: an attempt that hangs is never tried again",
    )
    stack = Stack(Timeout(10), *kinds("breaker"))
    assert stack.lints == ("no timeout inside the breaker: a call that hangs is never counted",)
    stack = Stack(Timeout(2), Retry(OSError), Timeout(10))
    assert stack.lints == ("Timeout(10) can never fire: a timeout around it is over no later",)


def test_explain():
    stack = Stack(Timeout(10), Retry(OSError, attempts=3, backoff=Constant(1)), Timeout(2))
    assert stack.explain().splitlines() == [
        "1. Timeout(10)",
        "2.   Retry(attempts=3, backoff=Constant(seconds=1, jitter='none'))",
        "3.     Timeout(2)",
        "worst case: 3 calls of the function, 8 s",
    ]
    endless = Stack(Retry(OSError, attempts=None)).explain()
    assert "worst case: no bound on the calls of the function, no bound on the time" in endless
    assert Stack(TokenBucket(Rate(1))).bound(1) == math.inf
    assert repr(Stack(Timeout(1))) == "Stack(Timeout(1))"


def test_the_standard_order():
    retry, bucket = Retry(OSError), TokenBucket(Rate(1))
    fallback, breaker, bulkhead = kinds("fallback", "breaker", "bulkhead")
    stack = Stack.standard(
        fallback=fallback,
        total=10,
        retry=retry,
        breaker=breaker,
        rate=bucket,
        bulkhead=bulkhead,
        attempt=2,
    )
    found = [policy.kind for policy in stack.policies]
    order = ["fallback", "timeout", "retry", "breaker", "ratelimit", "bulkhead", "timeout"]
    assert found == order
    assert not stack.lints
    assert [p.kind for p in Stack.standard(retry=retry, attempt=1).policies] == ["retry", "timeout"]


@pytest.mark.promise("resilience-bad-input")
def test_bad_input_is_one_clear_error():
    with pytest.raises(ValueError, match="at least one policy"):
        Stack()
    with pytest.raises(ValueError, match="at least one policy"):
        Stack.standard()
    with pytest.raises(TypeError, match=r"^policies must be policies of this library, not 3"):
        Stack(wrong(3))
    with pytest.raises(TypeError, match="is not a policy of the kind 'retry'"):
        Stack.standard(retry=TokenBucket(Rate(1)))
    with pytest.raises(TypeError, match="is not a policy of the kind 'ratelimit'"):
        Stack.standard(rate=wrong(3))
    with pytest.raises(ValueError, match=r"^seconds must be"):
        Stack.standard(total=0)
