"""The table of crash points again: each point, each participant, on all loops that are real."""

from __future__ import annotations

import pytest

from tests.data import test_crash_table as table

pytestmark = [
    pytest.mark.stress,
    pytest.mark.real,  # the simulated loop has its turn in the suite itself
    pytest.mark.timeout(180),
    pytest.mark.leaves("*2pc:redis:v:*"),
]

POINTS = {name: each for name, each in vars(table).items() if name.startswith("test_")}
globals().update(POINTS, world=table.world)


def test_no_point_is_missing():
    assert len(POINTS) >= 20
