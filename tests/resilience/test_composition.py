"""Policies together: what passes through each of them, and stacks of all of them at once."""

from __future__ import annotations

import warnings
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, NamedTuple

import anyio
import pytest

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import (
    bind_correlation,
    bind_deadline,
    correlation_id,
    new_id,
    remaining,
)
from aiopatterns.core.errors import (
    BulkheadFullError,
    CircuitIsolatedError,
    RateLimitedError,
    RejectedError,
    TimeoutExceededError,
)
from aiopatterns.resilience.adaptive import AIMD, AdaptiveLimit
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.bulkhead import Bulkhead
from aiopatterns.resilience.chaos import Chaos
from aiopatterns.resilience.fallback import Fallback
from aiopatterns.resilience.hedge import Hedge
from aiopatterns.resilience.idempotency import Idempotent
from aiopatterns.resilience.policy import Policy
from aiopatterns.resilience.ratelimit import GCRA, Rate, SlidingWindow, TokenBucket
from aiopatterns.resilience.registry import PolicyRegistry
from aiopatterns.resilience.retry import Retry, Until
from aiopatterns.resilience.sharedlimit import SharedRateLimit
from aiopatterns.resilience.singleflight import SingleFlight
from aiopatterns.resilience.stack import Stack
from aiopatterns.resilience.throttle import Throttle
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.resilience.trip import Consecutive, Trip
from aiopatterns.testing import (
    CancelKind,
    InjectedError,
    Trial,
    cancel_everywhere,
    capture_events,
    explore,
    fail_everywhere,
    simulate,
)

KINDS: tuple[CancelKind, ...] = ("native", "scope", "timeout", "native-twice")
PLENTY = Rate(1e6)


def opened() -> MemoryBackend:
    """Return a backend that stays open; one in memory waits for nothing when it is entered."""
    backend = MemoryBackend()
    with suppress(StopIteration):
        backend.__aenter__().send(None)
    return backend


# Every policy, with room for everything.
EVERY = {
    "adaptive": lambda: AdaptiveLimit(AIMD()),
    "breaker": lambda: CircuitBreaker("it"),
    "bulkhead": lambda: Bulkhead(5, max_queue=5),
    "chaos": lambda: Chaos(latency=0, rate=1),
    "fallback": lambda: Fallback(None, on=KeyError),
    "gcra": lambda: GCRA(PLENTY),
    "handle": lambda: PolicyRegistry().define("it", Stack(Timeout(50), Retry(KeyError))),
    "hedge": lambda: Hedge(50, idempotent=True),
    "idempotent": lambda: Idempotent(opened(), key=lambda *_, **__: new_id()),
    "retry": lambda: Retry(KeyError),
    "retry-total": lambda: Retry(KeyError, until=Until(total=50)),
    "sharedlimit": lambda: SharedRateLimit(PLENTY, opened(), name="it"),
    "singleflight": SingleFlight,
    "throttle": Throttle,
    "timeout": lambda: Timeout(50),
    "tokenbucket": lambda: TokenBucket(PLENTY),
    "window": lambda: SlidingWindow(PLENTY),
}
every = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY.keys())
# A stream has one reader and cannot be repeated, so these refuse it.
REFUSING = {EVERY[name] for name in ("singleflight", "idempotent")}
STREAMED = {name: make for name, make in EVERY.items() if make not in REFUSING}
streamed = pytest.mark.parametrize("make", STREAMED.values(), ids=STREAMED.keys())

colour: ContextVar[str] = ContextVar("colour", default="none")


def test_every_policy_of_the_room_is_here():
    known = {type(make()) for make in EVERY.values()} | {Stack}
    ours = {
        each
        for each in _below(Policy)
        if each.__module__.startswith("aiopatterns.") and not each.__name__.startswith("_")
    }
    assert ours == known


def _below(kind: type) -> set[type]:
    found = {kind} - {Policy}
    each: type
    for each in kind.__subclasses__():
        found |= _below(each)
    return found


async def context() -> tuple[str, str | None, float | None]:
    await sleep(0)
    return colour.get(), correlation_id(), remaining()


async def context_stream() -> Any:
    yield await context()
    yield await context()


