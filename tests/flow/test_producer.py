"""produce_consume: all kinds of sources, the end of the stream, failures, drops."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import rng, sleep, yield_now
from aiopatterns.core.errors import JobCancelledError, QueueFullError
from aiopatterns.flow import Channel
from aiopatterns.flow.producer import ConsumerFailed, Report, produce_consume
from aiopatterns.testing import (
    Trial,
    cancel_everywhere,
    capture_events,
    explore,
    fail_everywhere,
    simulate,
)

variable: ContextVar[str] = ContextVar("variable", default="outside")


async def numbers(count: int):
    for number in range(count):
        yield number
        await yield_now()


async def push(send) -> None:
    for number in range(5):
        await send(number)


class Sink:
    def __init__(self) -> None:
        self.items: list[Any] = []

    async def __call__(self, item: Any) -> None:
        await yield_now()
        self.items.append(item)


def whole(report: Report) -> Report:
    assert report.produced == report.consumed + report.failed + report.dropped
    return report


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: range(5), range(5)),
        (lambda: iter(range(5)), range(5)),
        (lambda: numbers(5), range(5)),
        (lambda: push, range(5)),
        (lambda: [1, 2, 3], [1, 2, 3]),
        (lambda: ["a", "b"], ["a", "b"]),
        (lambda: [range(3), numbers(3), push], [*range(3), *range(3), *range(5)]),
        (lambda: (push, push), [*range(5), *range(5)]),
        (lambda: [[1, 2], [3]], [1, 2, 3]),
        (lambda: {"x": 1}, ["x"]),
        (list, []),
        (lambda: [[], numbers(0)], []),
    ],
)
async def test_all_kinds_of_sources(make, expected):
    sink = Sink()
    report = whole(await produce_consume(make(), sink))
    assert sorted(sink.items) == sorted(expected)
    assert report.produced == report.consumed == len(list(expected))
    assert report.elapsed >= 0


async def test_a_stream_is_a_source_and_a_sink():
    source, sink = Channel[int](5), Channel[int](5)
    for number in range(5):
        await source.send(number)
    source.close()
    assert (await produce_consume(source, sink, consumers=1)).consumed == 5
    sink.close()
    assert [item async for item in sink] == [0, 1, 2, 3, 4]


def test_consumers_run_at_once_and_capacity_holds_the_sources_back():
    async def run():
        running = most = produced = ahead = consumed = 0

        async def source(send):
            nonlocal produced, ahead
            for number in range(30):
                await send(number)
                produced += 1
                ahead = max(ahead, produced - consumed)

        async def consumer(number: int) -> None:
            nonlocal running, most, consumed
            running += 1
            most = max(most, running)
            await sleep(1)
            running -= 1
            consumed += 1

        report = await produce_consume(source, consumer, consumers=5, capacity=4)
        assert whole(report).elapsed == pytest.approx(6, abs=0.1)
        assert (most, ahead) == (5, 9)

    simulate(run)


@pytest.mark.parametrize("kind", ["iterable", "async", "push", "consumer"])
def test_the_first_failure_leaves_bare_after_all_have_ended(kind):
    async def run():
        error = ValueError(kind)
        alive = 0

        def plain():
            yield 1
            raise error

        async def asynchronous():
            yield 1
            raise error

        async def pushing(send):
            await send(1)
            raise error

        async def slow(send):
            nonlocal alive
            alive += 1
            try:
                await sleep(100)
            finally:
                alive -= 1

        async def consumer(number: int) -> None:
            await sleep(1)
            if kind == "consumer":
                raise error

        source = {"iterable": plain(), "async": asynchronous(), "push": pushing}.get(kind, [1, 2])
        with pytest.raises(ValueError, match=kind) as caught:
            await produce_consume([slow, source], consumer)
        assert caught.value is error
        where = "raised by the consumer" if kind == "consumer" else "raised by source 1"
        assert error.__notes__[0] == where
        assert error.__notes__[1].startswith("after ")
        assert alive == 0

    simulate(run)


async def test_skip_counts_and_tells_what_failed():
    async def consumer(number: int) -> None:
        if number % 2:
            raise ValueError(number)
        if number == 4:
            raise asyncio.CancelledError

    with capture_events() as events:
        report = whole(await produce_consume(range(6), consumer, errors="skip"))
    assert (report.consumed, report.failed) == (2, 4)
    told = [event.error for event in events if isinstance(event, ConsumerFailed)]
    assert sorted(type(each).__name__ for each in told) == [
        "JobCancelledError",
        "ValueError",
        "ValueError",
        "ValueError",
    ]
    assert (await produce_consume(range(6), consumer, errors="skip")).failed == 4


async def test_a_source_that_fails_ends_everything_even_with_skip():
    async def source(send):
        await send(1)
        raise OSError

    with pytest.raises(OSError):
        await produce_consume(source, Sink(), errors="skip")


async def test_whoever_cancels_itself_has_failed():
    async def source(send):
        raise asyncio.CancelledError

    async def consumer(item):
        raise asyncio.CancelledError

    with pytest.raises(JobCancelledError, match="source 0 cancelled itself"):
        await produce_consume(source, Sink())
    with pytest.raises(JobCancelledError, match="the consumer cancelled itself"):
        await produce_consume(range(3), consumer)


def test_a_consumer_that_swallows_its_cancellation_gets_nothing_more():
    async def run():
        calls: list[int] = []

        async def consumer(number: int) -> None:
            calls.append(number)
            if number == 0:
                await sleep(1)
                raise ValueError(number)
            with contextlib.suppress(asyncio.CancelledError):
                await sleep(100)

        with pytest.raises(ValueError, match="0"):
            await produce_consume(range(50), consumer, consumers=2)
        assert calls == [0, 1]

    simulate(run)


async def test_overflow_drops_and_reports():
    dropped: list[int] = []
    sink = Sink()

    async def burst(send):
        for number in range(20):
            await send(number)

    report = whole(
        await produce_consume(
            burst, sink, consumers=1, capacity=3, overflow="drop_old", on_drop=dropped.append
        )
    )
    assert report.dropped == len(dropped) > 0
    assert sorted([*sink.items, *dropped]) == list(range(20))
    with pytest.raises(QueueFullError):
        await produce_consume(burst, sink, capacity=3, overflow="fail")


async def test_each_call_sees_the_callers_variables_and_no_others():
    seen: list[str] = []

    async def consumer(number: int) -> None:
        seen.append(variable.get())
        variable.set(f"set by {number}")

    variable.set("caller")
    await produce_consume(range(20), consumer)
    assert seen == ["caller"] * 20


async def test_an_async_generator_is_closed_when_something_fails():
    closed: list[str] = []

    async def source():
        try:
            while True:
                yield 1
        finally:
            closed.append("closed")

    async def consumer(item):
        raise ValueError(item)

    with pytest.raises(ValueError, match="1"):
        await produce_consume(source(), consumer, capacity=1)
    assert closed == ["closed"]


async def test_a_generator_is_closed_to_the_end():
    """Its cleanup waits, as that of a transaction does, though its task is being cancelled."""
    closed: list[str] = []

    async def source():
        try:
            while True:
                yield 1
        finally:
            await sleep(0.001)
            closed.append("closed")

    async def consumer(item):
        raise ValueError(item)

    with pytest.raises(ValueError, match="1"):
        await produce_consume(source(), consumer, capacity=1)
    assert closed == ["closed"]


async def test_a_consumer_that_is_cancelled_alone_ends_the_run_with_an_error():
    """And not with a report, as if everything had been produced and consumed."""

    async def source(send):
        await send(1)
        await sleep(0.001)
        for each in asyncio.all_tasks():
            if "_consume" in each.get_name():
                each.cancel()
        await sleep(0.001)
        await send(2)

    with pytest.raises(JobCancelledError, match="a consumer cancelled itself") as caught:
        await produce_consume(source, Sink(), consumers=2)
    assert "while it waited for an item" in caught.value.__notes__


@pytest.mark.promise("flow-bad-input")
async def test_plain_functions_are_refused_before_anything_runs():
    ran: list[object] = []

    def plain(given):
        ran.append(given)

    wrong: Any = plain
    with pytest.raises(TypeError, match="sources must be an async function, not the plain"):
        await produce_consume(wrong, Sink())
    with pytest.raises(TypeError, match="consumer must be an async function, not the plain"):
        await produce_consume(range(3), wrong)
    assert ran == []


@pytest.mark.promise("flow-bad-input")
@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"sources": 3}, TypeError, "sources must be an iterable, an async iterable, an async"),
        ({"sources": "text"}, TypeError, "sources must be an iterable"),
        ({"sources": [range(3), 4]}, TypeError, "but 4 is no source"),
        ({"consumer": 3}, TypeError, "consumer must be an async function of one item or"),
        ({"consumers": 0}, ValueError, "consumers must be a whole number >= 1, not 0"),
        ({"capacity": -1}, ValueError, "capacity must be a whole number >= 0, not -1"),
        ({"errors": "collect"}, ValueError, "errors must be one of 'raise', 'skip'"),
        ({"overflow": "drop"}, ValueError, "overflow must be one of"),
        ({"on_drop": 3}, TypeError, "on_drop must be a function"),
    ],
)
async def test_bad_arguments(given, error, text):
    sink = Sink()
    with pytest.raises(error, match=text):
        await produce_consume(**{"sources": range(3), "consumer": sink, **given})
    assert sink.items == []


@pytest.mark.promise("flow-bad-input")
async def test_plain_functions_are_refused_and_named():
    plain: Any = lambda value: None
    plain.__qualname__ = "plain"
    with pytest.raises(TypeError, match="sources must be an async function, but plain returned"):
        await produce_consume(plain, Sink())
    with pytest.raises(TypeError, match="consumer must be an async function, but plain returned"):
        await produce_consume(range(3), plain, errors="skip")


def scenario(fault, *, errors="raise", capacity=2) -> Trial:
    sent: list[int] = []
    consumed: list[int] = []
    reports: list[Report] = []

    async def source(send):
        for number in range(4):
            fault()
            await send(number)
            sent.append(number)

    async def asynchronous():
        for number in range(100, 103):
            fault()
            yield number

    async def consumer(number: int) -> None:
        fault()
        if rng().random() < 0.5:
            await sleep(0.01)
        consumed.append(number)

    async def work() -> None:
        reports.append(
            await produce_consume(
                [source, asynchronous()], consumer, consumers=2, capacity=capacity, errors=errors
            )
        )

    def check() -> None:
        assert len(consumed) == len(set(consumed))
        assert set(consumed) - {100, 101, 102} <= {*sent, *range(4)}
        for report in reports:
            whole(report)
            assert report.consumed == len(consumed)

    return Trial(work(), check)


@pytest.mark.promise("flow-cancel-native", "flow-cancel-scope", "flow-cancel-timeout")
@pytest.mark.parametrize("capacity", [0, 2])
def test_nothing_is_left_after_a_cancellation_at_any_await(capacity):
    cancel_everywhere(lambda: scenario(lambda: None, capacity=capacity), minimum=1)


@pytest.mark.promise("flow-fail-everywhere")
@pytest.mark.parametrize("errors", ["raise", "skip"])
def test_the_counts_add_up_when_any_function_fails(errors):
    fail_everywhere(lambda fault: scenario(fault, errors=errors), minimum=14)


@pytest.mark.promise("flow-seeds", "flow-conservation")
def test_keeps_its_invariants_under_200_seeds():
    async def run() -> None:
        dice = rng()

        async def consumer(number: int) -> None:
            if dice.random() < 0.5:
                await sleep(dice.random())
            if dice.random() < 0.1:
                raise ValueError(number)

        dropped: list[int] = []
        report = await produce_consume(
            [range(dice.randrange(20)), numbers(dice.randrange(20)), push],
            consumer,
            consumers=dice.randint(1, 4),
            capacity=dice.randrange(4),
            errors="skip",
            overflow=dice.choice(["wait", "drop_new", "drop_old"]),
            on_drop=dropped.append,
        )
        assert whole(report).dropped == len(dropped)

    explore(run, range(200))


async def test_works_with_anyio_scopes():
    with anyio.move_on_after(0.001) as scope:
        await produce_consume(range(3), lambda _: anyio.sleep(10))
    assert scope.cancelled_caught
