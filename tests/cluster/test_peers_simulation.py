"""A hundred peers with one packet in ten lost and pauses of half a second, for some seeds.

Two hundred seeds: ``tests/stress/test_peers.py``.
"""

from __future__ import annotations

from functools import partial

import pytest

from aiopatterns.testing import simulate
from tests.cluster.storm import storm


@pytest.mark.untraced
@pytest.mark.promise("cluster-peer-detects")
@pytest.mark.parametrize("seed", range(10))
def test_of_a_hundred_peers_one_dies_and_nobody_else_is_declared_dead(seed):
    found = simulate(partial(storm, 100, quiet=6.0, crash=seed % 2 == 0), seed)
    assert found.failed_probes > 5  # the storm is one
    assert found.false == []
    assert len(found.seen) == 99
    assert max(found.seen.values()) < 6
