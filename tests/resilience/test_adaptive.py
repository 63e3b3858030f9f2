"""Adaptive limits: the pure algorithms, rounds and cuts, what counts, places conserved."""

from __future__ import annotations

import contextlib
import math
import random
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import OverloadedError, RateLimitedError, TimeoutExceededError
from aiopatterns.resilience.adaptive import AIMD, AdaptiveLimit, AdaptiveStatistics, Gradient
from aiopatterns.resilience.policy import Policy
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.testing import (
    Trial,
    cancel_everywhere,
    capture_events,
    explore,
    fail_everywhere,
    simulate,
)


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


class Busy(Exception):
    """How the other side says that it has too much to do."""


AIMD_STEPS = {
    "grows by one when used": (AIMD(), 20, {"in_flight": 20}, 21),
    "half used is used": (AIMD(), 20, {"in_flight": 10}, 21),
    "less than half is not": (AIMD(), 20, {"in_flight": 9}, 20),
    "an odd limit, half used": (AIMD(), 21, {"in_flight": 11}, 22),
    "an odd limit, less than half": (AIMD(), 21, {"in_flight": 10}, 21),
    "a drop takes a tenth": (AIMD(), 20, {"dropped": True}, 18),
    "a drop counts when little is used": (AIMD(), 20, {"dropped": True, "in_flight": 1}, 18),
    "a drop takes one at least": (AIMD(), 5, {"dropped": True}, 4),
    "never below the least": (AIMD(min_limit=4, initial=4), 4, {"dropped": True}, 4),
    "never below one": (AIMD(), 1, {"dropped": True}, 1),
    "never above the most": (AIMD(max_limit=20), 20, {}, 20),
    "slow is a drop": (AIMD(timeout=2), 20, {"rtt": 2.1}, 18),
    "just in time is none": (AIMD(timeout=2), 20, {"rtt": 2.0}, 21),
    "the ratio": (AIMD(backoff_ratio=0.5), 30, {"dropped": True}, 15),
    "no rounding error": (AIMD(backoff_ratio=0.7), 70, {"dropped": True}, 49),
    "no baseline is asked": (AIMD(), 20, {"rtt": 4.0, "baseline": 0.1}, 21),
    "a limit out of bounds comes back": (AIMD(max_limit=50), 90, {}, 50),
}
GRADIENT_STEPS = {
    "as fast as ever": (Gradient(), 20, {"rtt": 1.0, "baseline": 1.0}, 21),
    "nothing known yet": (Gradient(), 20, {"rtt": 9.0}, 21),
    "grows by the queue": (Gradient(queue=20), 20, {"rtt": 1.0, "baseline": 1.0}, 24),
    "all at once": (Gradient(smoothing_ratio=1), 20, {"rtt": 1.0, "baseline": 1.0}, 24),
    "tolerated": (Gradient(), 20, {"rtt": 1.5, "baseline": 1.0}, 21),
    "twice as slow": (Gradient(), 40, {"rtt": 2.0, "baseline": 1.0}, 38),
    "twice as slow, all at once": (
        Gradient(smoothing_ratio=1),
        40,
        {"rtt": 2.0, "baseline": 1.0},
        34,
    ),
    "no more than halved": (
        Gradient(smoothing_ratio=1),
        100,
        {"rtt": 99.0, "baseline": 1.0},
        54,
    ),
    "where it comes to rest": (
        Gradient(smoothing_ratio=1, tolerance=1),
        8,
        {"rtt": 2.0, "baseline": 1.0},
        8,
    ),
    "little used stays": (
        Gradient(),
        20,
        {"rtt": 1.0, "baseline": 1.0, "in_flight": 9},
        20,
    ),
    "little used and slow stays": (
        Gradient(),
        20,
        {"rtt": 9.0, "baseline": 1.0, "in_flight": 9},
        20,
    ),
    "a drop takes a tenth": (Gradient(), 20, {"dropped": True, "in_flight": 1}, 18),
    "a drop takes one at least": (Gradient(), 3, {"dropped": True}, 2),
    "never below the least": (Gradient(), 1, {"dropped": True}, 1),
    "never above the most": (Gradient(max_limit=21), 20, {"baseline": 1.0}, 21),
    "no latency at all": (Gradient(), 20, {"rtt": 0.0, "baseline": 0.0}, 21),
}
STEPS = {
    f"{type(step[0]).__name__}: {name}": step
    for table in (AIMD_STEPS, GRADIENT_STEPS)
    for name, step in table.items()
}


