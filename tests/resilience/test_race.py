"""Races by themselves; what a hedge is made of them is tested in test_hedge.py."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.race import Latencies, Race, Terms
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, simulate


def terms(after=1.0, **changed):
    settings: dict[str, Any] = {
        "max_extra": 1,
        "handles": lambda error: True,
        "discard": None,
        "budget": None,
    }
    return Terms(after, **(settings | changed))


class Books(Budget):
    """A budget that keeps what it is told."""

    def __init__(self):
        self.told: list[str] = []

    def begin(self):
        self.told.append("begin")

    def finish(self):
        self.told.append("finish")

    def try_extra(self):
        self.told.append("try_extra")
        return True

    def finish_extra(self):
        self.told.append("finish_extra")


def test_nothing_is_late_until_twenty_latencies_are_known():
    known = Latencies()
    for number in range(1, 20):
        known.record(number / 100)
        assert known.late_after is None
    known.record(0.2)
    assert known.late_after == pytest.approx(0.19, rel=0.02)


def test_no_call_is_late_before_a_millisecond():
    known = Latencies()
    for _ in range(20):
        known.record(1e-6)
    assert known.late_after == 0.001


def test_the_older_half_is_forgotten():
    known = Latencies()
    for _ in range(500):
        known.record(5.0)
    for _ in range(480):
        known.record(0.1)
    assert known.late_after == pytest.approx(5, rel=0.02)
    for _ in range(40):
        known.record(0.1)
    assert known.late_after == pytest.approx(0.1, rel=0.02)


def test_the_time_that_was_given_goes_before_what_was_learned():
    assert terms(2.5).late_after() == 2.5
    learning = terms(None)
    assert learning.late_after() is None
    for _ in range(20):
        learning.latencies.record(0.3)
    assert learning.late_after() == pytest.approx(0.3, rel=0.02)


def test_the_books_of_the_budget_are_closed_when_the_race_is_over():
    async def scenario():
        budget = Books()
        seconds = iter((9, 1))

        async def call():
            await sleep(next(seconds))
            return monotonic()

        with capture_events() as events:
            assert await Race(terms(budget=budget), call).run() == 2
        assert [each.name for each in events] == [
            "aiopatterns.hedge.started",
            "aiopatterns.hedge.won",
        ]
        assert budget.told == ["begin", "try_extra", "finish_extra", "finish"]

    simulate(scenario)


def test_a_race_that_is_left_anywhere_discards_what_was_won():
    def factory():
        made: list[str] = []
        discarded: list[str] = []
        kept: list[str] = []

        async def call():
            name = str(len(made) + 1)
            await sleep(2)
            made.append(name)
            return name

        async def discard(value):
            discarded.append(value)

        async def work():
            kept.append(await Race(terms(0.5, max_extra=2, discard=discard), call).run())

        return Trial(work(), lambda: check(made, [*kept, *discarded]))

    def check(made, accounted):
        assert sorted(made) == sorted(accounted)

    cancel_everywhere(factory, minimum=2)
