"""Five stores with partitions, purges and interrupted runs end with the same."""

from __future__ import annotations

import pytest

from aiopatterns.testing import explore
from tests.data.syncstorm import storm
from tests.data.test_conflict import every_strategy

pytestmark = pytest.mark.untraced


@every_strategy
@pytest.mark.promise("data-sync-converges")
def test_stores_end_with_the_same_and_with_all_that_was_written(strategy):
    async def scenario() -> None:
        assert await storm(strategy) > 0

    explore(scenario, range(8))


@every_strategy
@pytest.mark.promise("data-sync-converges")
def test_stores_that_forget_their_peers_end_with_the_same(strategy):
    async def scenario() -> None:
        await storm(strategy, forgetful=True)

    explore(scenario, range(100, 104))
