"""Budgets: extras never exceed what the calls allow, claims are conserved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import sleep
from aiopatterns.resilience.budget import Budget
from aiopatterns.testing import simulate

steps = st.lists(st.sampled_from(["begin", "finish", "extra", "finish_extra"]), max_size=80)


@given(steps, st.floats(0, 1), st.integers(0, 4))
def test_a_ratio_budget_holds_its_bound_whenever_an_extra_begins(steps, ratio, least):
    budget = Budget.ratio(ratio, min_concurrency=least)
    calls = extras = 0
    for step in steps:
        if step == "begin":
            budget.begin()
            calls += 1
        elif step == "finish" and calls:
            budget.finish()
            calls -= 1
        elif step == "extra":
            allowed = extras + 1 <= max(least, ratio * (calls + extras) + 1e-9)
            assert budget.try_extra() is allowed
            extras += allowed
        elif step == "finish_extra" and extras:
            budget.finish_extra()
            extras -= 1


def test_a_token_budget_allows_a_share_of_recent_calls_and_a_floor():
    async def scenario():
        budget = Budget.tokens(0.29, min_per_second=0.2, ttl=10)
        assert [budget.try_extra() for _ in range(3)] == [True, True, False]  # the floor: 2
        await sleep(11)
        for _ in range(100):
            budget.begin()
            budget.finish()
        assert sum(budget.try_extra() for _ in range(100)) == 31
        budget.finish_extra()  # what ends does not come back
        assert not budget.try_extra()
        await sleep(11)
        assert sum(budget.try_extra() for _ in range(100)) == 2

    simulate(scenario)


def test_a_token_budget_survives_a_change_of_clock():
    budget = Budget.tokens(0, min_per_second=1, ttl=1)

    async def spend(after):
        await sleep(after)
        assert [budget.try_extra() for _ in range(2)] == [True, False]

    simulate(lambda: spend(100))
    simulate(lambda: spend(0))


def test_ends_without_a_beginning_are_refused():
    budget = Budget.ratio()
    with pytest.raises(RuntimeError, match="without begin"):
        budget.finish()
    with pytest.raises(RuntimeError, match="without try_extra"):
        budget.finish_extra()


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Budget.tokens(-0.1), "ratio"),
        (lambda: Budget.tokens(min_per_second=-1), "min_per_second"),
        (lambda: Budget.tokens(ttl=0), "ttl"),
        (lambda: Budget.ratio(1.1), "max_ratio"),
        (lambda: Budget.ratio(min_concurrency=-1), "min_concurrency"),
    ],
)
def test_bad_input_is_one_clear_error(make, name):
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        make()