@pytest.mark.parametrize(("algorithm", "limit", "sample", "expected"), STEPS.values(), ids=STEPS)
def test_steps(algorithm, limit, sample, expected):
    told = {"rtt": 0.1, "in_flight": limit, "dropped": False, **sample}
    assert algorithm.update(limit, **told) == expected


@given(
    st.sampled_from([AIMD(min_limit=2), Gradient(min_limit=2)]),
    st.integers(1, 400),
    st.floats(0, 100),
    st.integers(0, 400),
    st.booleans(),
    st.none() | st.floats(0, 100),
)
def test_whatever_happens_the_limit_stays_within_its_bounds(
    algorithm, limit, rtt, in_flight, dropped, baseline
):
    after = algorithm.update(
        limit, rtt=rtt, in_flight=in_flight, dropped=dropped, baseline=baseline
    )
    assert algorithm.min_limit <= after <= algorithm.max_limit
    if algorithm.min_limit <= limit <= algorithm.max_limit:
        assert after <= limit or (2 * in_flight >= limit and not dropped)
        assert not dropped or after < limit or limit == algorithm.min_limit


class Plan:
    """A limit and its calls, each told when to end and how."""

    def __init__(self, limit, group):
        self.limit, self.group = limit, group
        self.ends: list[anyio.Event] = []
        self.how: list[Any] = []
        self.refused = 0
        self.limited = limit(self.body)

    async def body(self, number):
        await self.ends[number].wait()
        if isinstance(self.how[number], type):
            raise self.how[number]

    async def call(self, number):
        try:
            await self.limited(number)
        except OverloadedError:
            self.refused += 1
        except (Busy, TimeoutExceededError, RateLimitedError, KeyError):
            pass

    async def begin(self, count):
        for _ in range(count):
            self.ends.append(anyio.Event())
            self.how.append(None)
            self.group.start_soon(self.call, len(self.ends) - 1)
            await sleep(1e-6)

    async def end(self, numbers, how=None):
        for number in numbers:
            self.how[number] = how
            self.ends[number].set()
            await sleep(1e-6)

    @property
    def now(self):
        return self.limit.statistics().limit


def planned(limit, script):
    async def scenario():
        async with anyio.create_task_group() as group:
            plan = Plan(limit(), group)
            await script(plan)
            await plan.end(range(len(plan.ends)))
        assert plan.limit.statistics().in_flight == 0

    simulate(scenario)


def small(**options):
    return lambda: AdaptiveLimit(AIMD(initial=4, backoff_ratio=0.5), **options)


def test_it_refuses_above_the_limit():
    async def script(plan):
        await plan.begin(6)
        assert plan.refused == 2
        assert plan.limit.statistics() == AdaptiveStatistics(4, 4, None)
        with pytest.raises(OverloadedError, match="all 4 places are taken") as caught:
            await plan.limit.call(sleep, 0)
        assert caught.value.name == "AdaptiveLimit"
        assert caught.value.retry_after is None

    planned(small(), script)


def test_the_limit_moves_when_a_round_is_full():
    async def script(plan):
        await plan.begin(4)
        await plan.end([0, 1, 2])
        assert plan.now == 4
        await plan.end([3])
        assert plan.now == 5
        await plan.begin(5)
        await plan.end([4, 5, 6, 7])
        assert plan.now == 5
        await plan.end([8])
        assert plan.now == 6

    planned(small(), script)


