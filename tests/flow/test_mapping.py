"""amap and stream_map: order, limits, windows, failures, early exit, and that nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import monotonic, rng, sleep, yield_now
from aiopatterns.core.errors import ClosedError, JobCancelledError, TimeoutExceededError
from aiopatterns.core.outcome import Err, Ok
from aiopatterns.flow import Channel
from aiopatterns.flow.crew import MapStatistics
from aiopatterns.flow.mapping import amap, stream_map
from aiopatterns.resilience import Budget, Constant, Retry, Until
from aiopatterns.testing import (
    Trial,
    cancel_everywhere,
    explore,
    fail_everywhere,
    leak_guard,
    simulate,
)

variable: ContextVar[str] = ContextVar("variable", default="outside")


def balanced(results) -> MapStatistics:
    figures = results.statistics()
    assert figures.accepted == (
        figures.done + figures.failed + figures.cancelled + figures.queued + figures.running
    )
    return figures


async def square(number: int) -> int:
    await yield_now()
    return number * number


async def numbers(count: int):
    for number in range(count):
        yield number
        await yield_now()


def endless_looking(count: int):
    """A source without a length."""
    return iter(range(count))


def distinct(count: int) -> set[int]:
    return set(range(count))


class Meter:
    """Counts how many calls run at once."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.calls = 0

    async def __call__(self, item: int) -> int:
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await sleep(1)
            return item
        finally:
            self.running -= 1


# ------------------------------------------------------------------------------------------ amap


@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("source", [range, endless_looking, numbers, distinct])
async def test_amap_keeps_the_order_of_the_items(source, limit):
    assert await amap(square, source(20), limit) == [number * number for number in range(20)]


async def test_amap_of_nothing():
    assert await amap(square, []) == []
    assert await amap(square, numbers(0)) == []


async def test_amap_reads_a_channel_and_leaves_it_open():
    channel = Channel[int](10)
    for number in range(3):
        await channel.send(number)
    channel.close()
    assert await amap(square, channel, limit=2) == [0, 1, 4]


@pytest.mark.parametrize("source", [range, endless_looking, numbers])
def test_amap_runs_limit_calls_and_no_more(source):
    async def run():
        meter = Meter()
        started = monotonic()
        assert await amap(meter, source(30), limit=10) == list(range(30))
        assert meter.most == 10
        assert 3 <= monotonic() - started < 3.5

    simulate(run)


@pytest.mark.parametrize("source", [range, numbers])
def test_amap_raises_the_first_failure_bare_after_all_have_ended(source):
    async def run():
        ended: list[int] = []
        error = ValueError("three")

        async def call(number: int) -> int:
            try:
                await sleep(1 if number == 3 else 10)
                if number == 3:
                    raise error
            finally:
                ended.append(number)
                if number == 5:
                    raise OSError("in cleanup")
            return number

        with pytest.raises(ValueError, match="three") as caught:
            await amap(call, source(30), limit=8)
        assert caught.value is error
        assert error.__notes__ == [
            "raised by the call for item 3",
            "1 more failed before everything had ended",
        ]
        assert sorted(ended) == list(range(8))
        assert monotonic() < 2

    simulate(run)


async def test_amap_raises_the_error_of_a_plain_source():
    def source():
        yield 1
        yield 2
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more") as caught:
        await amap(square, source())
    assert caught.value.__notes__ == ["raised by the source of the items, after 2 items"]


async def test_amap_gives_the_loop_a_turn():
    async def noop(number: int) -> int:
        return number

    async def endless():
        await amap(noop, iter(int, 1), limit=2)

    task = asyncio.create_task(endless())
    await yield_now()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_amap_gives_nothing_more_to_a_call_that_swallowed_its_cancellation():
    async def run():
        calls: list[int] = []

        async def call(number: int) -> None:
            calls.append(number)
            if number == 0:
                await sleep(1)
                raise ValueError(number)
            with contextlib.suppress(asyncio.CancelledError):
                await sleep(100)

        with pytest.raises(ValueError, match="0"):
            await amap(call, range(50), limit=2)
        assert calls == [0, 1]

    simulate(run)


