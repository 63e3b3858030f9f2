"""Policies by name: stable handles, reload in one step, and which state is kept."""

from __future__ import annotations

import warnings
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import CircuitOpenError, RateLimitedError, TimeoutExceededError
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.bulkhead import Bulkhead
from aiopatterns.resilience.circuitstate import CircuitState
from aiopatterns.resilience.halfopen import HalfOpen
from aiopatterns.resilience.policy import Policy
from aiopatterns.resilience.ratelimit import GCRA, Rate, SlidingWindow, TokenBucket
from aiopatterns.resilience.registry import PolicyRegistry, PolicyReloaded
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.singleflight import SingleFlight
from aiopatterns.resilience.stack import Stack, StackWarning
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.resilience.trip import Consecutive, Count, Trip
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, simulate


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


class Named(Policy):
    """Writes its name down around each call, and around each stream."""

    def __init__(self, name, log):
        self.name = name
        self.log = log

    def __repr__(self):
        return f"Named({self.name!r})"

    def wrap(self, fn):
        async def named(*args, **kwargs):
            self.log.append(f"+{self.name}")
            try:
                return await fn(*args, **kwargs)
            finally:
                self.log.append(f"-{self.name}")

        return named

    def wrap_stream(self, fn):
        async def named(*args, **kwargs):
            self.log.append(f"+{self.name}")
            async for item in fn(*args, **kwargs):
                yield item
            self.log.append(f"-{self.name}")

        return named


async def nothing():
    await sleep(0)


async def test_a_name_has_one_handle():
    policies = PolicyRegistry()
    handle = policies.define("db", Timeout(1))
    assert policies.get("db") is handle
    first = handle.policy
    policies.reload("db", Timeout(2))
    assert policies.get("db") is handle
    assert handle.policy is not first
    assert list(policies) == ["db"]
    assert (handle.name, repr(handle)) == ("db", "PolicyHandle('db', Timeout(2))")


async def test_what_was_decorated_before_a_reload_runs_under_the_new_policy():
    log: list[str] = []
    policies = PolicyRegistry()
    handle = policies.define("db", Named("a", log))

    @handle
    async def call(value, *, plus=0):
        """Calls."""
        return value + plus

    assert await call(1, plus=1) == 2
    policies.reload("db", Named("b", log))
    assert await call(2) == 2
    assert await policies.get("db").call(nothing) is None
    assert await policies.get("db")(nothing)() is None
    assert log == ["+a", "-a", "+b", "-b", "+b", "-b", "+b", "-b"]
    assert (call.__name__, call.__doc__) == ("call", "Calls.")


async def test_calls_that_run_end_under_the_old_policy():
    log: list[str] = []
    policies = PolicyRegistry()
    go = anyio.Event()

    @policies.define("db", Named("a", log))
    async def call():
        await go.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        policies.reload("db", Named("b", log))
        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        assert log == ["+a", "+b"]
        go.set()
    assert sorted(log[2:]) == ["-a", "-b"]


async def test_streams_too():
    log: list[str] = []
    policies = PolicyRegistry()

    @policies.define("db", Named("a", log))
    async def stream(n):
        for i in range(n):
            yield i

    running = stream(2)
    assert await anext(running) == 0
    policies.reload("db", Named("b", log))
    assert [i async for i in running] == [1]
    assert [i async for i in stream(2)] == [0, 1]
    assert log == ["+a", "-a", "+b", "-b"]
    left = stream(2)
    await anext(left)
    await left.aclose()


