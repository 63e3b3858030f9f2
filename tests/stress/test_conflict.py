"""Five replicas under many interleavings with partitions: all end with the same record."""

from __future__ import annotations

import pytest

from aiopatterns.testing import explore
from tests.data.replication import storm
from tests.data.test_conflict import STRATEGIES

pytestmark = [pytest.mark.stress, pytest.mark.timeout(300)]

SEEDS = range(2_000)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
@pytest.mark.promise("data-conflict-converges")
def test_replicas_converge_under_every_seed(strategy):
    async def scenario() -> None:
        await storm(strategy)

    explore(scenario, SEEDS)