async def test_amap_gives_nothing_more_to_a_call_that_ends_in_the_turn_of_the_failure():
    go, calls = asyncio.Event(), list[int]()

    async def call(number: int) -> None:
        calls.append(number)
        if number == 1:
            await yield_now()
            go.set()
            raise ValueError(number)
        await go.wait()

    with pytest.raises(ValueError, match="1"):
        await amap(call, range(50), limit=2)
    assert calls == [0, 1]


async def test_a_call_that_cancels_itself_has_failed():
    async def call(number: int) -> None:
        raise asyncio.CancelledError

    for source in (range(3), numbers(3)):
        with pytest.raises(JobCancelledError, match="the call for item 0 cancelled itself"):
            await amap(call, source, limit=1)


# ------------------------------------------------------------------------------------ stream_map


async def test_reads_results():
    async with stream_map(square, range(50), 4) as results:
        assert sorted([each async for each in results]) == [n * n for n in range(50)]
        assert [each async for each in results] == []
        assert balanced(results) == MapStatistics(accepted=50, done=50)
    assert balanced(results) == MapStatistics(accepted=50, done=50)


@pytest.mark.parametrize("source", [range, numbers])
def test_ordered_and_unordered(source):
    async def late(number: int) -> int:
        await sleep((number * 7919) % 11 + 1)
        return number

    async def run():
        async with stream_map(late, source(30), 5, ordered=True) as results:
            assert [each async for each in results] == list(range(30))
        async with stream_map(late, source(30), 5) as results:
            found = [each async for each in results]
        assert found != sorted(found) == list(range(30))

    simulate(run)


@pytest.mark.parametrize("errors", ["raise", "collect", "skip"])
@pytest.mark.parametrize("ordered", [True, False])
def test_error_policies(errors, ordered):
    async def call(number: int) -> int:
        await sleep(number + 1)
        if number % 3 == 2:
            raise ValueError(number)
        return number

    async def run():
        found = []
        async with stream_map(call, range(7), 3, ordered=ordered, errors=errors) as results:
            try:
                async for each in results:
                    found.append(each)
            except ValueError as error:
                assert errors == "raise"
                assert error.args == (2,)
                assert error.__notes__ == ["raised by the call for item 2"]
                assert [each async for each in results] == []
            balanced(results)
        figures = balanced(results)
        if errors == "raise":
            assert found == [0, 1]
            assert (figures.failed, figures.cancelled) == (1, 2)
        elif errors == "skip":
            assert found == [0, 1, 3, 4, 6]
            assert (figures.done, figures.failed) == (5, 2)
        else:
            assert [each.index for each in found] == list(range(7))
            assert [each.ok for each in found] == [n % 3 != 2 for n in range(7)]
            assert all(each.attempts == 1 for each in found)
            assert found[1] == Ok(1, 1, found[1].elapsed, 1)
            assert found[1].elapsed == pytest.approx(2, abs=0.1)
            assert isinstance(found[2], Err)
            assert found[2].error.args == (2,)

    simulate(run)


def test_results_before_the_failure_are_read_first():
    async def call(number: int) -> int:
        await sleep(number)
        if number == 3:
            raise ValueError(number)
        return number

    async def run():
        async with stream_map(call, range(9), 9) as results:
            await sleep(20)
            found = []
            with pytest.raises(ValueError, match="3"):
                while True:
                    found.append(await anext(results))
            assert found == [0, 1, 2]

    simulate(run)


def test_the_window_bounds_what_is_taken_and_unread():
    async def run():
        taken = 0

        def source():
            nonlocal taken
            for number in range(100):
                taken += 1
                yield number

        for window in (4, 7, 20):
            taken = 0
            async with stream_map(square, source(), 4, window=window) as results:
                await sleep(1)
                assert taken == window
                assert balanced(results).unread == window
                for read in range(1, 11):
                    await anext(results)
                    await sleep(1)
                    assert taken == window + read

    simulate(run)