def test_it_does_not_grow_while_little_is_used():
    async def script(plan):
        for number in range(40):
            await plan.begin(1)
            await plan.end([number])
        assert plan.now == 4

    planned(small(), script)


def test_the_most_that_ran_at_once_is_what_was_used():
    async def script(plan):
        await plan.begin(2)
        await plan.end([0, 1])
        for number in (2, 3):
            await plan.begin(1)
            await plan.end([number])
        assert plan.now == 5  # two of four ran at once in this round
        for number in range(4, 9):
            await plan.begin(1)
            await plan.end([number])
        assert plan.now == 5

    planned(small(), script)


def test_a_drop_cuts_at_once():
    async def script(plan):
        await plan.begin(4)
        await plan.end([0], TimeoutExceededError)
        assert plan.now == 2

    planned(small(), script)


def test_one_jam_cuts_once():
    async def script(plan):
        await plan.begin(4)
        await plan.end([0, 1, 2, 3], TimeoutExceededError)
        assert plan.now == 2
        await plan.begin(2)
        await plan.end([4, 5], TimeoutExceededError)
        assert plan.now == 1

    planned(small(), script)


def test_calls_from_before_a_cut_say_nothing_about_the_new_limit():
    async def script(plan):
        await plan.begin(4)
        await plan.end([0], TimeoutExceededError)
        await plan.end([1, 2, 3])
        assert plan.now == 2
        await plan.begin(2)
        await plan.end([4, 5])
        assert plan.now == 3

    planned(small(), script)


def test_after_a_cut_those_above_the_limit_finish():
    async def script(plan):
        await plan.begin(4)
        await plan.end([0], TimeoutExceededError)
        await plan.begin(1)
        assert plan.refused == 1
        await plan.end([1])
        await plan.begin(1)
        assert plan.refused == 2
        await plan.end([2])
        await plan.begin(1)
        assert plan.refused == 2

    planned(small(), script)


@pytest.mark.parametrize("error", [KeyError, Busy, RateLimitedError])
def test_other_errors_say_nothing(error):
    async def script(plan):
        await plan.begin(4)
        await plan.end([0, 1, 2, 3], error)
        assert plan.now == 4
        await plan.begin(4)
        await plan.end([4, 5, 6])
        assert plan.now == 4
        await plan.end([7])
        assert plan.now == 5

    planned(small(), script)


@pytest.mark.parametrize("on", [Busy, (Busy, TimeoutExceededError), lambda e: type(e) is Busy])
def test_which_errors_are_drops(on):
    async def script(plan):
        await plan.begin(4)
        await plan.end([0], KeyError)
        assert plan.now == 4
        await plan.end([1], Busy)
        assert plan.now == 2

    planned(small(on=on), script)


def test_a_cancelled_call_says_nothing():
    async def scenario():
        limit = AdaptiveLimit(AIMD(initial=2))
        for _ in range(10):
            with anyio.move_on_after(1):
                await limit.call(sleep, 9)
        assert limit.statistics() == AdaptiveStatistics(2, 0, None)

    simulate(scenario)


def test_a_timeout_inside_is_a_drop():
    async def scenario():
        limit = AdaptiveLimit(AIMD(initial=10, backoff_ratio=0.5))
        with pytest.raises(TimeoutExceededError):
            await limit.call(Timeout(1)(sleep), 9)
        assert limit.statistics().limit == 5

    simulate(scenario)


def test_calls_that_are_slow_are_a_drop_too():
    async def scenario():
        limit = AdaptiveLimit(AIMD(initial=2, backoff_ratio=0.5, timeout=3))
        await limit.call(sleep, 4)
        await limit.call(sleep, 4)
        assert limit.statistics() == AdaptiveStatistics(1, 0, 4)

    simulate(scenario)


