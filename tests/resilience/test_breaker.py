"""The breaker as a policy: functions, streams, cancellation, concurrency, and its place in stacks."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import (
    CircuitIsolatedError,
    CircuitOpenError,
    RateLimitedError,
    TimeoutExceededError,
)
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.circuitstate import CircuitState
from aiopatterns.resilience.halfopen import HalfOpen
from aiopatterns.resilience.ratelimit import Rate, TokenBucket
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.stack import Stack, StackWarning
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.resilience.trip import Consecutive, Count, Seconds, Slow, Trip
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere, simulate


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


def one(**options):
    return CircuitBreaker("it", trip=Trip(Consecutive(1)), **options)


def counting(n=10, **options):
    return CircuitBreaker("it", trip=Trip(Count(n)), **options)


def counts(breaker):
    seen = breaker.statistics()
    return seen.successes, seen.failures, seen.in_flight


async def give(value):
    await sleep(0)
    if isinstance(value, BaseException):
        raise value
    return value


async def test_it_passes_results_and_errors_on():
    breaker = counting()
    call = breaker(give)
    assert await call(1) == 1
    error = OSError()
    with pytest.raises(OSError) as raised:
        await call(error)
    assert raised.value is error
    assert counts(breaker) == (1, 1, 0)
    assert await breaker.call(give, 2) == 2
    assert counts(breaker) == (2, 1, 0)


async def test_the_call_that_opens_it_raises_its_own_error():
    call = one()(give)
    error = OSError()
    with pytest.raises(OSError) as raised:
        await call(error)
    assert raised.value is error
    with pytest.raises(CircuitOpenError) as refused:
        await call(1)
    assert refused.value.__cause__ is None


async def test_a_refused_function_is_not_called():
    calls = []

    @one()
    async def fn():
        calls.append(1)
        raise OSError

    with pytest.raises(OSError):
        await fn()
    for _ in range(3):
        with pytest.raises(CircuitOpenError):
            await fn()
    assert calls == [1]


async def test_each_refusal_is_an_error_of_its_own():
    breaker = one()
    breaker.open()
    found = []
    for _ in range(2):
        with pytest.raises(CircuitOpenError) as refused:
            await breaker.call(give, 1)
        found.append(refused.value)
    assert found[0] is not found[1]


async def test_a_success_may_open_it_and_is_passed_on():
    breaker = counting(2)
    with pytest.raises(OSError):
        await breaker.call(give, OSError())
    assert await breaker.call(give, 1) == 1
    assert breaker.state is CircuitState.OPEN


def test_slow_calls_are_found_by_the_clock():
    async def scenario():
        breaker = CircuitBreaker("it", trip=Trip(Count(4), min_calls=2, slow=Slow(1.0)))
        call = breaker(sleep)
        await call(1.0)
        assert breaker.statistics().slow == 0
        await call(1.5)
        seen = breaker.statistics()
        assert (seen.state, seen.slow, seen.mean_elapsed) == (CircuitState.OPEN, 1, 1.25)

    simulate(scenario)


async def test_a_judge_sees_results_and_errors():
    def judge(found):
        if isinstance(found, OSError) or found == 500:
            return "failure"
        return "ignore" if found == 404 else "success"

    breaker = counting(judge=judge)
    call = breaker(give)
    for value in (200, 500, 404):
        assert await call(value) == value
    for error in (OSError(), ValueError()):
        with pytest.raises(type(error)):
            await call(error)
    assert counts(breaker) == (2, 2, 0)


async def test_a_judge_that_raises_gives_the_permit_back():
    def judge(found):
        raise LookupError

    breaker = one(judge=judge)
    with pytest.raises(LookupError):
        await breaker.call(give, 1)
    with pytest.raises(LookupError) as raised:
        await breaker.call(give, OSError())
    assert isinstance(raised.value.__context__, OSError)
    assert counts(breaker) == (0, 0, 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_what_is_no_exception_is_not_judged(error):
    def judge(found):
        raise AssertionError(found)

    breaker = one(judge=judge)

    async def fn():
        raise error

    step = breaker(fn)()
    with pytest.raises(error):
        step.send(None)
    assert counts(breaker) == (0, 0, 0)


async def test_refusals_from_further_inside_are_ignored():
    bucket = TokenBucket(Rate(1, per=3600), max_wait=0)
    breaker = one()
    call = Stack(breaker, bucket)(give)
    assert await call(1) == 1
    with pytest.raises(RateLimitedError):
        await call(1)
    assert counts(breaker) == (1, 0, 0)


def test_a_timeout_inside_is_a_failure_and_one_outside_is_not():
    async def scenario():
        breaker = one()
        with pytest.raises(TimeoutExceededError):
            await Stack(Timeout(1), breaker).call(anyio.sleep_forever)
        assert counts(breaker) == (0, 0, 0)
        with pytest.raises(TimeoutExceededError):
            await Stack(breaker, Timeout(1)).call(anyio.sleep_forever)
        assert breaker.state is CircuitState.OPEN

    simulate(scenario)


# -- concurrency ------------------------------------------------------------------------------


@pytest.mark.promise("resilience-probes")
@pytest.mark.parametrize("probes", [1, 3, 10])
def test_half_open_admits_exactly_its_probes_of_fifty_at_once(probes):
    async def scenario():
        breaker = one(half_open=HalfOpen(probes))
        breaker.open(1)
        await sleep(1)
        started, refused = [], []

        @breaker
        async def call(number):
            started.append(number)
            await sleep(1)

        async def caller(number):
            try:
                await call(number)
            except CircuitOpenError as error:
                refused.append(error.retry_after)

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(caller, number)
        assert len(started) == probes
        assert refused == [1.0] * (50 - probes)
        assert breaker.state is CircuitState.CLOSED
        assert counts(breaker)[2] == 0

    explore(scenario, range(60))


@pytest.mark.promise("resilience-seeds")
def test_under_any_schedule_permits_add_up():
    async def scenario():
        breaker = CircuitBreaker(
            "it", trip=Trip(Count(6), ratio=0.6), open_for=1.0, half_open=HalfOpen(2)
        )
        running = most_probing = 0

        @breaker
        async def call(number):
            nonlocal running, most_probing
            running += 1
            if breaker.state is CircuitState.HALF_OPEN:
                most_probing = max(most_probing, breaker.statistics().calls + 1)
            try:
                await sleep(0.1 * (number % 4))
                if number % 3:
                    raise OSError
            finally:
                running -= 1

        async def caller(first):
            for number in range(first, first + 8):
                with anyio.move_on_after(0.25):
                    try:
                        await call(number)
                    except (OSError, CircuitOpenError):
                        await sleep(0.3)
                assert breaker.statistics().in_flight == running

        async with anyio.create_task_group() as group:
            for first in range(5):
                group.start_soon(caller, first)
        assert breaker.statistics().in_flight == running == 0
        assert most_probing <= 2

    explore(scenario, range(200))


@given(
    st.sampled_from([Seconds(1.0), Count(40), Consecutive(3)]),
    st.sampled_from([None, Slow(0.5)]),
    st.lists(
        st.tuples(
            st.sampled_from(["success", "success", "success", "failure"]),
            st.sampled_from([1, 1, 3, 50, 150]),
            st.sampled_from([0.0, 0.0, 0.001, 0.6]),
            st.booleans(),
        ),
        max_size=20,
    ),
)
def test_calls_count_as_they_do_one_by_one(window, slow, history):
    async def scenario():
        trip = Trip(window, slow=slow)
        hot, exact = CircuitBreaker("it", trip=trip), CircuitBreaker("it", trip=trip)

        @hot
        async def call(outcome, seconds):
            permit = exact.try_acquire()
            await sleep(seconds)
            permit.record(outcome)
            if outcome == "failure":
                raise OSError

        for outcome, times, seconds, look in history:
            for _ in range(times):
                try:
                    await call(outcome, seconds)
                except OSError:
                    assert outcome == "failure"
                except CircuitOpenError:
                    with pytest.raises(CircuitOpenError):
                        exact.try_acquire()
            if look:
                assert hot.state is exact.state
                found = replace(hot.statistics(), mean_elapsed=None)
                assert found == replace(exact.statistics(), mean_elapsed=None)
        assert hot.statistics().in_flight == 0

    simulate(scenario)


@pytest.mark.parametrize("window", [Seconds(10.0), Count(40)])
@pytest.mark.parametrize("slow", [None, Slow(2.0)])
def test_the_mean_is_that_of_the_calls_that_are_measured(window, slow):
    async def scenario():
        breaker = CircuitBreaker("it", trip=Trip(window, slow=slow))
        call = breaker(sleep)
        for _ in range(200):
            await call(0.03125)
        seen = breaker.statistics()
        assert (seen.mean_elapsed, seen.in_flight) == (0.03125, 0)
        for _ in range(4000):
            await call(0.0625)
        assert breaker.statistics().mean_elapsed == pytest.approx(0.0625, rel=0.05)
        await call(1.0)
        await call(1.0)
        assert (breaker.statistics().mean_elapsed or 0) > 0.07

    simulate(scenario)


def test_new_rules_hold_for_good_calls_too():
    async def scenario():
        breaker = CircuitBreaker("it", trip=Trip(Count(100)))
        call = breaker(sleep)
        for _ in range(100):
            await call(1.0)
        again = CircuitBreaker("it", trip=Trip(Count(100), slow=Slow(0.5, 0.02)))
        assert again.adopt(breaker)
        states = []
        for _ in range(2):
            await call(1.0)
            states.append(breaker.state)
        assert states == [CircuitState.CLOSED, CircuitState.OPEN]

    simulate(scenario)


@pytest.mark.promise("resilience-cancel-everywhere", "resilience-probes")
@pytest.mark.parametrize("state", ["closed", "half_open", "observe"])
def test_cancelled_anywhere_a_call_gives_its_permit_back(state):
    def factory():
        breaker = CircuitBreaker("it", trip=Trip(Consecutive(2)), half_open=HalfOpen(2, "all"))

        async def fn():
            await sleep(0)
            await sleep(1)

        async def work():
            if state == "half_open":
                breaker.open(1)
                await sleep(1)
            elif state == "observe":
                breaker.force("observe")
            await breaker.call(fn)
            async with breaker.guard():
                await fn()

        async def check():
            await sleep(1)
            seen = breaker.statistics()
            assert seen.in_flight == seen.failures == 0
            assert seen.calls <= 2
            while breaker.state is CircuitState.HALF_OPEN:
                breaker.try_acquire().record("success")
            assert breaker.state is CircuitState.CLOSED

        return Trial(work(), check)

    cancel_everywhere(factory, kinds=("native", "scope", "timeout", "native-twice"), minimum=4)


@pytest.mark.promise("resilience-cancel-everywhere")
def test_cancelled_anywhere_a_stream_gives_its_permit_back():
    def factory():
        breaker = CircuitBreaker("it", trip=Trip(Consecutive(1)), half_open=HalfOpen(1))

        @breaker
        async def stream():
            try:
                for n in range(2):
                    await sleep(1)
                    yield n
            finally:
                await sleep(0)

        async def work():
            breaker.open(1)
            await sleep(1)
            numbers = stream()
            try:
                async for _ in numbers:
                    await sleep(0)
            finally:
                await numbers.aclose()

        async def check():
            await sleep(1)
            assert breaker.statistics().in_flight == 0
            if breaker.state is CircuitState.HALF_OPEN:
                breaker.try_acquire().record("success")
            assert breaker.state is CircuitState.CLOSED

        return Trial(work(), check)

    cancel_everywhere(factory, kinds=("native", "scope", "timeout", "native-twice"), minimum=5)


def test_whatever_fails_permits_add_up():
    def factory(fault):
        breaker = CircuitBreaker(
            "it",
            trip=Trip(Consecutive(1)),
            open_for=lambda info: fault() or 1.0,
            judge=lambda found: fault() or ("failure" if found == "bad" else "success"),
        )

        @breaker
        async def call(value):
            fault()
            await sleep(0)
            return value

        @breaker
        async def stream():
            fault()
            yield 1
            fault()

        async def work():
            await call("good")
            async for _ in stream():
                pass
            await call("bad")
            assert breaker.state is CircuitState.OPEN

        def check():
            assert breaker.statistics().in_flight == 0

        return Trial(work(), check)

    fail_everywhere(factory, minimum=7)


# -- streams ----------------------------------------------------------------------------------


async def test_a_stream_succeeds_when_it_ends():
    breaker = counting()

    @breaker
    async def stream(n):
        for i in range(n):
            yield i

    numbers = stream(3)
    assert counts(breaker) == (0, 0, 0)
    assert await anext(numbers) == 0
    assert counts(breaker) == (0, 0, 1)
    assert [n async for n in numbers] == [1, 2]
    assert counts(breaker) == (1, 0, 0)
    assert [n async for n in stream(0)] == []
    assert counts(breaker) == (2, 0, 0)


async def test_a_stream_fails_when_it_raises_at_any_item():
    breaker = counting()
    error = OSError()

    @breaker
    async def stream(n):
        for i in range(n):
            yield i
        raise error

    for n in (0, 2):
        got = []
        with pytest.raises(OSError) as raised:
            async for i in stream(n):
                got.append(i)
        assert raised.value is error
        assert len(got) == n
    assert counts(breaker) == (0, 2, 0)


async def test_a_stream_that_is_left_says_nothing_and_is_closed():
    breaker = one()
    closed = []

    @breaker
    async def stream():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    numbers = stream()
    assert await anext(numbers) == 1
    await numbers.aclose()
    assert closed == [True]
    assert counts(breaker) == (0, 0, 0)
    numbers = stream()
    await anext(numbers)
    with pytest.raises(ValueError):
        await wrong(numbers).athrow(ValueError)  # an error of its reader is not its own
    assert counts(breaker) == (0, 0, 0)


async def test_a_refused_stream_does_not_begin():
    breaker = one()
    begun = []

    @breaker
    async def stream():
        begun.append(1)
        yield 1

    breaker.open()
    with pytest.raises(CircuitOpenError):
        await anext(stream())
    assert not begun


def test_the_time_of_the_reader_is_not_that_of_the_stream():
    async def scenario():
        breaker = counting()

        @breaker
        async def stream():
            for n in range(3):
                await sleep(1)
                yield n

        async for _ in stream():
            await sleep(10)
        assert breaker.statistics().mean_elapsed == 3.0

    simulate(scenario)


async def test_a_stream_called_wrongly_gives_its_permit_back():
    breaker = one()

    @breaker
    async def stream(n):
        yield n

    with pytest.raises(TypeError):
        await anext(wrong(stream)())
    assert counts(breaker) == (0, 0, 0)


# -- forced, adopted, stacked -----------------------------------------------------------------


async def test_forced_modes_hold_for_functions():
    breaker = one()
    call = breaker(give)
    breaker.force("isolated")
    with pytest.raises(CircuitIsolatedError):
        await call(1)
    assert breaker.retry_after is None
    breaker.force("disabled")
    assert await call(1) == 1
    with pytest.raises(OSError):
        await call(OSError())
    assert counts(breaker) == (0, 0, 0)
    breaker.force("observe")
    for _ in range(2):
        with pytest.raises(OSError):
            await call(OSError())
    assert breaker.state is CircuitState.CLOSED
    assert counts(breaker) == (0, 1, 0)
    breaker.force(None)
    assert breaker.forced is None
    assert await call(1) == 1
    assert counts(breaker) == (1, 0, 0)


async def test_it_adopts_a_circuit_of_its_name_and_window():
    old = counting(4)
    running = old.try_acquire()
    with pytest.raises(OSError):
        await old.call(give, OSError())
    new = CircuitBreaker("it", trip=Trip(Count(4), min_calls=2, slow=Slow(5)), open_for=7)
    assert new.adopt(old)
    assert counts(new) == (0, 1, 1)
    running.record("failure")
    assert new.state is old.state is CircuitState.OPEN
    assert 6 < (new.retry_after or 0) <= 7


@pytest.mark.parametrize(
    "old",
    [
        CircuitBreaker("other", trip=Trip(Count(4))),
        CircuitBreaker("it", trip=Trip(Count(5))),
        CircuitBreaker("it", trip=Trip(Consecutive(4))),
        Timeout(1),
    ],
    ids=["name", "length of the window", "kind of the window", "policy"],
)
async def test_it_adopts_nothing_else(old):
    if isinstance(old, CircuitBreaker):
        old.open()
    new = counting(4)
    assert not new.adopt(old)
    assert new.state is CircuitState.CLOSED


def test_in_the_standard_stack_a_retry_gets_to_know_that_it_is_open():
    async def scenario():
        breaker = CircuitBreaker("db", trip=Trip(Consecutive(2)))
        calls = []

        async def fail():
            calls.append(1)
            raise OSError

        stack = Stack.standard(
            total=60,
            retry=Retry(OSError, attempts=5, backoff=Constant(1)),
            breaker=breaker,
            rate=TokenBucket(Rate(100)),
            attempt=2,
        )
        assert not stack.lints
        with pytest.raises(CircuitOpenError):
            await stack.call(fail)
        assert len(calls) == 2
        assert "CircuitBreaker('db')" in stack.explain()

    simulate(scenario)


def test_a_breaker_outside_a_retry_warns():
    with pytest.warns(StackWarning, match=r"^CircuitBreaker\('it'\) is outside a retry"):
        Stack(one(), Retry(OSError), Timeout(1))
    with pytest.raises(TypeError, match="not a policy of the kind 'breaker'"):
        Stack.standard(breaker=Timeout(1))


async def test_it_is_made_anywhere_and_used_on_one_loop_after_another():
    breaker = counting()

    def use():
        with asyncio.Runner() as runner:
            assert runner.run(breaker.call(give, 1)) == 1

    await asyncio.to_thread(use)
    await asyncio.to_thread(use)
    assert counts(breaker) == (2, 0, 0)


@pytest.mark.untraced
async def test_many_refusals_hold_on_to_nothing():
    import gc
    import weakref

    class Big(Exception):
        pass

    breaker = one()
    error = Big()
    gone = weakref.ref(error)
    with pytest.raises(Big):
        await breaker.call(give, error)
    error.__traceback__ = None
    del error
    gc.collect()
    depths = set()
    for _ in range(5):
        try:
            await breaker.call(give, 1)
        except CircuitOpenError as refused:
            depth, frame = 0, refused.__traceback__
            while frame is not None:
                depth, frame = depth + 1, frame.tb_next
            depths.add(depth)
    gc.collect()
    assert len(depths) == 1
    assert gone() is None


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(
    ("name", "options", "error", "match"),
    [
        ("", {}, ValueError, r"^name must be a non-empty string, not ''"),
        (3, {}, TypeError, r"^name must be a non-empty string, not 3"),
        ("it", {"trip": 5}, TypeError, r"^trip must be a Trip, as in Trip\(window=Cons.*, not 5"),
        ("it", {"trip": None}, TypeError, r"^trip must be a Trip"),
        ("it", {"open_for": 0}, ValueError, r"^open_for must be a finite number > 0, not 0"),
        ("it", {"open_for": "30"}, TypeError, r"^open_for must be"),
        ("it", {"half_open": 3}, TypeError, r"^half_open must be a HalfOpen, as in .*, not 3"),
        ("it", {"judge": 3}, TypeError, r"^judge must be a function, not 3"),
        (
            "it",
            {"half_open": HalfOpen(slow_ratio=0.5)},
            ValueError,
            r"^half_open.slow_ratio must be None if trip.slow is, .* not 0.5",
        ),
    ],
    ids=str,
)
def test_senseless_breakers_are_refused(name, options, error, match):
    with pytest.raises(error, match=match):
        wrong(CircuitBreaker)(name, **options)


@pytest.mark.promise("resilience-bad-input")
def test_senseless_calls_are_refused_and_change_nothing():
    breaker = one()
    with pytest.raises(ValueError, match=r"^mode must be one of None, 'isolated', .* not 'open'"):
        breaker.force(wrong("open"))
    for seconds in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"^seconds must be a finite number > 0"):
            breaker.open(seconds)
    with pytest.raises(TypeError, match=r"^seconds must be"):
        breaker.open(wrong("5"))
    assert breaker.state is CircuitState.CLOSED
    assert breaker.forced is None
    assert (breaker.name, repr(breaker)) == ("it", "CircuitBreaker('it')")


def test_a_plain_function_is_refused_when_it_is_decorated():
    with pytest.raises(TypeError, match="must be an async function"):
        wrong(one())(plain)


def plain():
    return 1


def test_watchers_are_called_when_it_has_opened_closed_or_was_forced():
    breaker, seen = CircuitBreaker("api", trip=Trip(Consecutive(1))), []
    subscription = breaker.watch(lambda: seen.append((breaker.state, breaker.forced)))
    breaker.try_acquire().record("success")
    breaker.reset()
    assert seen == []
    breaker.try_acquire().record("failure")
    breaker.open(5)
    breaker.reset()
    breaker.force("isolated")
    breaker.force(None)
    assert seen == [
        (CircuitState.OPEN, None),
        (CircuitState.OPEN, None),
        (CircuitState.CLOSED, None),
        (CircuitState.OPEN, "isolated"),
        (CircuitState.CLOSED, None),
    ]
    subscription.close()
    subscription.close()
    breaker.open()
    assert len(seen) == 5


def test_a_watcher_that_fails_breaks_nothing(caplog):
    breaker, seen = CircuitBreaker("api"), []

    def broken() -> None:
        raise ValueError

    breaker.watch(broken)
    first, second = (breaker.watch(lambda: seen.append(1)) for _ in range(2))
    breaker.open()
    assert seen == [1, 1]
    assert "a watcher of circuit 'api' failed" in caplog.text
    first.close()
    breaker.reset()
    assert seen == [1, 1, 1]
    second.close()


def test_a_watcher_is_a_plain_function():
    async def watcher() -> None: ...

    with pytest.raises(TypeError, match="watcher must be a plain function"):
        CircuitBreaker("api").watch(watcher)