def test_an_async_source_is_pulled_at_most_limit_ahead():
    async def run():
        taken = 0

        async def source():
            nonlocal taken
            for number in range(100):
                taken += 1
                yield number

        gate = asyncio.Event()

        async def call(number: int) -> int:
            await gate.wait()
            return number

        async with stream_map(call, source(), 3, window=50) as results:
            await sleep(1)
            figures = balanced(results)
            assert (figures.running, figures.queued, taken) == (3, 3, 6)
            gate.set()
            await sleep(1)
            assert taken == balanced(results).unread == 50
            assert len([each async for each in results]) == 100

    simulate(run)


def test_a_slow_reader_and_few_workers_lose_no_time():
    async def run():
        meter = Meter()
        async with stream_map(meter, range(40), 10) as results:
            async for _ in results:
                pass
        assert meter.most == 10
        assert monotonic() < 4.5

    simulate(run)


async def test_many_readers_share_the_results():
    async def read(results) -> list[int]:
        return [each async for each in results]

    async with stream_map(square, range(30), 4, ordered=True) as results:
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(read(results)) for _ in range(3)]
    found = sorted(number for reader in readers for number in reader.result())
    assert found == [n * n for n in range(30)]


def test_readers_wake_one_another():
    async def run():
        async def late(number: int) -> int:
            await sleep(1 if number else 5)
            return number

        async with stream_map(late, range(3), 3, ordered=True) as results:
            async with asyncio.TaskGroup() as group:
                readers = [group.create_task(anext(results)) for _ in range(3)]
            assert sorted(each.result() for each in readers) == [0, 1, 2]

    simulate(run)


@pytest.mark.promise("flow-no-leaks")
def test_leaving_early_cancels_and_awaits():
    async def run():
        meter = Meter()
        async with leak_guard():
            async with stream_map(meter, range(100), 5) as results:
                async for _ in results:
                    break
                assert meter.running == 5
        assert meter.running == 0
        figures = balanced(results)
        assert figures.queued == figures.running == 0
        assert figures.cancelled == 5

    simulate(run)


async def test_the_error_of_the_body_leaves_bare():
    error = RuntimeError("body")
    with pytest.raises(RuntimeError) as caught:
        async with stream_map(square, range(100), 5) as results:
            async for _ in results:
                raise error
    assert caught.value is error


async def test_may_be_entered_again():
    results = stream_map(square, [1, 2, 3], ordered=True)
    for _ in range(2):
        async with results:
            assert [each async for each in results] == [1, 4, 9]
            with pytest.raises(RuntimeError, match="open already"):
                await results.__aenter__()


async def test_reading_outside_is_refused_with_the_line_to_add():
    results = stream_map(square, range(3))
    assert results.statistics() == MapStatistics()
    with pytest.raises(ClosedError, match=r"async with stream_map\(\.\.\.\) as results:"):
        await anext(results)
    async with results:
        pass
    with pytest.raises(ClosedError):
        async for _ in results:
            pass


def test_a_timeout_is_for_each_attempt():
    async def call(number: int) -> int:
        await sleep(number)
        return number

    async def run():
        async with stream_map(
            call, range(6), 2, errors="collect", timeout=2.5, ordered=True
        ) as got:
            found = [each async for each in got]
        assert [each.ok for each in found] == [True] * 3 + [False] * 3
        assert all(isinstance(each.error, TimeoutExceededError) for each in found if not each.ok)
        assert found[3].elapsed == pytest.approx(2.5, abs=0.1)

    simulate(run)