@pytest.mark.promise("resilience-composition")
@every
def test_context_and_deadline_reach_the_function(make):
    async def scenario():
        colour.set("red")
        with bind_correlation("abc"), bind_deadline(20.0):
            seen = await make()(context)()
        # A single flight is on behalf of all who may join: no deadline of one of them.
        left = None if make is SingleFlight else 20.0
        assert seen == ("red", "abc", left)
        assert await make()(context)() in {
            ("red", None, None),
            ("red", None, 50.0),  # the policy's own
        }

    simulate(scenario)


@pytest.mark.promise("resilience-composition")
@streamed
def test_context_and_deadline_reach_a_stream(make):
    async def scenario():
        colour.set("red")
        with bind_correlation("abc"), bind_deadline(20.0):
            seen = [item async for item in make()(context_stream)()]
        assert seen == [("red", "abc", 20.0)] * 2

    simulate(scenario)


@pytest.mark.promise("resilience-composition")
@every
def test_a_timeout_outside_ends_every_policy_in_time(make):
    async def scenario():
        ended = False

        async def hang():
            nonlocal ended
            try:
                await anyio.sleep_forever()
            finally:
                ended = True

        with pytest.raises(TimeoutExceededError) as caught:
            await Stack(Timeout(3), make()).call(hang)
        assert caught.value.timeout == 3
        assert (monotonic(), ended) == (3, True)

    simulate(scenario)


@pytest.mark.promise("resilience-composition")
@every
async def test_an_error_leaves_every_policy_identical(make):
    error = OSError("this one")

    async def fail():
        raise error

    async def fail_late():
        yield 1
        raise error

    with pytest.raises(OSError) as caught:
        await make()(fail)()
    assert caught.value is error
    if make not in REFUSING:
        with pytest.raises(OSError) as caught:
            async for _ in make()(fail_late)():
                pass
        assert caught.value is error


@pytest.mark.promise("resilience-composition")
@every
async def test_no_policy_keeps_or_shows_a_cancellation(make):
    with anyio.CancelScope() as scope:
        scope.cancel()
        await make()(context)()
    assert scope.cancelled_caught


class Refusing(NamedTuple):
    policy: Policy
    kind: type[RejectedError]


async def refusing() -> list[Refusing]:
    """Every policy that can refuse, made to refuse now."""
    breaker = CircuitBreaker("it")
    breaker.force("isolated")
    buckets = [each(Rate(1, per=100), max_wait=0) for each in (TokenBucket, GCRA, SlidingWindow)]
    for bucket in buckets:
        assert bucket.try_acquire().allowed
    return [
        Refusing(breaker, CircuitIsolatedError),
        Refusing(Bulkhead(0), BulkheadFullError),
        *(Refusing(bucket, RateLimitedError) for bucket in buckets),
    ]


@pytest.mark.promise("resilience-composition")
def test_refusals_are_asked_for_once_and_are_answered_by_a_fallback():
    async def scenario():
        for policy, kind in await refusing():
            for outer in (
                Retry(Exception, attempts=3),
                Hedge(0.5, idempotent=True, max_extra=2),
                Throttle(),
                AdaptiveLimit(AIMD(), on=Exception),
            ):
                with capture_events() as events, pytest.raises(kind):
                    await Stack(outer, policy).call(context)
                assert len(events) <= 1  # the refusal itself, at most once
            with pytest.raises(kind), capture_events() as events:
                await Stack(Retry(kind, attempts=3, backoff=Constant(1)), policy).call(context)
            assert [e.name for e in events].count("aiopatterns.retry.scheduled") == 2
            stack = Stack(Fallback("instead", on=Exception), Retry(Exception), policy)
            answer: object = await stack.call(context)
            assert answer == "instead"

    simulate(scenario)


@pytest.mark.promise("resilience-composition")
def test_a_refusal_inside_is_no_failure_of_the_breaker_or_throttle_outside():
    async def scenario():
        breaker = CircuitBreaker("outer", trip=Trip(Consecutive(1)))
        throttle = Throttle()
        for policy, kind in await refusing():
            for _ in range(3):
                with pytest.raises(kind):
                    await Stack(throttle, breaker, policy).call(context)
        assert breaker.statistics().failures == 0
        assert throttle.reject_ratio == 0

    simulate(scenario)