def test_the_long_run():
    async def scenario():
        limit = AdaptiveLimit(AIMD(initial=1, max_limit=1))
        for seconds in (1, 2, 3):
            await limit.call(sleep, seconds)
        assert limit.statistics().baseline == pytest.approx(2)  # a plain mean at first
        for _ in range(500):
            await limit.call(sleep, 4)
        assert limit.statistics().baseline == pytest.approx(4, abs=0.1)
        for _ in range(14):  # an outage is over: 5 % less each round, until twice as much
            await limit.call(sleep, 1)
        assert limit.statistics().baseline == pytest.approx(2, abs=0.1)

    simulate(scenario)


class Service:
    """A service that does `capacity` calls at once, each in 0.1 s; more of them queue."""

    def __init__(self, capacity):
        self.free = anyio.Semaphore(capacity)
        self.most = self.running = 0

    async def __call__(self):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            async with self.free:
                await sleep(0.1)
        finally:
            self.running -= 1


async def load(limited, clients, seconds):
    done = refused = 0

    async def client():
        nonlocal done, refused
        while True:
            try:
                await limited()
                done += 1
            except (OverloadedError, TimeoutExceededError):
                refused += 1
                await sleep(0.05)

    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as group:
            for _ in range(clients):
                group.start_soon(client)
    return done


@pytest.mark.parametrize(
    ("algorithm", "least", "most"),
    [(Gradient(initial=5), 10, 60), (AIMD(initial=5, timeout=0.25), 10, 60)],
    ids=["Gradient", "AIMD"],
)
def test_it_finds_what_a_service_takes(algorithm, least, most):
    async def scenario():
        service = Service(20)
        limit = AdaptiveLimit(algorithm)
        done = await load(limit(service), 100, 60)
        assert least <= limit.statistics().limit <= most
        assert done > 0.7 * 60 * 200  # of the calls that the service can do

    simulate(scenario)


def test_it_gives_way_when_a_service_gets_slow():
    async def scenario():
        fast = True

        async def service():
            await sleep(0.1 if fast else 0.5)

        limit = AdaptiveLimit(Gradient(initial=10, max_limit=50))
        limited = limit(service)
        await load(limited, 60, 30)
        assert limit.statistics().limit == 50
        fast = False
        await load(limited, 60, 30)
        assert limit.statistics().limit < 15
        fast = True
        await load(limited, 60, 30)
        assert limit.statistics().limit == 50

    simulate(scenario)


def test_events():
    async def scenario():
        limit = AdaptiveLimit(AIMD(initial=1, max_limit=2))
        with capture_events() as events:
            await limit.call(sleep, 1)
            await limit.call(sleep, 1)
            await limit.call(sleep, 1)
            async with anyio.create_task_group() as group:
                for _ in range(2):
                    group.start_soon(limit.call, sleep, 1)
                await sleep(0.5)
                with pytest.raises(OverloadedError):
                    await limit.call(sleep, 0)
        changed, rejected = map(wrong, events)
        assert changed.name == "aiopatterns.adaptive.changed"
        assert (changed.before, changed.after, changed.rtt, changed.dropped) == (1, 2, 1, False)
        assert (rejected.name, rejected.limit) == ("aiopatterns.adaptive.rejected", 2)

    simulate(scenario)


def test_a_drop_is_an_event_with_its_own_latency():
    async def scenario():
        limit = AdaptiveLimit(AIMD(initial=10))
        await sleep(5)
        with capture_events() as events, pytest.raises(TimeoutExceededError):
            await limit.call(Timeout(2)(sleep), 9)
        changed = wrong(events[-1])
        assert (changed.before, changed.after, changed.dropped) == (10, 9, True)
        assert changed.rtt == pytest.approx(2)

    simulate(scenario)


def test_defaults():
    assert AIMD() == AIMD(initial=20, min_limit=1, max_limit=200, backoff_ratio=0.9, timeout=5.0)
    assert Gradient() == Gradient(
        initial=20, min_limit=1, max_limit=200, tolerance=1.5, smoothing_ratio=0.2, queue=4
    )