async def test_a_handle_is_a_policy_of_the_kind_behind_it():
    policies = PolicyRegistry()
    retry = policies.define("again", Retry(OSError, attempts=3, backoff=Constant(1)))
    breaker = policies.define("db", CircuitBreaker("db"))
    stack = Stack.standard(retry=retry, breaker=breaker, attempt=2)
    assert [policy.kind for policy in stack.policies] == ["retry", "breaker", "timeout"]
    assert (stack.calls(), stack.bound(1)) == (3, 5)
    with pytest.warns(StackWarning, match="put the breaker inside the retry"):
        Stack(breaker, retry, Timeout(1))
    policies.reload("again", Timeout(7))
    assert (retry.kind, retry.calls(), retry.bound(99)) == ("timeout", 1, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Stack(breaker, retry)
    assert await stack.call(nothing) is None


def test_a_handle_inside_a_stack_follows_a_reload():
    async def scenario():
        policies = PolicyRegistry()
        limit = policies.define("limit", Timeout(5))
        call = Stack(Retry(OSError, attempts=1), limit)(anyio.sleep_forever)
        for seconds in (5, 2):
            policies.reload("limit", Timeout(seconds))
            with pytest.raises(TimeoutExceededError) as caught:
                await call()
            assert caught.value.timeout == seconds

    simulate(scenario)


# -- which state is kept ----------------------------------------------------------------------


def breaker(name="db", window=None, **options):
    return CircuitBreaker(name, trip=Trip(window or Consecutive(1), **options))


def test_an_open_circuit_stays_open_under_new_rules():
    async def scenario():
        policies = PolicyRegistry()
        handle = policies.define("db", Stack(Retry(OSError, attempts=1), breaker(), Timeout(9)))

        @handle
        async def fail():
            raise OSError

        with pytest.raises(OSError):
            await fail()
        new = CircuitBreaker(
            "db", trip=Trip(Consecutive(1)), open_for=5, half_open=HalfOpen(2, successes=2)
        )
        with capture_events() as events:
            policies.reload("db", Stack(new, Timeout(3)))
        assert events == [PolicyReloaded("db", kept=1)]
        with pytest.raises(CircuitOpenError) as refused:
            await fail()
        assert refused.value.retry_after == 30  # the break that has begun is what it was
        await sleep(30)
        with pytest.raises(OSError):
            await fail()
        assert new.retry_after == 5  # the next one is by the new rules
        await sleep(5)
        new.try_acquire().record("success")
        assert new.statistics().state is CircuitState.HALF_OPEN
        new.try_acquire().record("success")
        assert new.state is CircuitState.CLOSED

    simulate(scenario)


def test_a_probe_that_runs_reports_to_the_circuit_that_goes_on():
    async def scenario():
        policies = PolicyRegistry()
        old = breaker()

        @policies.define("db", old)
        async def call():
            await sleep(2)

        old.open(5)
        await sleep(5)
        new = breaker()
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await sleep(1)
            policies.reload("db", new)
            with pytest.raises(CircuitOpenError):
                await call()
            assert new.statistics().in_flight == 1
        assert new.state is CircuitState.CLOSED
        assert new.statistics().in_flight == 0

    simulate(scenario)


@pytest.mark.parametrize(
    "new",
    [
        lambda: breaker("other"),
        lambda: breaker(window=Consecutive(2)),
        lambda: breaker(window=Count(1)),
        lambda: Timeout(1),
    ],
    ids=["another name", "another length", "another window", "another kind"],
)
def test_what_does_not_count_the_same_begins_anew(new):
    async def scenario():
        policies = PolicyRegistry()
        old = breaker()
        policies.define("db", old)
        old.open()
        with capture_events() as events:
            policies.reload("db", new())
        assert events == [PolicyReloaded("db", kept=0)]
        await policies.get("db").call(nothing)

    simulate(scenario)


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        (TokenBucket(Rate(1)), TokenBucket(Rate(1), max_wait=0), True),
        (TokenBucket(Rate(1)), TokenBucket(Rate(1), key=lambda: "x"), True),
        (TokenBucket(Rate(1)), TokenBucket(Rate(2)), False),
        (TokenBucket(Rate(1)), TokenBucket(Rate(1), burst=2), False),
        (TokenBucket(Rate(1)), GCRA(Rate(1)), False),
        (GCRA(Rate(1)), GCRA(Rate(1), max_wait=3), True),
        (SlidingWindow(Rate(1)), SlidingWindow(Rate(1)), True),
        (SlidingWindow(Rate(1)), SlidingWindow(Rate(1, per=2)), False),
        (SlidingWindow(Rate(1)), Timeout(1), False),
    ],
    ids=[str(number) for number in range(9)],
)
def test_limiters_keep_their_tokens_if_rate_and_burst_are_the_same(old, new, kept):
    with capture_events() as events:
        policies = PolicyRegistry()
        policies.define("limit", Stack(Timeout(1), old))
        policies.reload("limit", Stack(new))
    assert events == [PolicyReloaded("limit", kept=kept)]


def test_a_reload_gives_no_tokens_away():
    async def scenario():
        policies = PolicyRegistry()
        handle = policies.define("limit", TokenBucket(Rate(1, per=10)))
        await handle.call(nothing)
        policies.reload("limit", TokenBucket(Rate(1, per=10), max_wait=0))
        with pytest.raises(RateLimitedError) as refused:
            await handle.call(nothing)
        assert refused.value.retry_after == 10

    simulate(scenario)


