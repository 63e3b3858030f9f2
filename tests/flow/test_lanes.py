"""Concurrent stages: limits, order, keys, retries and timeouts."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from contextvars import ContextVar
from itertools import count
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import monotonic, rng, sleep, yield_now
from aiopatterns.core.errors import JobCancelledError, TimeoutExceededError
from aiopatterns.flow.executors import Executor, Inline
from aiopatterns.flow.pipeline import Pipeline
from aiopatterns.flow.stage import DeadLetter
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.retry import Retry, Until
from aiopatterns.testing import explore, simulate


async def collect(pipeline):
    async with pipeline.open() as results:
        return [result async for result in results]


class Gauge:
    """Counts how many calls run at once."""

    def __init__(self):
        self.running = self.most = 0

    async def __call__(self, x):
        self.running += 1
        self.most = max(self.most, self.running)
        await sleep(rng().random())
        self.running -= 1
        return x


class Flaky:
    """Fails each item a number of times."""

    def __init__(self, failures, *, took=0.0):
        self.failures = failures
        self.calls: Counter[int] = Counter()
        self.log: list[int] = []
        self.took = took

    async def __call__(self, x):
        self.calls[x] += 1
        self.log.append(x)
        await sleep(self.took)
        if self.calls[x] <= self.failures.get(x, 0):
            raise OSError(x)
        return x


@pytest.mark.parametrize("ordered", [True, False])
def test_never_more_than_the_workers(ordered):
    async def scenario():
        gauge = Gauge()
        got = await collect(Pipeline(range(40)).map(gauge, workers=5, ordered=ordered))
        assert gauge.most == 5
        assert (got if ordered else sorted(got)) == list(range(40))

    explore(scenario, range(30))


async def test_calls_are_counted_and_timed_after_the_first_ones_too():
    report = await Pipeline(range(300)).map(abs, workers=3).run()
    assert report.stages[0].processed == 300
    assert report.stages[0].p50 is not None


async def test_one_error_raised_for_two_items_is_one_error():
    error = LookupError()

    async def fail(x):
        raise error

    async def fail_late(x):
        try:
            await sleep(3600 if x else 0)
        except asyncio.CancelledError:
            raise error from None
        raise error

    for fn in (fail, fail_late):
        with pytest.raises(LookupError) as caught:
            await Pipeline(range(2)).map(fn, workers=2).run()
        assert caught.value is error
        assert not any("after that" in note for note in error.__notes__)


def test_unordered_results_come_as_they_are_ready():
    async def work(x):
        await sleep(x)
        return x

    pipeline = Pipeline([3, 1, 2]).map(work, workers=3, ordered=False)
    assert simulate(lambda: collect(pipeline)) == [1, 2, 3]


def test_a_slow_head_holds_back_results_but_not_workers_until_the_stage_is_full():
    started = []

    async def work(x):
        started.append(x)
        await sleep(1000 if x == 0 else 1)
        return x

    async def scenario():
        async with Pipeline(range(100), capacity=10).map(work, workers=4).open() as results:
            await sleep(500)
            stage = results.statistics().stages[0]
            assert (stage.in_flight, stage.processed) == (1, 13)
            assert results.statistics().output.queued == 13
            assert await anext(results) == 0
        assert started[:14] == list(range(14))

    simulate(scenario)


def test_keys_wait_for_each_other_and_for_nobody_else():
    log = []

    async def work(pair):
        key, cost = pair
        await sleep(cost)
        log.append(key)
        return key

    pairs = [("a", 10), ("a", 1), ("b", 1), ("b", 1), ("c", 1)]
    pipeline = Pipeline(pairs).map(work, key=lambda pair: pair[0], workers=3)
    assert simulate(lambda: collect(pipeline)) == ["a", "a", "b", "b", "c"]
    assert log == ["b", "c", "b", "a", "a"]


@pytest.mark.parametrize("key", [lambda x: [x], lambda x: 1 / 0], ids=["type", "zero"])
async def test_a_key_that_fails_fails_its_item(key):
    dead = []

    async def bury(item):
        dead.append(item.attempts)

    async def same(x):
        return x

    pipeline = Pipeline([1, 2]).map(same, key=key, workers=2)
    with pytest.raises((TypeError, ZeroDivisionError)) as caught:
        await pipeline.run()
    assert caught.value.__notes__ == ["in stage 'same', item 0"]
    pipeline = Pipeline([1, 2]).map(same, key=key, workers=2, on_error=DeadLetter(bury))
    report = await pipeline.run()
    assert dead == [0, 0]
    assert (report.failed, report.delivered) == (2, 0)


async def test_several_workers_for_filter_and_flat_map():
    async def odd(x):
        return x % 2

    async def two(x):
        yield x
        yield -x

    pipeline = Pipeline(range(6)).filter(odd, workers=3).flat_map(two, workers=3)
    assert await collect(pipeline) == [1, -1, 3, -3, 5, -5]
    no_iterable: Any = abs
    with pytest.raises(TypeError, match="must be an iterable"):
        await Pipeline([1]).flat_map(no_iterable, workers=2).run()


async def test_a_stream_that_fails_half_way_passes_nothing_on():
    def gen(x):
        yield x
        if x == 1:
            raise LookupError(x)

    pipeline = Pipeline(range(3)).flat_map(gen, workers=2, on_error="skip")
    assert await collect(pipeline) == [0, 2]


# ------------------------------------------------------------------------------------ retry


def test_retries_until_it_works_or_gives_up():
    async def scenario():
        fn = Flaky({1: 2, 2: 9})
        retry = Retry(on=OSError, attempts=3, backoff=Constant(1.0))
        pipeline = Pipeline(range(4)).map(fn, workers=2, retry=retry, on_error="skip")
        async with pipeline.open() as results:
            got = [result async for result in results]
            stage = results.statistics().stages[0]
        assert got == [0, 1, 3]
        assert fn.calls == {0: 1, 1: 3, 2: 3, 3: 1}
        assert (stage.accepted, stage.processed, stage.failed) == (4, 3, 1)

    simulate(scenario)


async def test_the_error_of_the_last_attempt_leaves_with_a_note():
    fn = Flaky({0: 9})
    retry = Retry(on=OSError, attempts=3, backoff=Constant(0.0))
    with pytest.raises(OSError, match="0") as caught:
        await Pipeline(range(1)).map(fn, retry=retry).named("flaky").run()
    assert caught.value.__notes__[-1] == "in stage 'flaky', item 0, attempt 3"


def test_a_waiting_retry_holds_no_worker():
    async def scenario():
        fn = Flaky({0: 1}, took=1.0)
        retry = Retry(on=OSError, backoff=Constant(100.0))
        pipeline = Pipeline(range(5)).map(fn, retry=retry)
        async with pipeline.open() as results:
            await sleep(50)
            assert fn.log == [0, 1, 2, 3, 4]
            stage = results.statistics().stages[0]
            assert (stage.queued, stage.in_flight, stage.processed) == (1, 0, 4)
            assert [result async for result in results] == [0, 1, 2, 3, 4]
        assert fn.log == [0, 1, 2, 3, 4, 0]

    simulate(scenario)


def test_a_waiting_retry_keeps_its_key():
    fn = Flaky({1: 1})
    retry = Retry(on=OSError, backoff=Constant(10.0))
    pipeline = Pipeline([1, 3, 2, 4]).map(fn, key=lambda x: x % 2, workers=4, retry=retry)
    assert simulate(lambda: collect(pipeline)) == [1, 3, 2, 4]
    assert fn.log == [1, 2, 4, 1, 3]


async def test_a_failing_predicate_fails_the_item_with_its_own_error():
    def broken(error):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await Pipeline([0]).map(Flaky({0: 1}), retry=Retry(on=broken)).named("x").run()
    assert caught.value.__notes__ == ["in stage 'x', item 0"]


def test_the_budget_is_told_of_every_end():
    async def scenario():
        budget = Budget.ratio(1.0, min_concurrency=100)
        retry = Retry(on=OSError, attempts=3, backoff=Constant(5.0), budget=budget)

        async def work(x):
            if x == 4:
                raise asyncio.CancelledError
            if x == 5:
                await sleep(3600)
            return await fn(x)

        fn = Flaky({1: 1, 2: 9, 3: 1})
        pipeline = Pipeline(range(6)).map(work, workers=6, retry=retry, on_error="skip")
        with anyio.move_on_after(4):
            await pipeline.run()
        with anyio.move_on_after(60):
            await pipeline.run()
        assert (budget._calls, budget._extras) == (0, 0)

    simulate(scenario)


class Improving:
    """Gives a better value each time it is called for an item."""

    def __init__(self, kind=int):
        self.calls: Counter[int] = Counter()
        self.kind = kind

    def __call__(self, x):
        self.calls[x] += 1
        return self.kind(x + self.calls[x])


def unwanted(value):
    return value < 3


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"executor": Inline(2)}])
async def test_a_result_that_is_not_wanted_is_tried_again(options):
    budget = Budget.ratio(1.0)
    retry = Retry(on=OSError, attempts=3, backoff=Constant(0.0), on_result=unwanted, budget=budget)
    better = Improving()
    pipeline = Pipeline([-9, 0, 1, 2]).map(better, retry=retry, **options)
    assert await collect(pipeline) == [-6, 3, 3, 3]  # the last attempt counts, whatever it gives
    assert better.calls == {-9: 3, 0: 3, 1: 2, 2: 1}
    assert (budget._calls, budget._extras) == (0, 0)


async def test_a_result_is_what_the_function_returned():
    seen = []

    def look(value):
        seen.append(value)
        return False

    retry = Retry(on=OSError, on_result=look)
    pipeline = Pipeline([2]).filter(lambda x: x, retry=retry).flat_map(range, retry=retry)
    assert await collect(pipeline) == [0, 1]
    assert seen == [2, [0, 1]]


async def test_a_failing_predicate_of_results_fails_the_item_with_its_own_error():
    def broken(value):
        raise LookupError("predicate")

    budget = Budget.ratio(1.0)
    retry = Retry(on=Exception, on_result=broken, budget=budget)
    pipeline = Pipeline([1, 2]).map(abs, retry=retry)
    with pytest.raises(LookupError, match="predicate"):
        await pipeline.run()
    assert (budget._calls, budget._extras) == (0, 0)


@pytest.mark.parametrize("options", [{}, {"executor": Inline(1)}])
def test_the_time_of_all_attempts_together_is_bounded(options):
    began = []

    async def slow(x):
        began.append(monotonic())
        await sleep(x)
        raise OSError

    async def scenario():
        began.clear()
        retry = Retry(on=OSError, backoff=Constant(1.0), until=Until(total=10.0))
        with pytest.raises(TimeoutExceededError):
            await Pipeline([7]).map(slow, retry=retry, **options).run()
        assert began == [0.0, 8.0]
        assert monotonic() == 10.0

    simulate(scenario)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_budget_is_told_of_a_retry_that_was_due_when_the_run_was_left(workers):
    async def scenario():
        budget = Budget.ratio(1.0)
        retry = Retry(on=OSError, backoff=Constant(1.0), budget=budget)

        async def work(x):
            if x < 2:
                raise OSError
            await sleep(3600)

        with anyio.move_on_after(5):
            await Pipeline(range(9)).map(work, workers=workers, retry=retry).run()
        assert (budget._calls, budget._extras) == (0, 0)

    simulate(scenario)


async def test_the_budget_is_told_of_all_that_shared_a_call():
    class Everything(Executor):
        __slots__ = ()

        async def _call(self, fn, args):
            return fn(*args)

    def fail(x):
        if x > 3:
            raise LookupError(x)

    budget = Budget.ratio(1.0)
    retry = Retry(on=OSError, budget=budget)
    executor = Everything(1, "everything")
    with pytest.raises(LookupError, match="4"):
        await Pipeline(range(300)).map(fail, executor=executor, retry=retry).run()
    assert (budget._calls, budget._extras) == (0, 0)


class Ambiguous:
    def __bool__(self):
        raise ValueError("neither true nor false")


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"executor": Inline(1)}])
async def test_a_value_that_has_no_truth_fails_its_item(options):
    pipeline = Pipeline([0, Ambiguous(), 1]).filter(lambda x: x, on_error="skip", **options)
    report = await pipeline.run()
    assert (report.delivered, report.stages[0].failed) == (1, 1)


def test_a_retry_inside_is_noticed():
    async def scenario():
        inner = Retry(on=OSError, attempts=2, backoff=Constant(0.0))
        outer = Retry(on=OSError, attempts=2, backoff=Constant(0.0))

        @inner
        async def fail(x):
            raise OSError

        with pytest.warns(RuntimeWarning, match="attempts multiply"):
            await Pipeline([1]).map(fail, retry=outer, on_error="skip").run()

    simulate(scenario)


# ------------------------------------------------------------- timeouts and cancellations


def test_a_timeout_is_for_one_attempt():
    async def scenario():
        calls = []

        async def slow(x):
            calls.append(monotonic())
            await sleep(x)
            return x

        retry = Retry(on=TimeoutError, attempts=2, backoff=Constant(1.0))
        pipeline = Pipeline([1, 100, 2]).map(slow, timeout=5.0, retry=retry, on_error="skip")
        assert await collect(pipeline) == [1, 2]
        assert len(calls) == 4
        with pytest.raises(TimeoutExceededError) as caught:
            await Pipeline([100]).map(slow, timeout=5.0).run()
        assert caught.value.__notes__[-1] == "in stage 'slow', item 0"

    simulate(scenario)


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"retry": Retry(on=JobCancelledError)}])
async def test_a_cancellation_of_the_functions_own_is_a_failure(options):
    async def odd(x):
        if x == 1:
            raise asyncio.CancelledError
        return x

    with pytest.raises(JobCancelledError, match="the function cancelled itself"):
        await Pipeline(range(3)).map(odd, **options).run()
    pipeline = Pipeline(range(3)).map(odd, on_error="skip", **options)
    assert await collect(pipeline) == [0, 2]


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"workers": 2, "timeout": 9}])
async def test_a_cancel_of_its_own_task_that_a_function_swallows_hurts_nobody(options):
    async def careless(x):
        if x < 2:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        return x

    assert await collect(Pipeline(range(6)).map(careless, **options)) == list(range(6))


async def test_workers_are_started_when_there_is_work_for_them():
    tasks = set()

    async def look(x):
        tasks.add(asyncio.current_task())
        await asyncio.sleep(0)
        return x

    assert await collect(Pipeline(range(9)).map(look, workers=10**9)) == list(range(9))
    assert len(tasks) == 9
    tasks.clear()
    assert await collect(Pipeline(range(9)).map(look, workers=2)) == list(range(9))
    assert len(tasks) == 2


def test_a_worker_that_starts_late_sees_nothing_that_an_item_has_set():
    variable = ContextVar("variable", default="clean")

    async def mark(x):
        variable.set(x)
        return x

    async def look(x):
        await sleep(1)
        return variable.get()

    async def scenario():
        pipeline = Pipeline(range(9)).map(mark).map(look, workers=4)
        assert await collect(pipeline) == ["clean"] * 9

    simulate(scenario)


async def test_outputs_that_are_collected_are_closed_when_the_run_is_left():
    closed = []
    scope = anyio.CancelScope()

    def endless(x):
        try:
            for number in count():
                if number == 100:
                    scope.cancel()
                yield x
        finally:
            closed.append(x)

    with scope:
        await Pipeline([1]).flat_map(endless, workers=2).run()
    assert closed == [1]


def test_the_first_failure_wins_and_later_ones_are_notes():
    async def work(x):
        try:
            await sleep(1 if x == 2 else 100)
        except asyncio.CancelledError:
            if x == 1:
                raise LookupError("cleanup") from None
            raise
        raise ValueError(x)

    async def scenario():
        with pytest.raises(ValueError, match="2") as caught:
            await Pipeline(range(4)).map(work, workers=4).run()
        assert caught.value.__notes__ == [
            "in stage 'work', item 2",
            "after that: LookupError('cleanup')",
        ]

    simulate(scenario)


def test_workers_take_turns_when_results_have_no_room():
    async def scenario():
        async with Pipeline(range(1000), capacity=1).map(Gauge(), workers=2).open() as results:
            await sleep(100)
            report = results.statistics()
            assert report.read <= 8
            assert await anext(results) == 0

    simulate(scenario)


@pytest.mark.parametrize("options", [{"workers": 2}, {"timeout": 9.0}, {"executor": Inline(1)}])
def test_a_long_queue_of_quick_calls_does_not_starve_the_loop(options):
    async def scenario():
        go_on, turns = anyio.Event(), [0]
        called: Counter[int] = Counter()
        passed: Counter[int] = Counter()

        async def first_wait(x):
            if x < 2:
                await go_on.wait()
            called[turns[0]] += 1
            return x

        def passing(x):
            passed[turns[0]] += 1

        async def release():
            await sleep(1)
            go_on.set()
            while sum(passed.values()) < 1000:
                turns[0] += 1
                await yield_now()

        pipeline = Pipeline(range(1000), capacity=1000).map(first_wait, **options).map(passing)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(release)
            await pipeline.run()
        assert max(called.values()) <= 128
        assert max(passed.values()) <= 128

    simulate(scenario)
