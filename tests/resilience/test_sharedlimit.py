"""Shared rate limits: one count for all, the line of a process, and outages."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise
from typing import Any

import anyio
import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import bind_deadline
from aiopatterns.core.errors import (
    BackendError,
    BackendUnavailableError,
    ClosedError,
    RateLimitedError,
)
from aiopatterns.core.rate import Grant, Rate
from aiopatterns.resilience.ratelimit import RateLimitRejected
from aiopatterns.resilience.sharedlimit import (
    PATIENCE,
    RateLimitOutage,
    RateLimitRecovered,
    SharedRateLimit,
)
from aiopatterns.resilience.stack import Stack
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, explore, simulate

SLOW = Rate(3, per=3600)


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


class Weather:
    """A backend whose limiter may be away, slow or refusing."""

    kv = None

    def __init__(self, backend):
        self.backend = backend
        self.error: Exception | None = None
        self.delay = 0.0
        self.asked = 0

    def limiter(self, name):
        self.inner = self.backend.limiter(name)
        return self

    async def acquire(self, key, rate, *, cost=1.0, burst=None):
        self.asked += 1
        if self.delay:
            await sleep(self.delay)
        if self.error is not None:
            raise self.error
        return await self.inner.acquire(key, rate, cost=cost, burst=burst)


def away() -> BackendUnavailableError:
    return BackendUnavailableError("nobody answers at redis://***@host")


def seconds(error: pytest.ExceptionInfo[RateLimitedError]) -> float:
    """After how long to try again, according to a refusal."""
    assert error.value.retry_after is not None
    return error.value.retry_after


async def answer(value: int = 42) -> int:
    return value


async def test_all_limits_of_a_name_share_one_count():
    async with open_backend("memory://") as backend:
        first = SharedRateLimit(SLOW, backend, name="api", max_wait=0)
        second = SharedRateLimit(SLOW, backend, name="api", max_wait=0)
        other = SharedRateLimit(SLOW, backend, name="other", max_wait=0)
        assert (await first.acquire()).remaining == 2
        assert (await second.acquire(2)).remaining == 0
        with pytest.raises(RateLimitedError, match=r"SharedRateLimit\('api', 3 per 3600 s\)") as e:
            await first.acquire()
        assert 1100 < seconds(e) <= 1200
        assert e.value.name == "api"
        assert (await other.acquire()).allowed
        assert first.rate == SLOW


async def test_keys_are_apart_from_each_other_and_from_none():
    async with open_backend("memory://") as backend:
        limit = SharedRateLimit(Rate(1, per=3600), backend, name="api", max_wait=0)
        for key in (None, "*", "=", "a", "=a"):
            assert (await limit.acquire(key=key)).allowed
            with pytest.raises(RateLimitedError):
                await limit.acquire(key=key)


async def test_as_a_policy_it_takes_one_of_its_key():
    async with open_backend("memory://") as backend:
        limit = SharedRateLimit(
            Rate(1, per=3600), backend, name="api", key=lambda user, **_: user, max_wait=0
        )

        async def bare(user: str, *, page: int = 1) -> str:
            return f"{user} {page}"

        fetch = limit(bare)
        assert await fetch("ann", page=2) == "ann 2"
        assert await fetch("bob") == "bob 1"
        with pytest.raises(RateLimitedError):
            await fetch("ann")
        assert await Stack(Timeout(1), limit).call(bare, "cid") == "cid 1"
        with pytest.raises(RateLimitedError):
            await limit.call(bare, "cid")


async def test_without_a_key_function_all_calls_share():
    async with open_backend("memory://") as backend:
        limited = SharedRateLimit(Rate(2, per=3600), backend, name="api", max_wait=0)(answer)
        assert [await limited(1), await limited(2)] == [1, 2]
        with pytest.raises(RateLimitedError):
            await limited(3)


def test_a_wait_ends_when_the_cost_is_there():
    async def main():
        async with open_backend("memory://") as backend:
            limit = SharedRateLimit(Rate(1, per=10), backend, name="api")
            times = []
            for _ in range(3):
                await limit.acquire()
                times.append(monotonic())
            return times

    assert simulate(main) == pytest.approx([0, 10, 20], abs=0.01)


def test_nobody_of_a_process_passes_another():
    async def main():
        async with open_backend("memory://") as backend:
            limit = SharedRateLimit(Rate(2, per=2), backend, name="api")
            done = []

            async def take(number, cost):
                await limit.acquire(cost)
                done.append((number, round(monotonic(), 1)))

            await limit.acquire(2)
            async with anyio.create_task_group() as group:
                for number, cost in enumerate((2, 1, 1)):
                    group.start_soon(take, number, cost)
                    await sleep(0.01)
                await sleep(1.5)
                group.start_soon(take, 3, 1)  # comes when one is there, but others wait
            return done

    assert simulate(main) == [(0, 2.0), (1, 3.0), (2, 4.0), (3, 5.0)]


def test_processes_share_and_all_come_through_in_time():
    async def main():
        async with open_backend("memory://") as backend:
            limits = [SharedRateLimit(Rate(5), backend, name="api") for _ in range(4)]
            times = []

            async def work(limit):
                for _ in range(10):
                    await limit.acquire()
                    times.append(monotonic())

            async with anyio.create_task_group() as group:
                for limit in limits:
                    for _ in range(2):
                        group.start_soon(work, limit)
            assert len(times) == 80
            for start in times:
                assert sum(start <= time < start + 1 for time in times) <= 10
            assert times[-1] == pytest.approx(15, abs=0.5)  # (80 - 5) / 5
            assert all(not limit._lines for limit in limits)

    explore(main, range(20))


async def test_what_would_wait_too_long_is_refused_at_once():
    async with open_backend("memory://") as backend:
        limit = SharedRateLimit(Rate(1, per=60), backend, name="api", max_wait=5)
        await limit.acquire()
        with capture_events() as events, pytest.raises(RateLimitedError) as e:
            await limit.acquire()
        assert 59 < seconds(e) <= 60
        (rejected,) = [each for each in events if isinstance(each, RateLimitRejected)]
        assert rejected.limiter == "SharedRateLimit('api', 1 per 60 s)"
        with bind_deadline(monotonic() + 1), pytest.raises(RateLimitedError):
            await limit.acquire(max_wait=100)


def test_the_line_of_a_process_counts_towards_the_wait():
    async def main():
        async with open_backend("memory://") as backend:
            limit = SharedRateLimit(Rate(1), backend, name="api")
            await limit.acquire()
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(limit.acquire)
                await sleep(0.5)
                with pytest.raises(RateLimitedError) as e:
                    await limit.acquire(max_wait=3)
                assert seconds(e) == pytest.approx(3.5, abs=0.01)
                await limit.acquire(max_wait=3.6)
                return monotonic()

    assert simulate(main) == pytest.approx(4, abs=0.01)


def test_a_wait_that_others_make_longer_ends_in_time():
    """Another process takes what this one waits for."""

    async def main():
        async with open_backend("memory://") as backend:
            limit = SharedRateLimit(Rate(1), backend, name="api")
            greedy = SharedRateLimit(Rate(1), backend, name="api")
            await limit.acquire()

            async def waste():
                for _ in range(10):
                    await greedy.acquire()

            async with anyio.create_task_group() as group:
                group.start_soon(waste)
                await sleep(0.001)
                began = monotonic()
                with pytest.raises(RateLimitedError):
                    await limit.acquire(max_wait=1.5)
                assert monotonic() - began <= 1.5
                group.cancel_scope.cancel()
            assert not limit._lines

    simulate(main)


def test_a_slow_answer_ends_the_wait_in_time():
    async def main():
        async with open_backend("memory://") as backend:
            weather = Weather(backend)
            limit = SharedRateLimit(Rate(1), wrong(weather), name="api")
            await limit.acquire()
            first = monotonic()
            async with anyio.create_task_group() as group:
                group.start_soon(limit.acquire)
                await sleep(0.9)
                weather.delay = 0.2
                with pytest.raises(RateLimitedError):
                    await limit.acquire(max_wait=1.15)
                assert monotonic() - first < 2.2

    simulate(main)


async def test_outages_local():
    async with open_backend("memory://") as backend:
        weather = Weather(backend)
        limit = SharedRateLimit(SLOW, wrong(weather), name="api", max_wait=0)
        weather.error = away()
        with capture_events() as events:
            assert [(await limit.acquire()).remaining for _ in range(3)] == [2, 1, 0]
            with pytest.raises(RateLimitedError):
                await limit.acquire()
            assert (await limit.acquire(key="other")).allowed
        assert weather.asked == 1
        assert limit.in_outage
        assert limit.on_outage == "local"
        (outage,) = [each for each in events if isinstance(each, RateLimitOutage)]
        assert outage == RateLimitOutage(repr(limit), "local", "nobody answers at redis://***@host")


async def test_outages_allow():
    async with open_backend("memory://") as backend:
        weather = Weather(backend)
        weather.error = BackendError("full")
        limit = SharedRateLimit(SLOW, wrong(weather), name="api", on_outage="allow", burst=7)
        for _ in range(20):
            assert await limit.acquire() == Grant(True, 0.0, 7, 0.0)
        assert weather.asked == 1


async def test_outages_deny():
    async with open_backend("memory://") as backend:
        weather = Weather(backend)
        weather.error = away()
        limit = SharedRateLimit(SLOW, wrong(weather), name="api", on_outage="deny")
        for _ in range(3):
            with pytest.raises(RateLimitedError, match="its backend is out of reach") as e:
                await limit.acquire()
            assert 0 < seconds(e) <= 0.11
        assert weather.asked == 1


def test_the_backend_is_asked_again_less_and_less_often_until_it_is_back():
    async def main():
        async with open_backend("memory://") as backend:
            weather = Weather(backend)
            limit = SharedRateLimit(Rate(1e6), wrong(weather), name="api")
            weather.error = away()
            asked = []
            with capture_events() as events:
                while monotonic() < 60:
                    before = weather.asked
                    await limit.acquire()
                    if weather.asked > before:
                        asked.append(monotonic())
                    await sleep(0.01)
                weather.error = None
                while limit.in_outage:
                    await limit.acquire()
                    await sleep(0.01)
                back = monotonic()
            gaps = [after - before for before, after in pairwise(asked)]
            assert 0.05 < gaps[0] < 0.2
            assert max(gaps) < 5.6
            assert len(asked) < 20
            assert back < 60 + 5.6
            kinds = [type(each) for each in events]
            assert kinds.count(RateLimitOutage) == kinds.count(RateLimitRecovered) == 1

    simulate(main)


def test_a_backend_that_does_not_answer_holds_up_one_call_at_a_time_and_not_for_long():
    async def main():
        async with open_backend("memory://") as backend:
            weather = Weather(backend)
            weather.delay = 3600
            limit = SharedRateLimit(Rate(1e6), wrong(weather), name="api")
            began = monotonic()
            await limit.acquire()
            assert monotonic() - began == pytest.approx(PATIENCE)
            held_up, began = 0, monotonic()
            async with anyio.create_task_group() as group:

                async def call():
                    nonlocal held_up
                    started = monotonic()
                    await limit.acquire()
                    held_up += monotonic() > started

                while monotonic() < began + 20:
                    for _ in range(10):
                        group.start_soon(call)
                    await sleep(0.01)
            assert held_up < 12

    simulate(main)


async def test_misuse_is_no_outage():
    limit = SharedRateLimit(SLOW, "memory://", name="api")
    with pytest.raises(ClosedError):
        await limit.acquire()
    assert not limit.in_outage
    async with limit.backend:
        assert (await limit.acquire()).allowed


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"rate": 5}, TypeError, "rate must be a Rate"),
        ({"name": ""}, ValueError, "name must be"),
        ({"name": 7}, TypeError, "name must be"),
        ({"key": "user"}, TypeError, "key must be a function"),
        ({"burst": 0.5}, ValueError, "burst must be at least 1"),
        ({"burst": math.nan}, ValueError, "burst must be"),
        ({"max_wait": -1}, ValueError, "max_wait must be"),
        ({"on_outage": "panic"}, ValueError, "on_outage must be one of 'local', 'allow', 'deny'"),
        ({"backend": "ftp://x"}, ValueError, "ftp"),
    ],
)
def test_bad_input_of_the_constructor(arguments, error, text):
    good: dict[str, Any] = {"rate": SLOW, "backend": "memory://", "name": "api"}
    with pytest.raises(error, match=text):
        SharedRateLimit(**{**good, **arguments})


@pytest.mark.promise("resilience-bad-input")
async def test_bad_input_of_acquire():
    async with open_backend("memory://") as backend:
        limit = SharedRateLimit(SLOW, backend, name="api", max_wait=0)
        with pytest.raises(ValueError, match="cost must be at most 3 for"):
            await limit.acquire(3.5)
        for cost in (0, -1, math.nan):
            with pytest.raises(ValueError, match="cost must be"):
                await limit.acquire(cost)
        with pytest.raises(ValueError, match="key must be"):
            await limit.acquire(key="")
        with pytest.raises(TypeError, match="key must be"):
            await limit.acquire(key=wrong(7))
        with pytest.raises(ValueError, match="max_wait must be"):
            await limit.acquire(max_wait=-1)
        assert (await limit.acquire()).remaining == 2


def test_the_longest_wait_is_part_of_the_bound():
    assert SharedRateLimit(SLOW, "memory://", name="a", max_wait=5).bound(2.0) == 7.0
    assert SharedRateLimit(SLOW, "memory://", name="a").bound(2.0) == math.inf


@pytest.mark.promise("resilience-cancel-everywhere", "resilience-permits")
def test_a_cancelled_wait_leaves_the_line():
    def scenario() -> Trial:
        backend = open_backend("memory://")
        limit = SharedRateLimit(Rate(1), backend, name="api")

        async def work():
            async with backend, anyio.create_task_group() as group:
                await limit.acquire()
                group.start_soon(limit.acquire)
                await sleep(0)
                await limit.acquire()

        async def check():
            assert not limit._lines
            async with backend:
                await sleep(10)
                assert (await limit.acquire(max_wait=0)).allowed

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=2)


CHILD = """
import sys, anyio
from aiopatterns.backends import open_backend
from aiopatterns.core.errors import RateLimitedError
from aiopatterns.core.rate import Rate
from aiopatterns.resilience.sharedlimit import SharedRateLimit

