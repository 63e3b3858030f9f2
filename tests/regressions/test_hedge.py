"""Defects of other hedging libraries, each a test that would find it here."""

from __future__ import annotations

import pytest

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.hedge import Hedge
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import explore, leak_guard, simulate


def test_failsafe_go_an_error_that_comes_first_is_no_result():
    """There, the first outcome of any kind wins, and the fastest replica is the broken one."""

    async def scenario():
        calls: list[int] = []

        async def work():
            calls.append(1)
            if len(calls) == 1:
                await sleep(3)
                return "slow but right"
            raise OSError

        assert await Hedge(1).call(work) == "slow but right"

    explore(scenario, range(20))


def test_a_gather_of_two_leaves_an_orphan_and_this_does_not():
    async def scenario():
        running: list[int] = []

        async def work():
            running.append(1)
            try:
                await sleep(9 if len(running) == 1 else 1)
            finally:
                running.pop()

        async with leak_guard():
            await Hedge(1).call(work)
            assert not running

    simulate(scenario)


def test_polly_results_of_losers_are_disposed_of():
    async def scenario():
        opened: list[int] = []
        closed: list[int] = []

        async def connect():
            opened.append(len(opened))
            mine = opened[-1]
            await sleep(1)
            return mine

        async def close(connection):
            closed.append(connection)

        kept = await Hedge(0, max_extra=2, discard=close).call(connect)
        assert len(closed) <= 2
        assert kept not in closed

    explore(scenario, range(40))


def test_failsafe_go_106_retries_and_hedges_share_one_budget():
    async def scenario():
        budget = Budget.ratio(0, min_concurrency=1)
        calls: list[float] = []

        async def work():
            calls.append(monotonic())
            await sleep(3)
            raise OSError

        stacked = Retry(OSError, attempts=3, budget=budget)(Hedge(1, budget=budget)(work))
        with pytest.raises(OSError):
            await stacked()
        # The hedge has the one extra, then the retry: never both.
        assert len(calls) <= 5
        assert (budget._calls, budget._extras) == (0, 0)

    simulate(scenario)


def test_the_tail_at_scale_a_slow_replica_costs_one_percentile_not_a_timeout():
    async def scenario():
        hedge = Hedge()
        number = 0

        async def replica():
            nonlocal number
            number += 1
            await sleep(10 if number % 20 == 0 else 0.1)

        took = []
        for _ in range(400):
            start = monotonic()
            await hedge.call(replica)
            took.append(monotonic() - start)
        assert max(took[40:]) < 0.3

    simulate(scenario)