@pytest.mark.promise("resilience-bulkhead", "resilience-cancel-everywhere")
def test_places_are_conserved_when_cancelled_anywhere():
    def factory():
        limit = AdaptiveLimit(AIMD(initial=3))

        @limit
        async def stream():
            await sleep(1)
            yield 1
            await sleep(1)
            yield 2

        async def work():
            async with anyio.create_task_group() as group:
                group.start_soon(limit(sleep), 1)
                await limit.call(sleep, 2)
                numbers = stream()
                try:
                    async for _ in numbers:
                        await sleep(1)
                finally:
                    await numbers.aclose()

        def check():
            assert limit.statistics().in_flight == 0

        return Trial(work(), check)

    kinds = ("native", "scope", "timeout")
    cancel_everywhere(factory, kinds=wrong(kinds), minimum=4)


@pytest.mark.promise("resilience-bulkhead")
def test_places_are_conserved_when_anything_fails():
    def factory(fault):
        def is_drop(error):
            fault()
            return True

        limit = AdaptiveLimit(AIMD(initial=3), on=is_drop)

        @limit
        async def call():
            fault()
            await sleep(1)
            fault()

        @limit
        async def stream():
            fault()
            yield 1
            fault()

        async def work():
            await call()
            assert [each async for each in stream()] == [1]

        def check():
            assert limit.statistics().in_flight == 0

        return Trial(work(), check)

    fail_everywhere(factory, minimum=4)


@pytest.mark.promise("resilience-bulkhead", "resilience-seeds")
@pytest.mark.parametrize("algorithm", [AIMD(initial=3), Gradient(initial=3)], ids=type)
def test_any_schedule_any_cancellation(algorithm):
    async def scenario():
        limit = AdaptiveLimit(algorithm, on=(Busy, TimeoutExceededError))
        dice = random.Random(monotonic())
        running = 0

        async def body():
            nonlocal running
            running += 1
            before = limit.statistics()
            assert running == before.in_flight <= max(before.limit, peak)
            try:
                await sleep(dice.choice((0, 0.1, 1)))
                if dice.random() < 0.2:
                    raise Busy
            finally:
                running -= 1

        peak = 20
        limited = limit(body)

        async def call(number):
            await sleep(dice.random())
            with anyio.move_on_after(None if number % 3 else 0.1):
                with contextlib.suppress(Busy, OverloadedError):
                    await limited()

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(call, number)
        assert limit.statistics().in_flight == running == 0

    explore(scenario, range(200))


def test_a_stream_is_in_flight_for_its_life_and_judged_by_its_opening():
    async def scenario():
        limit = AdaptiveLimit(AIMD(initial=1, max_limit=9))

        @limit
        async def numbers():
            await sleep(1)
            yield 1
            await sleep(5)
            yield 2
            raise TimeoutExceededError(timeout=5)

        with pytest.raises(TimeoutExceededError):
            async for _ in numbers():
                assert limit.statistics() == AdaptiveStatistics(2, 1, 1.0)
        assert limit.statistics() == AdaptiveStatistics(2, 0, 1.0)

    simulate(scenario)


def test_a_stream_that_does_not_open_in_time_is_a_drop():
    async def scenario():
        limit = AdaptiveLimit(AIMD(initial=10))

        @limit
        @Timeout(1)
        async def numbers():
            await sleep(9)
            yield 1

        with pytest.raises(TimeoutExceededError):
            await anext(numbers())
        assert limit.statistics() == AdaptiveStatistics(9, 0, None)

    simulate(scenario)


async def test_as_a_policy_it_works_on_every_loop():
    limit = AdaptiveLimit(Gradient())

    @limit
    async def double(n):
        await sleep(0)
        return 2 * n

    for n in range(50):
        assert await double(n) == 2 * n
    assert limit.statistics().in_flight == 0
    assert repr(limit) == "AdaptiveLimit(Gradient)"
    assert limit.kind == "bulkhead"


