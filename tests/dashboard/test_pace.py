from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.dashboard.pace import Counter, Pace


def test_the_first_look_knows_no_pace():
    assert Pace().look({("w", "q"): Counter(5_000, 10.0)}) == {"q": 0.0}


def test_between_two_publications_the_pace_stays():
    pace, seen = Pace(), []
    for second in range(12):
        said = second // 2 * 2  # every two seconds
        seen.append(pace.look({("w", "q"): Counter(1_000 * said, float(said))})["q"])
    assert seen == [0.0, 0.0] + 10 * [1_000.0]


def test_a_worker_with_nothing_to_do_has_none_at_its_next_word():
    pace = Pace()
    pace.look({("w", "q"): Counter(0, 0.0)})
    assert pace.look({("w", "q"): Counter(10, 2.0)}) == {"q": 5.0}
    assert pace.look({("w", "q"): Counter(10, 4.0)}) == {"q": 0.0}


def test_workers_add_up_and_queues_stay_apart():
    pace, found = Pace(), dict[str, float]()
    for at in (0.0, 2.0):
        second = int(at)
        counters = {
            ("a", "q"): Counter(second * 10, at),
            ("b", "q"): Counter(second * 5, at + 7),
            ("b", "r"): Counter(second, at + 7),
        }
        found = pace.look(counters)
    assert found == {"q": 15.0, "r": 1.0}


def test_a_worker_that_went_takes_its_pace_along():
    pace = Pace()
    pace.look({("a", "q"): Counter(0, 0.0)})
    assert pace.look({}) == {}
    assert pace.look({("a", "q"): Counter(70, 7.0)}) == {"q": 0.0}


def test_neither_a_counter_nor_a_clock_that_goes_back_is_a_negative_pace():
    pace = Pace()
    pace.look({("a", "q"): Counter(100, 1.0)})
    assert pace.look({("a", "q"): Counter(1, 2.0)}) == {"q": 0.0}
    assert pace.look({("a", "q"): Counter(9, 1.0)}) == {"q": 0.0}


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=20), st.floats(0.5, 10))
def test_the_pace_is_that_of_the_last_two_publications(added, apart):
    pace, value, found = Pace(), 0, 0.0
    for number, each in enumerate(added):
        value += each
        found = pace.look({("w", "q"): Counter(value, number * apart)})["q"]
    assert found == pytest.approx(added[-1] / apart)
