"""Retry: what is retried, for how long, what leaves in the end, and what the budget sees."""

from __future__ import annotations

import math
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import bind_deadline
from aiopatterns.core.errors import (
    BulkheadFullError,
    CircuitOpenError,
    RejectedError,
    TimeoutExceededError,
)
from aiopatterns.resilience.backoff import Constant, Exponential, Linear
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.retry import Again, Hint, Retry, RetryScheduled, Stop, Until
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.testing import (
    Trial,
    cancel_everywhere,
    capture_events,
    explore,
    fail_everywhere,
    simulate,
)

AT_ONCE = Constant(0)


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


def scheduled(events):
    return [event for event in events if isinstance(event, RetryScheduled)]


class Failing:
    """Fails so many times, then returns how often it was called."""

    def __init__(self, times, error=None):
        self.times = times
        self.error = error
        self.calls = 0

    async def __call__(self):
        self.calls += 1
        if self.calls <= self.times:
            raise self.error or OSError(self.calls)
        return self.calls


async def test_it_tries_again_until_it_succeeds():
    fn = Failing(2)
    assert await Retry(OSError, backoff=AT_ONCE)(fn)() == 3
    fn = Failing(2)
    assert await Retry(on=(KeyError, OSError), backoff=AT_ONCE).call(fn) == 3


def test_its_budget_can_be_asked_for():
    budget = Budget.ratio(0.5)
    assert Retry(on=OSError, budget=budget).budget is budget
    assert Retry(on=OSError).budget is None


async def test_in_the_end_the_original_error_leaves_with_a_note():
    error = OSError("broken")
    fn = Failing(99, error)
    with pytest.raises(OSError) as caught:
        await Retry(OSError, attempts=3, backoff=AT_ONCE)(fn)()
    assert caught.value is error
    assert fn.calls == 3
    assert len(error.__notes__) == 1
    assert error.__notes__[0].startswith("gave up after 3 attempts in ")
    assert error.__notes__[0].endswith(": no attempt is left")


async def test_arguments_may_have_any_name():
    calls = 0

    @Retry(OSError, backoff=AT_ONCE)
    async def apply(fn, *, self, policy):
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError
        return fn, self, policy

    assert await apply(fn=1, self=2, policy=3) == (1, 2, 3)


async def test_one_attempt_is_no_retry():
    fn = Failing(1)
    with pytest.raises(OSError) as caught:
        await Retry(OSError, attempts=1)(fn)()
    assert caught.value.__notes__[0].startswith("gave up after 1 attempt in ")


async def test_an_error_that_is_not_meant_passes_at_once_and_bare():
    fn = Failing(1, ValueError())
    with pytest.raises(ValueError) as caught:
        await Retry(OSError)(fn)()
    assert fn.calls == 1
    assert not hasattr(caught.value, "__notes__")


def test_it_waits_by_the_backoff():
    async def scenario():
        start = monotonic()
        with capture_events() as seen:
            assert await Retry(OSError, backoff=Linear(2)).call(Failing(3)) == 4
        assert monotonic() - start == pytest.approx(2 + 4 + 6)
        assert [(e.name, e.attempt, e.delay, str(e.error)) for e in scheduled(seen)] == [
            ("aiopatterns.retry.scheduled", n, 2.0 * n, str(n)) for n in (1, 2, 3)
        ]

    simulate(scenario)


async def test_a_retry_without_delay_gives_the_loop_a_turn():
    """A hot failing loop can be cancelled."""
    fn = Failing(math.inf)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(Retry(OSError, attempts=None, backoff=AT_ONCE)(fn))
            for _ in range(5):
                await sleep(0)
            scope.cancel()
    assert scope.cancelled_caught
    assert fn.calls < 20


def leaves(*errors):
    return ExceptionGroup("several", errors)


class Other(CircuitOpenError):
    pass


@pytest.mark.parametrize(
    ("on", "error", "expected"),
    [
        (OSError, OSError(), True),
        (OSError, ConnectionError(), True),
        (OSError, TimeoutExceededError("inner"), True),
        (OSError, ValueError(), False),
        ((KeyError, ValueError), ValueError(), True),
        (Exception, CircuitOpenError(), False),
        (RejectedError, CircuitOpenError(), True),
        (CircuitOpenError, Other(), True),
        (CircuitOpenError, BulkheadFullError(), False),
        ((Exception, BulkheadFullError), BulkheadFullError(), True),
        (lambda e: isinstance(e, RejectedError), CircuitOpenError(), True),
        (OSError, leaves(OSError(), leaves(OSError(), ConnectionError())), True),
        (OSError, leaves(OSError(), leaves(OSError(), ValueError())), False),
        (Exception, leaves(ValueError()), True),
        (Exception, leaves(ValueError(), CircuitOpenError()), False),
        (ExceptionGroup, leaves(ValueError(), CircuitOpenError()), True),
        (lambda e: e.args == (1,), leaves(OSError(1), ValueError(1)), True),
        (lambda e: e.args == (1,), leaves(OSError(1), ValueError(2)), False),
    ],
    ids=range(18),
)
def test_what_matches(on, error, expected):
    assert Retry(on).matches(error) is expected