@pytest.mark.promise("resilience-composition")
def test_who_waits_refuses_at_once_what_would_end_after_the_deadline():
    async def scenario():
        async def fail():
            raise OSError

        full = TokenBucket(Rate(1, per=100))
        assert full.try_acquire().allowed
        with bind_deadline(5.0):
            with pytest.raises(RateLimitedError):
                await full.call(context)
            with pytest.raises(OSError) as caught:
                await Retry(OSError, backoff=Constant(10)).call(fail)
            assert "the deadline comes first" in caught.value.__notes__[0]
            assert monotonic() == 0

            bulkhead = Bulkhead(1, max_queue=1)
            async with bulkhead.slot():
                with pytest.raises(BulkheadFullError):
                    await bulkhead.call(context)
            assert monotonic() == 5  # it cannot know, so it waits no longer than that

    simulate(scenario)


@pytest.mark.promise("resilience-composition")
@every
def test_a_retry_in_a_retried_attempt_is_found_through_every_policy(make):
    async def scenario():
        async def fail():
            raise OSError

        quick = Constant(0)
        inner = Retry(OSError, attempts=2, backoff=quick)
        outer = Retry(OSError, attempts=2, backoff=quick)

        async def call_inner():
            await inner.call(fail)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(OSError):
                await outer.call(make()(call_inner))
        assert {each.category for each in caught} == {RuntimeWarning}

    simulate(scenario)


class Everything(NamedTuple):
    """A stack of everything, and what it holds to look at afterwards."""

    stack: Stack
    bulkhead: Bulkhead
    breaker: CircuitBreaker
    limit: AdaptiveLimit
    bucket: TokenBucket
    budget: Any

    def check(self) -> None:
        """Nothing is held by anybody."""
        held = self.bulkhead.statistics()
        assert (held.in_flight, held.queued, held.available) == (0, 0, 3)
        assert self.breaker.statistics().in_flight == 0
        assert self.limit.statistics().in_flight == 0
        assert (self.budget._calls, self.budget._extras) == (0, 0)


def everything(*, seed: int = 1) -> Everything:
    budget = Budget.ratio(0.5, min_concurrency=20)
    bulkhead = Bulkhead(3, max_queue=50, max_wait=20)
    breaker = CircuitBreaker("it", trip=Trip(Consecutive(4)), open_for=2)
    limit = AdaptiveLimit(AIMD(initial=50))
    bucket = TokenBucket(Rate(20), burst=2)
    stack = Stack(
        Fallback(lambda error: ("fallback", error), on=(OSError, RejectedError)),
        Timeout(30),
        Retry(OSError, attempts=3, backoff=Constant(0.5), budget=budget),
        Throttle(max_ratio=0.2),
        breaker,
        limit,
        bucket,
        bulkhead,
        Hedge(1, idempotent=True, budget=budget),
        Timeout(3),
        Chaos(latency=0.25, errors=ConnectionError, rate=0.2, seed=seed),
    )
    return Everything(stack, bulkhead, breaker, limit, bucket, budget)


@pytest.mark.promise("resilience-composition", "resilience-cancel-everywhere")
def test_cancelled_anywhere_a_stack_of_everything_holds_nothing():
    def factory():
        made = everything()
        calls = 0

        async def flaky():
            nonlocal calls
            calls += 1
            await sleep(2 if calls % 3 == 1 else 0.5)
            if calls < 4:
                raise OSError

        async def work():
            call = made.stack(flaky)
            for _ in range(3):
                await call()

        return Trial(work(), made.check)

    cancel_everywhere(factory, kinds=KINDS, minimum=8)


@pytest.mark.promise("resilience-composition", "resilience-cancel-everywhere")
def test_cancelled_anywhere_a_stream_under_everything_holds_nothing():
    def factory():
        made = everything()
        opened = 0

        async def flaky():
            nonlocal opened
            opened += 1
            await sleep(0.5)
            if opened == 1:
                raise OSError
            for number in range(3):
                await sleep(0.5)
                yield number

        stream = made.stack(flaky)

        async def work():
            for _ in range(2):
                items = stream()
                try:
                    async for _ in items:
                        await sleep(0.25)
                except OSError:
                    pass  # chaos, after the first item
                finally:
                    await items.aclose()

        return Trial(work(), made.check)

    cancel_everywhere(factory, kinds=KINDS, minimum=8)


