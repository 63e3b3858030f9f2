"""Synchronised stores under many interleavings with partitions and purges: all end alike."""

from __future__ import annotations

import pytest

from aiopatterns.testing import explore
from tests.data.syncstorm import storm
from tests.data.test_conflict import every_strategy

pytestmark = [pytest.mark.stress, pytest.mark.timeout(900), pytest.mark.untraced]

SEEDS = range(2_000)


@every_strategy
@pytest.mark.parametrize("forgetful", [False, True], ids=["remembering", "forgetful"])
@pytest.mark.promise("data-sync-converges")
def test_stores_converge_under_every_seed(strategy, forgetful):
    async def scenario() -> None:
        await storm(strategy, steps=20, forgetful=forgetful)

    explore(scenario, SEEDS)