def test_decide_is_a_plain_function():
    retry = Retry(OSError, attempts=3, backoff=Constant(2), until=Until(elapsed=10))
    assert retry.decide(1, OSError(), 0.0) == Again(2.0)
    assert retry.decide(1, ValueError(), 0.0) == Stop("error")
    assert retry.decide(3, OSError(), 0.0) == Stop("attempts")
    assert retry.decide(2, OSError(), 8.0) == Again(2.0)
    assert retry.decide(2, OSError(), 8.1) == Stop("elapsed")
    assert retry.decide(1, None, 0.0) == Again(2.0)
    with bind_deadline(monotonic() + 1.5):
        assert retry.decide(1, OSError(), 0.0) == Stop("deadline")


@given(st.integers(1, 10**9), st.floats(0, 1e9))
def test_unlimited_attempts_never_run_out(attempt, elapsed):
    retry = Retry(OSError, attempts=None)
    verdict = retry.decide(attempt, OSError(), elapsed)
    assert isinstance(verdict, Again)
    assert 0 <= verdict.delay <= 5


def test_no_attempt_begins_after_until_elapsed():
    async def scenario():
        fn = Failing(99)
        start = monotonic()
        retry = Retry(OSError, attempts=None, backoff=Constant(2), until=Until(elapsed=5))
        with pytest.raises(OSError) as caught:
            await retry.call(fn)
        assert fn.calls == 3
        assert monotonic() - start == pytest.approx(4)  # no sleep for nothing
        assert "the next would begin too late" in caught.value.__notes__[0]

    simulate(scenario)


def test_until_total_cancels_the_attempt_that_runs():
    async def scenario():
        calls = 0

        async def hang():
            nonlocal calls
            calls += 1
            if calls == 1:
                raise OSError
            await sleep(100)

        start = monotonic()
        retry = Retry(OSError, backoff=Constant(1), until=Until(total=5))
        with pytest.raises(TimeoutExceededError) as caught:
            await retry.call(hang)
        assert caught.value.timeout == 5
        assert monotonic() - start == pytest.approx(5)
        assert calls == 2

    simulate(scenario)


def test_a_wait_beyond_the_deadline_is_not_begun_and_an_inner_timeout_is_retried():
    async def scenario():
        calls = 0

        async def hang():
            nonlocal calls
            calls += 1
            await sleep(100)

        start = monotonic()
        attempt = Retry(OSError, attempts=9, backoff=Constant(1))(Timeout(2)(hang))
        with pytest.raises(TimeoutExceededError) as caught:
            await Timeout(6.5).call(attempt)
        assert caught.value.timeout == 6.5  # an exhausted outer deadline is never retried
        assert calls == 3
        assert monotonic() - start == pytest.approx(6.5)
        with pytest.raises(TimeoutExceededError) as caught:
            await Timeout(2.5).call(attempt)
        assert caught.value.timeout == 2
        assert "the deadline comes first" in caught.value.__notes__[0]

    simulate(scenario)


class Busy(Exception):
    def __init__(self, retry_after=None):
        self.retry_after = retry_after


@pytest.mark.parametrize(
    ("hint", "error", "expected"),
    [
        (None, Busy(3), 1),
        (Hint(), Busy(3), 3),
        (Hint(), Busy(3.5), 3.5),
        (Hint(), Busy(0), 0),
        (Hint(cap=2), Busy(3), 2),
        (Hint(cap=2), Busy(math.inf), 2),
        (Hint(cap=2), Busy(10**400), 2),
        (Hint(), Busy(), 1),
        (Hint(), Busy(-3), 1),
        (Hint(), Busy(math.nan), 1),
        (Hint(), Busy("3"), 1),
        (Hint(), OSError(), 1),
        (Hint(lambda e: 7), OSError(), 7),
        (Hint(lambda e: None), OSError(), 1),
    ],
    ids=range(14),
)
def test_a_hint_takes_the_place_of_the_backoff(hint, error, expected):
    retry = Retry(Exception, backoff=Constant(1), hint=hint)
    assert retry.decide(1, error, 0.0) == Again(expected)


def test_a_hint_is_stretched_if_the_backoff_has_jitter():
    retry = Retry(Exception, hint=Hint())
    delays = {wrong(retry.decide(1, Busy(10), 0.0)).delay for _ in range(20)}
    assert len(delays) > 1
    assert all(10 <= delay <= 11 for delay in delays)
    assert Retry(Exception, hint=Hint(cap=10)).decide(1, Busy(10), 0.0) == Again(10)


