"""The decision of the autoscaler: a pure function, checked as one, and carried out in virtual time."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns import testing
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.flow import pool as flow_pool
from aiopatterns.flow.autoscale import Autoscale, Load
from aiopatterns.resilience.ratelimit import Rate, TokenBucket
from aiopatterns.testing import simulate

# Typed in tests/typing; tests do on purpose what types forbid.
WorkerPool: Any = flow_pool.WorkerPool
capture_events: Any = testing.capture_events

SCALE = Autoscale(2, 16, target_wait=1.0, idle=10.0)


def test_it_grows_when_the_oldest_has_waited_longer_than_the_target():
    assert SCALE.decide(Load(2, ready=9, oldest_wait=1.0)) == 2
    assert SCALE.decide(Load(2, ready=9, oldest_wait=1.1)) == 4
    assert SCALE.decide(Load(2, ready=1, oldest_wait=1.1)) == 3
    assert SCALE.decide(Load(12, ready=99, oldest_wait=1.1)) == 16
    assert SCALE.decide(Load(16, ready=99, oldest_wait=1.1)) == 16


def test_it_shrinks_by_those_that_were_idle_for_long():
    assert SCALE.decide(Load(8, idle=(9.9, 9.9))) == 8
    assert SCALE.decide(Load(8, idle=(9.9, 10.0, 11.0))) == 6
    assert SCALE.decide(Load(8, idle=(20.0,) * 8)) == 2
    assert SCALE.decide(Load(2, idle=(20.0, 20.0))) == 2


def test_it_looks_when_the_decision_could_change():
    assert SCALE.next_look(Load(2, ready=1, oldest_wait=0.25)) == 0.75
    assert SCALE.next_look(Load(2, ready=1, oldest_wait=1.0)) == 0.005  # a clock that is early
    assert SCALE.next_look(Load(4, ready=1, oldest_wait=1.5)) == 1.0  # after a step of growth
    assert SCALE.next_look(Load(16, ready=1, oldest_wait=1.5)) == 10.0
    assert SCALE.next_look(Load(4, idle=(3.0, 4.0))) == 6.0
    assert SCALE.next_look(Load(4)) == 10.0
    assert SCALE.next_look(Load(2, idle=(3.0,))) is None


loads = st.builds(
    Load,
    limit=st.integers(2, 16),
    ready=st.integers(0, 1000),
    oldest_wait=st.floats(0, 1e6),
    idle=st.lists(st.floats(0, 1e6), max_size=16),
)


@given(loads)
def test_the_decision_stays_within_its_bounds(load):
    decided = SCALE.decide(load)
    assert 2 <= decided <= 16
    assert decided <= 2 * load.limit
    after = SCALE.next_look(load)
    assert after is None or 0.005 <= after <= 10.0
    assert after is not None or load.limit == 2


@pytest.mark.promise("flow-bad-input", "regression-10-senseless-numbers")
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"min": 0, "max": 2}, ValueError, "min must be a whole number >= 1, not 0"),
        ({"min": 1, "max": 0}, ValueError, "max must be a whole number >= 1, not 0"),
        ({"min": 3, "max": 2}, ValueError, r"max must be at least min \(3\), not 2"),
        ({"min": True, "max": 2}, TypeError, "min must be"),
        ({"min": 1, "max": 2.5}, TypeError, "max must be"),
        ({"min": 1, "max": 2, "target_wait": 0}, ValueError, "target_wait must be"),
        ({"min": 1, "max": 2, "target_wait": math.nan}, ValueError, "target_wait must be"),
        ({"min": 1, "max": 2, "target_wait": math.inf}, ValueError, "target_wait must be"),
        ({"min": 1, "max": 2, "idle": -1}, ValueError, "idle must be"),
        ({"min": 1, "max": 2, "idle": "1"}, TypeError, "idle must be"),
    ],
)
def test_senseless_numbers_are_refused(arguments, error, text):
    with pytest.raises(error, match=text):
        Autoscale(**arguments)


def test_a_pool_grows_under_load_and_shrinks_when_it_is_over():
    async def run():
        seen = set()

        async def work(item):
            seen.add(pool.statistics().workers)
            await sleep(1)

        pool = WorkerPool(work, workers=Autoscale(1, 8, target_wait=0.05, idle=10), queue=1000)
        async with pool:
            start = monotonic()
            with capture_events() as events:
                for item in range(64):
                    await pool.submit(item)
                await pool.drain()
                # One worker would take 64 s, eight take 8 s; the growth takes 0.15 s.
                assert 8 <= monotonic() - start < 11
                assert max(seen) == 8
                await sleep(11)
                assert pool.statistics().workers == pool.statistics().limit == 1
            scaled = [event for event in events if event.name == "aiopatterns.pool.scaled"]
            assert [(e.before, e.after) for e in scaled if e.reason == "wait"] == [
                (1, 2),
                (2, 4),
                (4, 8),
            ]
            assert {e.reason for e in scaled} == {"wait", "idle"}
            assert await pool.run(0) is None  # and it still works

    simulate(run)


def test_an_idle_pool_at_its_minimum_looks_at_nothing():
    async def run():
        async def work(item):
            await sleep(0.01)

        async with WorkerPool(work, workers=Autoscale(1, 4)) as pool:
            await pool.run(1)
            await sleep(1)
            assert pool._shift.staff._timer is None

    simulate(run)


def test_a_look_that_is_far_off_is_brought_forward_by_new_items():
    async def run():
        async def work(item):
            await sleep(item)

        async with WorkerPool(work, workers=Autoscale(1, 4, idle=100)) as pool:
            for _ in range(3):
                await pool.submit(1)
            await pool.drain()
            assert pool.statistics().limit == 3
            await sleep(1)  # the next look is an idle one, in 99 s
            for _ in range(20):
                await pool.submit(1)
            await sleep(0.2)
            assert pool.statistics().limit == 4

    simulate(run)


def test_no_worker_is_added_for_a_rate_limit_or_a_pause():
    async def run():
        async def work(item):
            await sleep(0)

        scale = Autoscale(1, 8, target_wait=0.05)
        rate = TokenBucket(Rate(1), burst=1)
        async with WorkerPool(work, workers=scale, rate=rate) as pool:
            for item in range(5):
                await pool.submit(item)
            await sleep(2.5)
            assert pool.statistics().limit == 1
            pool.pause()
            await sleep(5)
            assert pool.statistics().limit == 1
            pool.resume()
            await pool.drain()

    simulate(run)


def test_priorities_and_keys_count_in_the_wait():
    async def run():
        async def work(item):
            await sleep(1)

        async with WorkerPool(work, workers=Autoscale(1, 8)) as pool:
            for item in range(4):
                await pool.submit(item, priority=item, key="same")
            await sleep(0.5)
            assert pool.statistics().limit == 1  # more workers would not help
            for item in range(4):
                await pool.submit(item, priority=item)
            await sleep(0.5)
            assert pool.statistics().limit > 1

    simulate(run)
