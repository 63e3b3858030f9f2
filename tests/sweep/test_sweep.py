"""The sweep in its short form, and that it finds mistakes, names them and plays them again."""

from __future__ import annotations

import pytest

from tests.sweep.rooms import ROOMS
from tests.sweep.sweeping import sweep

pytestmark = pytest.mark.untraced

SEEDS = 12


@pytest.mark.promise("fault-11-seeds")
@pytest.mark.parametrize("room", ROOMS)
def test_a_room_under_a_few_seeds(room):
    found = sweep(room, range(SEEDS))
    assert found.failures == [], "\n".join(map(str, found.failures))
    assert found.seeds == len(found.traces) == SEEDS


@pytest.mark.parametrize("room", ROOMS)
def test_the_same_seeds_are_the_same_runs(room):
    assert sweep(room, range(1, 3)).digest == sweep(room, range(1, 3)).digest