def test_a_hint_beyond_the_time_that_is_left_stops_now():
    retry = Retry(Exception, backoff=Constant(0), hint=Hint(cap=5), until=Until(elapsed=20))
    assert retry.decide(1, Busy(30), 0.0) == Stop("elapsed")
    assert retry.decide(1, Busy(15), 0.0) == Again(5)
    with bind_deadline(monotonic() + 10):
        assert retry.decide(1, Busy(15), 0.0) == Stop("deadline")


async def test_unwanted_results_are_retried_and_the_last_is_returned():
    fn = Failing(0)
    assert await Retry(OSError, backoff=AT_ONCE, on_result=lambda n: n < 3)(fn)() == 3
    fn = Failing(0)
    retry = Retry(OSError, attempts=4, backoff=AT_ONCE, on_result=lambda n: True)
    with capture_events() as events:
        assert await retry(fn)() == 4
    assert [event.error for event in scheduled(events)] == [None, None, None]


async def test_errors_of_predicates_leave():
    def broken(_):
        raise KeyError("predicate")

    budget = Budget.ratio()
    with pytest.raises(KeyError):
        await Retry(broken, budget=budget)(Failing(1))()
    with pytest.raises(KeyError):
        await Retry(OSError, on_result=broken, budget=budget)(Failing(0))()
    assert budget._calls == budget._extras == 0


def test_a_budget_bounds_the_retries_of_all_who_share_it():
    async def scenario():
        budget = Budget.tokens(0, min_per_second=0.3, ttl=10)
        retry = Retry(OSError, backoff=AT_ONCE, budget=budget)
        fns = [Failing(99) for _ in range(10)]
        error = OSError()
        with capture_events() as events:
            for fn in fns:
                with pytest.raises(OSError) as caught:
                    await retry.call(fn)
                error = caught.value
        assert sum(fn.calls for fn in fns) == 10 + 3
        assert "the retry budget is used up" in error.__notes__[0]
        names = [event.name.rpartition(".")[2] for event in events]
        assert names == ["scheduled"] * 3 + ["budget_exhausted"] * 10
        assert wrong(events[-1]).attempt == 1

    simulate(scenario)


async def test_a_ratio_budget_is_balanced_in_the_end():
    budget = Budget.ratio(0, min_concurrency=1)
    retry = Retry(OSError, attempts=3, backoff=AT_ONCE, budget=budget)
    assert await retry.call(Failing(0)) == 1
    assert await retry.call(Failing(2)) == 3
    for times, error in ((99, None), (1, ValueError())):
        with pytest.raises((OSError, ValueError)):
            await retry.call(Failing(times, error))
    assert budget._calls == budget._extras == 0
    assert budget.try_extra()
    with pytest.raises(OSError):
        await retry.call(Failing(1))
    budget.finish_extra()
    assert budget._calls == budget._extras == 0


@pytest.mark.promise("resilience-cancel-everywhere")
def test_cancelled_anywhere_the_budget_is_balanced_and_no_predicate_sees_it():
    def factory():
        budget = Budget.ratio(1.0)
        shown: list[Exception] = []

        def see(error):
            shown.append(error)
            return True

        retry = Retry(see, backoff=Constant(1), budget=budget)
        zero = Retry(OSError, backoff=AT_ONCE, budget=budget)
        both = Retry(OSError, until=Until(total=50), backoff=Constant(1), budget=budget)

        async def work():
            for each in (retry, zero, both):
                fn = Failing(2)

                async def slow(fn=fn):
                    await sleep(1)
                    return await fn()

                await each.call(slow)
                fn.calls = 0
                async for attempt in each.attempts():
                    async with attempt:
                        await slow()

        def check():
            assert budget._calls == budget._extras == 0
            assert all(isinstance(error, OSError) for error in shown)

        return Trial(work(), check)

    cancel_everywhere(factory, kinds=("native", "scope", "timeout", "native-twice"), minimum=20)


def test_user_functions_that_fail_leave_the_budget_balanced():
    def factory(fault):
        budget = Budget.ratio(1.0)

        def judged(value):
            fault()
            return value is None

        retry = Retry(judged, backoff=AT_ONCE, on_result=judged, budget=budget)

        async def call():
            fault()

        async def work():
            await Retry(ValueError, attempts=3, backoff=AT_ONCE, budget=budget).call(call)
            await retry.call(call)

        def check():
            assert budget._calls == budget._extras == 0

        return Trial(work(), check)

    fail_everywhere(factory, minimum=3)


