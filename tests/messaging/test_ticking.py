"""The clock: multiples of the interval, never twice at a time, errors end nothing."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from aiopatterns import Broker, Service, Stack, Timeout
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import bind_deadline, correlation_id, deadline
from aiopatterns.messaging import Context, ServiceTimerFailed
from aiopatterns.messaging.remote import lost_handler
from aiopatterns.testing import capture_events, simulate


def run_for(seconds: float, service: Service) -> Any:
    """Run a service that long, in virtual time; return its statistics."""

    async def scenario() -> Any:
        async with Broker("memory://") as broker, service.run(broker, propagation=0) as run:
            await sleep(seconds)
        return run.statistics().handlers

    return simulate(scenario)


@pytest.mark.promise("messaging-service-timers")
def test_calls_are_at_multiples_of_the_interval_and_none_before():
    service, times = Service("a"), list[float]()

    @service.every(10)
    async def note() -> None:
        times.append(monotonic())

    run_for(35, service)
    first, second, third = times
    assert first >= 10
    assert (second - first, third - second) == pytest.approx((10, 10))


@pytest.mark.promise("messaging-service-timers")
def test_a_slow_call_is_not_overtaken_and_what_it_missed_is_left_out():
    service, times = Service("a"), list[float]()

    @service.every(10)
    async def slow() -> None:
        times.append(monotonic())
        await sleep(25 if len(times) == 1 else 1)

    run_for(65, service)
    assert [round(each - times[0]) for each in times] == [0, 30, 40, 50]


@pytest.mark.promise("messaging-service-timers")
def test_an_error_is_told_and_ends_nothing():
    service, calls = Service("a"), []

    @service.every(1)
    async def fail(ctx: Context) -> None:
        calls.append(ctx.correlation_id)
        assert ctx.message is None
        assert correlation_id() == ctx.correlation_id
        raise LookupError("nothing there")

    @service.every(1, stack=Stack(Timeout(0.5)))
    def plain(ctx: Context) -> None:
        assert ctx.handler == "plain"

    with capture_events() as events:
        figures = run_for(3.5, service)
    assert len(calls) == len(set(calls)) == 3  # each has an id of its own
    told = [each for each in events if isinstance(each, ServiceTimerFailed)]
    assert told == [ServiceTimerFailed("a", "fail", "LookupError: nothing there")] * 3
    assert (figures["fail"].failed, figures["plain"].done) == (3, 3)
    run_for(1.5, service)  # nobody listens


def test_the_deadline_of_whoever_opens_the_service_is_not_that_of_the_clock():
    service, deadlines = Service("a"), list[float | None]()

    @service.every(1)
    async def tick() -> None:
        deadlines.append(deadline())

    async def scenario() -> None:
        async with Broker("memory://") as broker:
            with bind_deadline(monotonic() + 1):
                run = service.run(broker, propagation=0)
                await run.__aenter__()
            await sleep(2.5)
            await run.__aexit__(None, None, None)

    simulate(scenario)
    assert deadlines == [None, None]


@pytest.mark.promise("messaging-service-timers")
@pytest.mark.promise("messaging-service-drain")
def test_a_call_is_finished_when_the_service_leaves_and_none_begins():
    service, ends = Service("a"), []

    @service.every(1)
    async def work() -> None:
        await sleep(3)
        ends.append(monotonic())

    figures = run_for(1.5, service)["work"]
    assert len(ends) == 1
    assert (figures.calls, figures.done) == (1, 1)


@pytest.mark.promise("messaging-service-timers")
@pytest.mark.promise("messaging-service-drain")
def test_none_begins_when_the_service_leaves_and_the_next_is_due_at_once():
    service = Service("a")

    @service.every(0.1)
    async def work() -> None:
        await sleep(5)  # until the very instant of a later call

    figures = run_for(0.15, service)["work"]
    assert (figures.calls, figures.done) == (1, 1)


@pytest.mark.promise("messaging-service-timers")
def test_an_error_of_another_service_is_told_as_any():
    service = Service("a")

    @service.every(1)
    async def ask() -> None:
        raise lost_handler("user.get")  # as if it had asked one that has gone

    with capture_events() as events:
        figures = run_for(1.5, service)["ask"]
    (failed,) = (each for each in events if isinstance(each, ServiceTimerFailed))
    assert "'user.get' has gone" in failed.error
    assert (figures.calls, figures.failed) == (1, 1)


@pytest.mark.promise("messaging-service-drain")
def test_a_call_that_does_not_end_is_cut_off():
    service = Service("a")

    @service.every(1)
    async def stuck() -> None:
        await anyio.sleep_forever()

    async def scenario() -> Any:
        async with Broker("memory://") as broker:
            with capture_events() as events:
                async with service.run(broker, propagation=0, grace=5) as run:
                    await sleep(2)
            assert not any(isinstance(each, ServiceTimerFailed) for each in events)
            return run.statistics().handlers["stuck"], monotonic()

    figures, ended = simulate(scenario)
    assert (figures.calls, figures.cancelled) == (1, 1)
    assert ended == pytest.approx(7, abs=0.1)
