from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.dashboard.pace import Pace


def test_the_first_look_knows_no_pace():
    assert Pace().look({("w", "q"): 5_000}, 10.0) == {"q": 0.0}


def test_steps_of_publication_cancel_out():
    pace, seen = Pace(), []
    for second in range(20):
        seen.append(pace.look({("w", "q"): 2_000 * (second // 2)}, float(second))["q"])
    assert set(seen[8:]) == {1_000.0}


def test_workers_add_up_and_queues_stay_apart():
    pace, found = Pace(), dict[str, float]()
    for second in range(6):
        counters = {("a", "q"): second * 10, ("b", "q"): second * 5, ("b", "r"): second}
        found = pace.look(counters, float(second))
    assert found == {"q": 15.0, "r": 1.0}


def test_a_worker_that_went_takes_its_pace_along_and_comes_back_at_zero():
    pace = Pace()
    for second in range(6):
        pace.look({("a", "q"): second * 10}, float(second))
    assert pace.look({}, 6.0) == {}
    assert pace.look({("a", "q"): 70}, 7.0) == {"q": 0.0}


def test_a_counter_that_falls_is_no_negative_pace():
    pace = Pace()
    pace.look({("a", "q"): 100}, 0.0)
    assert pace.look({("a", "q"): 1}, 1.0) == {"q": 0.0}


def test_two_looks_at_one_instant():
    pace = Pace()
    pace.look({("a", "q"): 1}, 0.0)
    assert pace.look({("a", "q"): 9}, 0.0) == {"q": 0.0}


@given(st.floats(0.1, 5_000), st.integers(8, 60))
def test_a_steady_pace_is_found(rate, looks):
    pace, found = Pace(), 0.0
    for second in range(looks):
        found = pace.look({("w", "q"): int(rate * second)}, float(second))["q"]
    assert found == pytest.approx(rate, abs=0.5)