@pytest.mark.promise("resilience-composition")
def test_a_fault_anywhere_in_a_stack_of_everything_leaves_or_is_handled():
    def factory(fault):
        made = everything()

        async def work():
            async def function():
                await sleep(0.1)
                fault()
                await sleep(0.1)

            async def stream():
                await sleep(0.1)
                fault()
                yield 1
                fault()
                yield 2

            for _ in range(2):
                await made.stack(function)()
            try:
                async for _ in made.stack(stream)():
                    fault()
            except ConnectionError:
                pass  # chaos, after the first item

        return Trial(work(), made.check)

    fail_everywhere(factory, minimum=5)


@pytest.mark.promise("resilience-composition", "resilience-seeds")
def test_under_any_schedule_a_stack_of_everything_keeps_its_bounds():
    async def scenario():
        made = everything(seed=7)
        ends: list[str] = []
        running = 0

        async def work(number):
            nonlocal running
            running += 1
            # Three permits, each of a call and its one hedge.
            assert running <= 6
            assert made.bulkhead.statistics().in_flight <= 3
            try:
                await sleep(0.2 * (number % 4))
            finally:
                running -= 1
            if number % 5 == 0:
                raise OSError(number)
            return number

        call = made.stack(work)

        async def caller(number):
            with anyio.move_on_after(0.3 if number % 6 == 0 else 60) as scope:
                found = await call(number)
                if isinstance(found, tuple):
                    assert found[0] == "fallback"
                    ends.append("fallback")
                else:
                    assert found == number
                    ends.append("answer")
            if scope.cancelled_caught:
                ends.append("left")

        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(caller, number)
        assert len(ends) == 12
        assert running == 0
        made.check()

    explore(scenario, range(200))


@pytest.mark.promise("resilience-composition")
def test_the_standard_stack_at_work():
    async def scenario():
        budget = Budget.tokens()
        breaker = CircuitBreaker("billing", trip=Trip(Consecutive(3)), open_for=5)
        stack = Stack.standard(
            fallback=Fallback("later", on=(OSError, RejectedError)),
            total=10,
            retry=Retry(OSError, attempts=3, backoff=Constant(1), budget=budget),
            breaker=breaker,
            rate=TokenBucket(Rate(100)),
            bulkhead=Bulkhead(20, max_queue=10, max_wait=1),
            attempt=2,
        )
        assert stack.lints == ()
        assert stack.explain().splitlines() == [
            "1. Fallback('later')",
            "2.   Timeout(10)",
            "3.     Retry(attempts=3, backoff=Constant(seconds=1, jitter='none'))",
            "4.       CircuitBreaker('billing')",
            "5.         TokenBucket(100 per 1 s)",
            "6.           Bulkhead(20)",
            "7.             Timeout(2)",
            "worst case: 3 calls of the function, 10 s",
        ]
        calls = []

        async def charge(outcome):
            calls.append(monotonic())
            if outcome == "hang":
                await anyio.sleep_forever()
            if outcome == "fail":
                raise OSError
            return outcome

        call = stack(charge)
        assert await call("paid") == "paid"
        assert await call("hang") == "later"  # three attempts of 2 s, two waits of 1 s
        assert calls == [0, 0, 3, 6]
        assert await call("paid") == "later"  # the circuit is open, and nobody asks again
        assert calls == [0, 0, 3, 6]
        await sleep(5)
        assert await call("paid") == "paid"
        assert breaker.statistics().in_flight == 0

    simulate(scenario)


@pytest.mark.promise("resilience-composition")
def test_the_standard_stack_on_a_stream():
    async def scenario():
        bulkhead = Bulkhead(1)
        stack = Stack.standard(
            fallback=Fallback(["cached"], on=(OSError, RejectedError)),
            total=10,
            retry=Retry(OSError, attempts=2, backoff=Constant(1)),
            breaker=CircuitBreaker("lines"),
            rate=GCRA(Rate(10)),
            bulkhead=bulkhead,
            attempt=2,
        )
        opened = 0

        @stack
        async def lines():
            nonlocal opened
            opened += 1
            if opened == 1:
                raise OSError
            yield 1
            assert bulkhead.statistics().in_flight == 1
            yield 2

        assert [line async for line in lines()] == [1, 2]
        assert opened == 2
        async with bulkhead.slot():
            assert [line async for line in lines()] == ["cached"]

    simulate(scenario)


async def test_a_user_error_of_any_kind_passes_a_stack_of_everything():
    async def fail():
        raise InjectedError

    made = everything()
    with pytest.raises(InjectedError):
        await Stack(*made.stack.policies[:-1]).call(fail)
    made.check()