def test_it_goes_on_where_another_stood():
    async def scenario():
        old = AdaptiveLimit(AIMD(initial=4))
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(old(sleep), 1)
            await sleep(0.5)
            new = AdaptiveLimit(AIMD(initial=2, max_limit=3))
            assert new.adopt(old)
            assert new.statistics() == AdaptiveStatistics(3, 4, None)
            with pytest.raises(OverloadedError):
                await new.call(sleep, 0)
        assert new.statistics().in_flight == 0

    simulate(scenario)


def test_it_takes_over_only_what_is_alike():
    other: Policy = Timeout(1)
    assert not AdaptiveLimit(AIMD()).adopt(other)
    assert not AdaptiveLimit(AIMD()).adopt(AdaptiveLimit(Gradient()))


BOTH = (AIMD, Gradient)
BAD = (
    *((lambda kind=kind: kind(initial=0), ValueError, "initial") for kind in BOTH),
    *((lambda kind=kind: kind(initial=wrong(1.5)), TypeError, "initial") for kind in BOTH),
    *((lambda kind=kind: kind(min_limit=0), ValueError, "min_limit") for kind in BOTH),
    *((lambda kind=kind: kind(min_limit=wrong("1")), TypeError, "min_limit") for kind in BOTH),
    *((lambda kind=kind: kind(min_limit=9, max_limit=8), ValueError, "max_limit") for kind in BOTH),
    *((lambda kind=kind: kind(max_limit=wrong(math.inf)), TypeError, "max_limit") for kind in BOTH),
    *((lambda kind=kind: kind(initial=9, min_limit=10), ValueError, "initial") for kind in BOTH),
    *((lambda kind=kind: kind(initial=9, max_limit=8), ValueError, "initial") for kind in BOTH),
    (lambda: AIMD(backoff_ratio=0), ValueError, "backoff_ratio"),
    (lambda: AIMD(backoff_ratio=1), ValueError, "backoff_ratio"),
    (lambda: AIMD(backoff_ratio=1.1), ValueError, "backoff_ratio"),
    (lambda: AIMD(backoff_ratio=math.nan), ValueError, "backoff_ratio"),
    (lambda: AIMD(timeout=0), ValueError, "timeout"),
    (lambda: AIMD(timeout=math.inf), ValueError, "timeout"),
    (lambda: AIMD(timeout=wrong(None)), TypeError, "timeout"),
    (lambda: Gradient(tolerance=0.9), ValueError, "tolerance"),
    (lambda: Gradient(tolerance=math.inf), ValueError, "tolerance"),
    (lambda: Gradient(smoothing_ratio=0), ValueError, "smoothing_ratio"),
    (lambda: Gradient(smoothing_ratio=1.1), ValueError, "smoothing_ratio"),
    (lambda: Gradient(queue=0), ValueError, "queue"),
    (lambda: Gradient(queue=wrong(1.5)), TypeError, "queue"),
    (lambda: AdaptiveLimit(wrong(20)), TypeError, "algorithm"),
    (lambda: AdaptiveLimit(wrong(AIMD)), TypeError, "algorithm"),
    (lambda: AdaptiveLimit(AIMD(), on=wrong("busy")), TypeError, "on"),
    (lambda: AIMD().update(0, rtt=1, in_flight=1, dropped=False), ValueError, "limit"),
    (lambda: AIMD().update(1, rtt=-1, in_flight=1, dropped=False), ValueError, "rtt"),
    (lambda: AIMD().update(1, rtt=math.nan, in_flight=1, dropped=False), ValueError, "rtt"),
    (lambda: Gradient().update(1, rtt=1, in_flight=-1, dropped=False), ValueError, "in_flight"),
    (
        lambda: Gradient().update(1, rtt=1, in_flight=1, dropped=False, baseline=math.nan),
        ValueError,
        "baseline",
    ),
)


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(("make", "error", "name"), BAD, ids=range(len(BAD)))
def test_bad_input_is_one_clear_error(make, error, name):
    with pytest.raises(error, match=rf"^{name} must be"):
        make()