@pytest.mark.promise("resilience-seeds")
def test_many_calls_share_one_policy_under_any_schedule():
    retry = Retry(OSError, attempts=4, backoff=Exponential(0.1, jitter="full"))

    async def scenario():
        fns = [Failing(number % 6) for number in range(12)]
        ends = {}

        async def call(number):
            async def slow():
                await sleep(0.01)
                return await fns[number]()

            try:
                ends[number] = await retry.call(slow)
            except OSError:
                ends[number] = "failed"

        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(call, number)
        for number in range(12):
            times = number % 6
            assert ends[number] == (times + 1 if times < 4 else "failed")
            assert fns[number].calls == min(times + 1, 4)

    explore(scenario, range(200))


async def test_a_stream_is_retried_until_its_first_item():
    begun = 0

    @Retry(OSError, attempts=3, backoff=AT_ONCE, on_result=lambda item: True)
    async def stream(good, bad):
        nonlocal begun
        begun += 1
        if begun < good:
            raise OSError("opening")
        yield begun
        if bad:
            raise OSError("later")

    assert [n async for n in stream(3, bad=False)] == [3]
    begun = 0
    got = []
    with pytest.raises(OSError, match="later"):
        async for n in stream(2, bad=True):
            got.append(n)
    assert got == [2]
    assert begun == 2


async def test_a_stream_without_result_predicate():
    fn = Failing(1)

    @Retry(OSError, backoff=AT_ONCE)
    async def stream():
        yield await fn()

    assert [n async for n in stream()] == [2]


def test_the_worst_case():
    retry = Retry(OSError, attempts=3, backoff=Constant(2))
    assert retry.calls() == 3
    assert retry.bound(5) == 3 * 5 + 2 * 2
    assert Retry(OSError, attempts=3).bound(0) == pytest.approx(0.1 + 0.2)
    assert Retry(OSError, attempts=None).calls() == math.inf
    assert Retry(OSError, attempts=None).bound(1) == math.inf
    assert Retry(OSError, attempts=None, until=Until(elapsed=7)).bound(1) == 8
    assert Retry(OSError, attempts=None, until=Until(total=7)).bound(1) == 7
    assert Retry(OSError, attempts=3, backoff=AT_ONCE, hint=Hint(cap=9)).bound(0) == 18
    many = Retry(OSError, attempts=10**6, backoff=Constant(1))
    assert many.bound(0) == 10**6 - 1


def test_names():
    text = repr(Retry(OSError, attempts=None, backoff=Constant(1)))
    assert text == "Retry(attempts=unlimited, backoff=Constant(seconds=1, jitter='none'))"
    assert repr(Retry(OSError)).startswith("Retry(attempts=5, backoff=Exponential(")


async def async_predicate(_):
    return True


BAD = (
    (wrong(Retry), TypeError, "missing 1 required positional argument: 'on'"),
    (lambda: Retry(()), TypeError, "on must be"),
    (lambda: Retry(wrong(BaseException)), TypeError, "on must be"),
    (lambda: Retry(wrong(KeyboardInterrupt)), TypeError, "on must be"),
    (lambda: Retry(wrong((OSError, "x"))), TypeError, "on must be"),
    (lambda: Retry(wrong("OSError")), TypeError, "on must be"),
    (lambda: Retry(wrong(async_predicate)), TypeError, "on must be a plain function"),
    (lambda: Retry(OSError, attempts=0), ValueError, "attempts must be"),
    (lambda: Retry(OSError, attempts=wrong(1.5)), TypeError, "attempts must be"),
    (lambda: Retry(OSError, backoff=wrong(3)), TypeError, "backoff must have a method delay"),
    (lambda: Retry(OSError, until=wrong(3)), TypeError, "until must be an Until"),
    (lambda: Retry(OSError, hint=wrong(lambda e: 1)), TypeError, "hint must be"),
    (lambda: Retry(OSError, on_result=wrong(3)), TypeError, "on_result must be"),
    (
        lambda: Retry(OSError, on_result=wrong(async_predicate)),
        TypeError,
        "on_result must be a plain",
    ),
    (lambda: Retry(OSError, budget=wrong(0.2)), TypeError, "budget must be a Budget"),
    (lambda: Until(elapsed=0), ValueError, "elapsed must be"),
    (lambda: Until(total=-1), ValueError, "total must be"),
    (lambda: Hint(wrong("retry_after")), TypeError, "fn must be"),
    (lambda: Hint(cap=0), ValueError, "cap must be"),
    (lambda: Retry(OSError).decide(0, OSError(), 0.0), ValueError, "attempt must be"),
    (lambda: Retry(OSError).decide(1, OSError(), -1.0), ValueError, "elapsed must be"),
)


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(("make", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_input_is_one_clear_error(make, error, text):
    with pytest.raises(error, match=text):
        make()
