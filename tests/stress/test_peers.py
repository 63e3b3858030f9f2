"""A hundred peers with one packet in ten lost and pauses of half a second, for 200 seeds."""

from __future__ import annotations

from functools import partial
from statistics import median

import pytest

from aiopatterns.testing import simulate
from tests.cluster.storm import storm

pytestmark = [pytest.mark.stress, pytest.mark.timeout(1_800)]
SEEDS = 200
PARTS = 10


@pytest.mark.promise("cluster-peer-detects")
@pytest.mark.parametrize("part", range(PARTS))
def test_of_a_hundred_peers_one_dies_and_nobody_else_is_declared_dead(part):
    """In parts, so that they can run side by side."""
    slowest = []
    for seed in range(1_000 + part, 1_000 + SEEDS, PARTS):
        found = simulate(partial(storm, 100, quiet=15.0, crash=seed % 4 < 2), seed)
        assert found.false == [], f"seed {seed}"
        assert len(found.seen) == 99, f"seed {seed}"
        slowest.append(max(found.seen.values()))
    print(f"seen by all after {median(slowest):.2f} s, at most {max(slowest):.2f} s")
    assert max(slowest) < 6
