"""Tables: pages behave as one dict, and none of them grows long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cache.table import Pages, table_for

KEYS = st.one_of(st.integers(-50, 50), st.text(max_size=2), st.tuples(st.integers(0, 3)))


def test_a_small_table_is_a_dict_and_a_large_one_has_pages():
    assert type(table_for(16_384)) is dict
    assert type(table_for(16_385)) is Pages


@given(st.lists(st.tuples(st.sampled_from(["set", "get", "pop"]), KEYS, st.integers())))
def test_pages_do_what_a_dict_does(steps):
    pages: Pages[object, int] = Pages(100_000)
    model: dict[object, int] = {}
    for step, key, value in steps:
        if step == "set":
            pages[key] = value
            model[key] = value
        elif step == "get":
            assert pages.get(key) == model.get(key)
        else:
            assert pages.pop(key, None) == model.pop(key, None)
        assert len(pages) == len(model)
    assert set(pages) == set(model)
    assert len(list(pages)) == len(model)


@pytest.mark.parametrize("step", [1, 2, 16, 1_000, 4_096, 65_536])
def test_numbers_in_steps_spread_over_the_pages(step):
    pages: Pages[int, None] = Pages(200_000)
    for key in range(0, step * 20_000, step):
        pages[key] = None
    longest = max(map(len, pages.pages))
    assert longest < 2 * 20_000 / len(pages.pages)