async def test_a_policy_in_both_definitions_is_itself():
    policies = PolicyRegistry()
    shared = breaker()
    policies.define("db", Stack(shared, Timeout(1)))
    shared.open()
    with capture_events() as events:
        policies.reload("db", Stack(shared, Timeout(2)))
        policies.reload("db", shared)
    assert [wrong(event).kept for event in events] == [1, 1]
    with pytest.raises(CircuitOpenError):
        await policies.get("db").call(nothing)


def test_two_of_a_kind_take_over_one_each():
    policies = PolicyRegistry()
    first, second = TokenBucket(Rate(1, per=60)), TokenBucket(Rate(1, per=60))
    policies.define("db", Stack(first, second))
    first.try_acquire()
    new = [TokenBucket(Rate(1, per=60)) for _ in range(3)]
    with capture_events() as events:
        policies.reload("db", Stack(*new))
    assert [wrong(event).kept for event in events] == [2]
    assert [bucket.peek().allowed for bucket in new] == [False, True, True]


@pytest.mark.promise("resilience-cancel-everywhere")
def test_cancelled_anywhere_around_a_reload_permits_add_up():
    def factory():
        policies = PolicyRegistry()
        policies.define("db", Stack(breaker(), Timeout(9)))

        async def work():
            for seconds in (9, 8):
                await policies.get("db").call(sleep, 1)
                policies.reload("db", Stack(breaker(), Timeout(seconds)))

        def check():
            circuit, _ = wrong(policies.get("db").policy).policies
            seen = circuit.statistics()
            assert seen.in_flight == seen.failures == 0

        return Trial(work(), check)

    cancel_everywhere(factory, minimum=2)


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.promise("resilience-bad-input")
def test_bad_input_is_one_clear_error_and_changes_nothing():
    policies = PolicyRegistry()
    with pytest.raises(KeyError, match="no policy is defined as 'db'; defined: none"):
        policies.get("db")
    handle = policies.define("db", Timeout(1))
    first = handle.policy
    with pytest.raises(ValueError, match=r"^name 'db' is defined already; use reload"):
        policies.define("db", Timeout(2))
    with pytest.raises(KeyError, match="no policy is defined as 'cache'; defined: 'db'"):
        policies.reload("cache", Timeout(2))
    for bad in (3, None, Timeout):
        with pytest.raises(TypeError, match=r"^policy must be a policy, such as"):
            policies.define("other", wrong(bad))
        with pytest.raises(TypeError, match=r"^policy must be a policy, such as"):
            policies.reload("db", wrong(bad))
    for name, error in (("", ValueError), (3, TypeError)):
        with pytest.raises(error, match=r"^name must be a non-empty string"):
            policies.define(wrong(name), Timeout(1))
    other = policies.define("other", Stack(handle, Timeout(1)))
    for circle in (handle, Stack(Timeout(1), handle), other, Stack(other)):
        with pytest.raises(ValueError, match=r"^policy must not hold the handle .* 'db'"):
            policies.reload("db", circle)
    assert handle.policy is first
    assert list(policies) == ["db", "other"]


def test_a_policy_that_stays_keeps_its_own_state_whatever_stood_before_it():
    policies = PolicyRegistry()
    outer, inner = Bulkhead(10), Bulkhead(2)
    policies.define("db", Stack(outer, inner))
    assert inner.try_acquire()
    with capture_events() as events:
        policies.reload("db", inner)
    assert wrong(events[0]).kept == 1
    assert (inner.statistics().in_flight, outer.limit) == (1, 10)
    new = Bulkhead(5)
    policies.reload("db", Stack(new, inner))
    assert (new.statistics().in_flight, inner.limit) == (0, 2)


async def test_a_policy_that_refuses_a_function_does_so_each_time():
    policies = PolicyRegistry()
    handle = policies.define("db", Bulkhead(2))

    @handle
    async def numbers():
        yield 1

    assert [each async for each in numbers()] == [1]
    policies.reload("db", SingleFlight())
    for _ in range(2):
        with pytest.raises(TypeError, match="a stream has one reader"):
            await anext(numbers())
    policies.reload("db", Bulkhead(1))
    assert [each async for each in numbers()] == [1]


async def test_a_policy_that_cannot_wrap_a_function_never_leaves_the_one_before_in_charge():
    class Broken(Policy):
        def wrap(self, fn):
            raise ValueError("not this one")

    policies = PolicyRegistry()
    call = policies.define("db", Bulkhead(2))(anyio.sleep)
    await call(0)
    policies.reload("db", Broken())
    for _ in range(2):
        with pytest.raises(ValueError, match="not this one"):
            await call(0)