class Flaky:
    """Fails each item some times before it works."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls: dict[int, int] = {}
        self.running = 0
        self.most = 0

    async def __call__(self, item: int) -> int:
        self.calls[item] = self.calls.get(item, 0) + 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await sleep(1)
        finally:
            self.running -= 1
        if self.calls[item] <= self.failures:
            raise OSError(item)
        return item


@pytest.mark.parametrize("source", [range, numbers])
@pytest.mark.parametrize("ordered", [True, False])
def test_retries(source, ordered):
    async def run():
        flaky = Flaky(2)
        retry = Retry(on=OSError, attempts=3, backoff=Constant(5))
        async with stream_map(
            flaky, source(12), 3, retry=retry, ordered=ordered, errors="collect", window=12
        ) as results:
            found = [each async for each in results]
            figures = balanced(results)
        assert sorted(each.index for each in found) == list(range(12))
        assert all(each.ok and each.attempts == 3 for each in found)
        assert all(each.elapsed >= 13 for each in found)
        assert figures.retries == 24
        assert flaky.most == 3
        # 36 attempts of 1 s by 3 workers, none of which is held by a wait of 5 s.
        assert monotonic() < 16.5

    simulate(run)


def test_an_exhausted_retry_leaves_the_original_error():
    async def run():
        retry = Retry(on=OSError, attempts=2, backoff=Constant(1))
        async with stream_map(Flaky(9), range(3), 3, retry=retry) as results:
            with pytest.raises(OSError, match="0") as caught:
                await anext(results)
        assert caught.value.__notes__[0].startswith("gave up after 2 attempts")
        assert caught.value.__notes__[1] == "raised by the call for item 0"
        # Items 1 and 2 fail in the same turn: they are not tried again any more.
        assert balanced(results).failed + balanced(results).cancelled == 3

    simulate(run)


def test_unwanted_results_are_retried():
    async def run():
        calls: list[int] = []

        async def call(number: int) -> int:
            calls.append(number)
            return len(calls)

        retry = Retry(on=OSError, attempts=4, backoff=Constant(0), on_result=lambda got: got < 3)
        async with stream_map(call, range(1), retry=retry) as results:
            assert [each async for each in results] == [3]
        assert balanced(results).retries == 2

    simulate(run)


def test_a_retry_predicate_that_raises_is_the_items_error():
    async def run():
        def broken(value: object) -> bool:
            raise KeyError(value)

        async def call(number: int) -> int:
            if number:
                raise OSError(number)
            return number

        for retry in (Retry(on=broken), Retry(on=OSError, on_result=broken)):
            async with stream_map(call, [0, 1], 1, retry=retry, errors="collect") as results:
                found = [each async for each in results]
            assert any(isinstance(each, Err) and type(each.error) is KeyError for each in found)
            balanced(results)

    simulate(run)


def test_a_total_time_bounds_all_attempts():
    async def run():
        async def call(number: int) -> int:
            await sleep(3)
            raise OSError(number)

        retry = Retry(on=OSError, attempts=9, backoff=Constant(1), until=Until(total=5))
        async with stream_map(call, range(2), 1, retry=retry, errors="collect") as results:
            found = [each async for each in results]
        assert [type(each.error) for each in found if isinstance(each, Err)] == [
            TimeoutExceededError
        ] * 2
        assert [each.attempts for each in found] == [2, 2]

    simulate(run)


class Ledger(Budget):
    """Allows everything and counts what is under way."""

    def __init__(self) -> None:
        self.calls = 0
        self.extras = 0

    def begin(self) -> None:
        self.calls += 1

    def finish(self) -> None:
        self.calls -= 1

    def try_extra(self) -> bool:
        self.extras += 1
        return True

    def finish_extra(self) -> None:
        self.extras -= 1


@pytest.mark.parametrize("moment", [0.5, 1.5, 2.5, 3.0, 3.5])
@pytest.mark.parametrize("source", [range, numbers])
def test_stopping_settles_the_budget_of_the_retry(moment, source):
    async def run():
        ledger = Ledger()
        retry = Retry(on=OSError, attempts=3, backoff=Constant(1), budget=ledger)
        async with stream_map(Flaky(1), source(9), 3, retry=retry) as results:
            await sleep(moment)
        figures = balanced(results)
        assert figures.cancelled
        assert (ledger.calls, ledger.extras) == (0, 0)
        async with stream_map(Flaky(2), source(9), 3, retry=retry) as results:
            assert len([each async for each in results]) == 9
        assert (ledger.calls, ledger.extras) == (0, 0)

    simulate(run)


async def test_each_call_sees_the_callers_variables_and_no_others():
    async def call(number: int) -> str:
        seen = variable.get()
        variable.set(f"set by {number}")
        await yield_now()
        assert variable.get() == f"set by {number}"
        return seen

    variable.set("caller")
    assert await amap(call, range(30), limit=3) == ["caller"] * 30
    assert await amap(call, numbers(30), limit=3) == ["caller"] * 30
    async with stream_map(call, range(30), 3) as results:
        variable.set("body")
        assert [each async for each in results] == ["caller"] * 30
    assert variable.get() == "body"


async def test_values_that_cannot_be_compared_count_as_set():
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise TypeError("cannot be compared")

        __hash__ = None  # type: ignore[assignment]

    odd: ContextVar[object] = ContextVar("odd", default=None)

    async def call(number: int) -> object:
        seen = odd.get()
        if number % 4 == 3:
            odd.set(Odd())
        return seen

    odd.set(first := Odd())
    assert all(each is first for each in await amap(call, range(20), limit=2))


@pytest.mark.promise("flow-bad-input")
@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"fn": 3}, TypeError, "fn must be a function, not 3"),
        ({"items": 3}, TypeError, "items must be an iterable, an async iterable or"),
        ({"limit": 0}, ValueError, "limit must be a whole number >= 1, not 0"),
        ({"limit": 0, "window": 5}, ValueError, "limit must be a whole number >= 1, not 0"),
        ({"limit": "8", "window": 9}, TypeError, "limit must be a whole number >= 1, not '8'"),
        ({"limit": 1.5}, TypeError, "limit must be"),
        ({"window": 3}, ValueError, r"window must be at least limit \(8\), not 3"),
        ({"window": float("nan")}, TypeError, "window must be"),
        ({"errors": "ignore"}, ValueError, "errors must be one of 'raise', 'collect', 'skip'"),
        ({"retry": 3}, TypeError, "retry must be None or a Retry, not 3"),
        ({"timeout": 0}, ValueError, "timeout must be a finite number > 0, not 0"),
        ({"timeout": float("nan")}, ValueError, "timeout must be"),
    ],
)
async def test_bad_arguments(given, error, text):
    with pytest.raises(error, match=text):
        stream_map(**{"fn": square, "items": range(3), **given})
    if given.keys() <= {"fn", "items", "limit"}:
        with pytest.raises(error, match=text):
            await amap(**{"fn": square, "items": range(3), **given})


@pytest.mark.promise("flow-bad-input")
@pytest.mark.parametrize("errors", ["raise", "collect", "skip"])
@pytest.mark.parametrize("timeout", [None, 5])
async def test_a_function_that_is_not_async_is_refused_once_and_named(errors, timeout):
    calls = 0

    class Client:
        def get(self, number: int) -> int:
            nonlocal calls
            calls += 1
            return number

    text = "fn must be an async function, but .*Client.get returned 0"
    retry = Retry(on=Exception)
    given: Any = Client().get
    async with stream_map(
        given, range(30), 1, errors=errors, timeout=timeout, retry=retry
    ) as results:
        with pytest.raises(TypeError, match=text):
            await anext(results)
    assert calls == 1
    with pytest.raises(TypeError, match=text):
        await amap(given, range(30))


@pytest.mark.promise("flow-bad-input")
async def test_a_plain_function_is_refused_before_it_runs():
    calls: list[int] = []

    def plain(number: int) -> None:
        calls.append(number)

    given: Any = plain
    text = "fn must be an async function, not the plain function .*plain"
    with pytest.raises(TypeError, match=text):
        await amap(given, range(3))
    with pytest.raises(TypeError, match=text):
        stream_map(given, range(3))
    assert calls == []


async def test_any_awaitable_will_do():
    loop = asyncio.get_running_loop()

    class Client:
        def get(self, number: int) -> asyncio.Future[int]:
            future: asyncio.Future[int] = loop.create_future()
            loop.call_soon(future.set_result, number)
            return future

    assert await amap(Client().get, range(10), limit=2) == list(range(10))
    assert await amap(lambda number: Client().get(number), range(3)) == [0, 1, 2]


# ------------------------------------------------------------------------------- sources that fail


async def test_results_are_read_before_the_error_of_an_async_source():
    async def source():
        for number in range(5):
            yield number
        raise ValueError("no more")

    for errors in ("raise", "collect", "skip"):
        found = []
        async with stream_map(square, source(), 2, errors=errors) as results:
            with pytest.raises(ValueError, match="no more") as caught:
                async for each in results:
                    found.append(each)
        assert len(found) == 5
        assert caught.value.__notes__ == ["raised by the source of the items, after 5 items"]


@pytest.mark.parametrize("plain", [True, False])
async def test_a_source_that_cancels_itself_has_failed(plain):
    """Else a source whose own task was cancelled ends the map as if it had no more items."""

    def numbers():
        yield 1
        raise asyncio.CancelledError

    async def async_numbers():
        for each in numbers():
            yield each

    found = []
    with pytest.raises(JobCancelledError, match="the source cancelled itself") as caught:
        async with stream_map(square, numbers() if plain else async_numbers(), 2) as results:
            async for each in results:
                found.append(each)
    assert found == [1]
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert caught.value.__notes__ == ["raised by the source of the items, after 1 items"]
    with pytest.raises(JobCancelledError, match="the source cancelled itself"):
        await amap(square, numbers() if plain else async_numbers())


async def test_what_is_no_exception_passes_through_the_map():
    class Halt(BaseException):
        pass

    def source():
        yield 1
        raise Halt

    with pytest.raises(Halt):
        async with stream_map(square, source(), 1) as results:
            async for _ in results:
                pass


@pytest.mark.parametrize("ordered", [True, False])
async def test_an_item_that_comes_in_the_turn_of_the_end_is_given_up(ordered):
    waits, go = asyncio.Event(), asyncio.Event()

    async def source():
        yield 0
        waits.set()
        await go.wait()
        yield 1

    async def call(number: int) -> int:
        await waits.wait()
        go.set()
        raise ValueError(number)

    results = stream_map(call, source(), 2, ordered=ordered)
    with pytest.raises(ValueError, match="0"):
        async with results:
            await anext(results)
    assert balanced(results) == MapStatistics(accepted=2, failed=1, cancelled=1)


async def test_a_worker_that_is_cancelled_alone_ends_the_map_with_an_error():
    """And not with a cancellation of the reader, nor as if there were no more items."""

    async def source():
        yield 1
        await sleep(3600)

    async with stream_map(square, source(), 1) as results:
        assert await anext(results) == 1
        workers = [each for each in asyncio.all_tasks() if "_work" in each.get_name()]
        assert len(workers) == 1
        workers[0].cancel()
        with pytest.raises(JobCancelledError, match="a worker cancelled itself"):
            await anext(results)
    balanced(results)


async def test_amap_blames_the_call_that_cancelled_its_worker():
    async def call(number: int) -> int:
        if number == 63:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # arrives when the worker gives the loop its turn
        return number

    with pytest.raises(JobCancelledError, match="the call for item 63 cancelled itself"):
        await amap(call, range(100), limit=1)


@pytest.mark.parametrize("given", [range(3), "async"])
async def test_an_error_that_refuses_notes_leaves_all_the_same(given):
    @dataclass(frozen=True)
    class Frozen(Exception):
        number: int

        def add_note(self, note: str) -> None:
            raise AttributeError("frozen")

    async def call(number: int) -> int:
        await yield_now()
        raise Frozen(number)

    with pytest.raises(Frozen):
        await amap(call, numbers(3) if given == "async" else given, limit=3)


@pytest.mark.parametrize("fails", [True, False])
async def test_a_generator_is_closed_to_the_end(fails):
    """Its cleanup waits, as that of a transaction does, though the map is being cancelled."""
    closed: list[str] = []

    async def source():
        try:
            while True:
                yield 1
        finally:
            await sleep(0.001)
            closed.append("closed")

    async def call(number: int) -> int:
        if fails:
            raise ValueError(number)
        return number

    with contextlib.suppress(ValueError):
        async with stream_map(call, source(), 2) as results:
            await anext(results)
    assert closed == ["closed"]


async def test_an_async_generator_is_closed_on_leaving():
    closed: list[str] = []

    async def source():
        try:
            while True:
                yield 1
        finally:
            closed.append("closed")

    async with stream_map(square, source(), 2) as results:
        await anext(results)
    assert closed == ["closed"]
    channel = Channel[int](3)
    await channel.send(1)
    async with stream_map(square, channel, 2) as results:
        assert await anext(results) == 1
    await channel.send(1)


async def test_an_error_in_closing_the_source_is_told():
    async def source():
        try:
            while True:
                yield 1
        finally:
            raise OSError("in close")

    with pytest.raises(OSError, match="in close") as caught:
        async with stream_map(square, source(), 2) as results:
            await anext(results)
    assert caught.value.__notes__ == ["raised by the source of the items, when it was closed"]
    with pytest.raises(KeyError) as body:
        async with stream_map(square, source(), 2) as results:
            await anext(results)
            raise KeyError
    assert body.value.__notes__ == ["closing the source failed as well: OSError('in close')"]


class Reluctant(AsyncGenerator[int, None]):
    """An async generator in plain Python that cannot be closed."""

    async def asend(self, value: None) -> int:
        return 1

    async def athrow(self, *error):
        raise AssertionError

    async def aclose(self) -> None:
        raise OSError("in close")


async def test_any_kind_of_async_generator_is_closed():
    with pytest.raises(OSError, match="in close"):
        async with stream_map(square, Reluctant(), 2) as results:
            await anext(results)
    with pytest.raises(KeyError) as body:
        async with stream_map(square, Reluctant(), 2) as results:
            raise KeyError
    assert body.value.__notes__ == ["closing the source failed as well: OSError('in close')"]


async def test_leaving_what_was_not_entered_is_refused():
    with pytest.raises(ClosedError):
        await stream_map(square, []).__aexit__(None, None, None)


async def test_a_source_that_cannot_be_started():
    class Broken:
        def __aiter__(self):
            raise OSError("no source")

    class Plain:
        def __iter__(self):
            raise OSError("no source")

    for source in (Broken(), Plain()):
        with pytest.raises(OSError, match="no source"):
            async with stream_map(square, source):
                pass


# ---------------------------------------------------------------- disturbances: the whole machine


def scenario(fault, *, ordered, asynchronous, errors):
    """A map with retries over a source that may fail, read slowly."""
    finished: list[int] = []

    async def call(number: int) -> int:
        fault()
        await yield_now()
        if rng().random() < 0.3:
            await sleep(0.01)
        finished.append(number)
        return number

    def plain():
        for number in range(6):
            fault()
            yield number

    async def source():
        for number in plain():
            yield number

    results = stream_map(
        call,
        source() if asynchronous else plain(),
        2,
        ordered=ordered,
        errors=errors,
        retry=Retry(on=ConnectionError, attempts=2, backoff=Constant(0.01)),
        timeout=10,
    )
    found: list[object] = []

    async def work() -> None:
        async with results:
            async for each in results:
                found.append(each)
                fault()
                balanced(results)
                await yield_now()

    def check() -> None:
        figures = balanced(results)
        assert figures.queued == figures.running == 0
        assert figures.done == len(finished)
        assert len(found) <= len(finished) + figures.failed

    return Trial(work(), check)


CHOICES = [
    (ordered, asynchronous, errors)
    for ordered in (True, False)
    for asynchronous in (True, False)
    for errors in ("raise", "collect", "skip")
]


@pytest.mark.promise("flow-cancel-native", "flow-cancel-scope", "flow-cancel-timeout")
@pytest.mark.parametrize(("ordered", "asynchronous", "errors"), CHOICES)
def test_the_counts_add_up_after_a_cancellation_at_any_await(ordered, asynchronous, errors):
    def make() -> Trial:
        return scenario(lambda: None, ordered=ordered, asynchronous=asynchronous, errors=errors)

    cancel_everywhere(make, minimum=5)


@pytest.mark.promise("flow-fail-everywhere")
@pytest.mark.parametrize(("ordered", "asynchronous", "errors"), CHOICES)
def test_the_counts_add_up_when_any_function_fails(ordered, asynchronous, errors):
    def make(fault) -> Trial:
        return scenario(fault, ordered=ordered, asynchronous=asynchronous, errors=errors)

    fail_everywhere(make, minimum=12)


@pytest.mark.promise("flow-cancel-native", "flow-cancel-scope", "flow-cancel-timeout")
@pytest.mark.parametrize("asynchronous", [True, False])
def test_amap_leaves_nothing_after_a_cancellation_at_any_await(asynchronous):
    def make() -> Trial:
        running = 0

        async def call(number: int) -> int:
            nonlocal running
            running += 1
            try:
                await sleep(0.01)
            finally:
                running -= 1
            return number

        def check() -> None:
            assert running == 0

        return Trial(amap(call, numbers(9) if asynchronous else range(9), limit=3), check)

    cancel_everywhere(make, minimum=1)


@pytest.mark.promise("flow-seeds", "flow-conservation")
def test_keeps_its_invariants_under_200_seeds():
    async def run() -> None:
        dice = rng()
        flaky_calls = 0

        async def call(number: int) -> int:
            nonlocal flaky_calls
            flaky_calls += 1
            if dice.random() < 0.5:
                await sleep(dice.random())
            if dice.random() < 0.2:
                raise OSError(number)
            if dice.random() < 0.05:
                raise ValueError(number)
            return number

        count = dice.randrange(30)
        limit = dice.randint(1, 6)
        ordered = dice.random() < 0.5
        async with stream_map(
            call,
            numbers(count) if dice.random() < 0.5 else range(count),
            limit,
            ordered=ordered,
            errors="collect",
            window=limit + dice.randrange(4),
            retry=Retry(on=OSError, attempts=3, backoff=Constant(dice.random())),
            timeout=0.8 if dice.random() < 0.5 else None,
        ) as results:
            found = []
            async for each in results:
                figures = balanced(results)
                assert figures.running <= limit
                found.append(each.index)
                if dice.random() < 0.02:
                    break
                if dice.random() < 0.3:
                    await sleep(dice.random())
            else:
                assert sorted(found) == list(range(count))
            if ordered:
                assert found == sorted(found)
        figures = balanced(results)
        assert figures.queued == figures.running == 0
        assert flaky_calls >= figures.done + figures.failed

    explore(run, range(200))


@given(
    st.lists(st.integers(0, 3), max_size=12),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from(["collect", "skip"]),
)
def test_equals_a_plain_loop(script, limit, ordered, errors):
    async def call(what: int) -> int:
        if what == 3:
            raise ValueError(what)
        for _ in range(what):
            await sleep(1)
        return what

    async def run():
        async with stream_map(call, script, limit, ordered=ordered, errors=errors) as results:
            found = [each async for each in results]
        if errors == "collect":
            found = [each.value if each.ok else 3 for each in found]
            expected = script
        else:
            expected = [what for what in script if what != 3]
        assert (found if ordered else sorted(found)) == (expected if ordered else sorted(expected))

    simulate(run)


async def test_works_with_anyio_scopes():
    with anyio.move_on_after(0.001) as scope:
        await amap(lambda _: anyio.sleep(10), range(3))
    assert scope.cancelled_caught