async def main():
    async with open_backend(sys.argv[1]) as backend:
        limit = SharedRateLimit(Rate(100, per=3600), backend, name="fleet", max_wait=0)
        taken = 0
        for _ in range(60):
            try:
                await limit.acquire()
            except RateLimitedError:
                continue
            taken += 1
        print(taken)

anyio.run(main)
"""


@pytest.mark.real
@pytest.mark.promise("resilience-shared-rate")
async def test_processes_share_one_rate_over_redis(redis_url):
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, redis_url], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    outputs = [await anyio.to_thread.run_sync(child.communicate) for child in children]
    assert sum(int(output) for output, _ in outputs) == 100


@pytest.mark.real
@pytest.mark.promise("resilience-shared-rate")
@pytest.mark.parametrize("end", ["kill", "pause"])
async def test_a_server_that_goes_away_costs_next_to_nothing_and_comes_back(end):
    with RedisServer(private=True) as server:
        async with open_backend(server.url) as backend:
            limit = SharedRateLimit(Rate(1e6), backend, name="api")
            await limit.acquire()
            assert not limit.in_outage
            server.kill() if end == "kill" else server.pause()
            await limit.acquire()
            assert limit.in_outage
            began = monotonic()
            for _ in range(2_000):
                await limit.acquire()
            assert (monotonic() - began) / 2_000 < 0.001
            server.restart() if end == "kill" else server.resume()
            with anyio.fail_after(20):
                while limit.in_outage:
                    await limit.acquire()
                    await sleep(0.02)
