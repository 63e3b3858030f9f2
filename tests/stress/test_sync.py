"""Synchronised stores under many interleavings with partitions and purges, and under SIGKILL."""

from __future__ import annotations

import pytest

from aiopatterns.testing import explore
from tests.data.syncstorm import storm
from tests.data.test_conflict import every_strategy
from tests.data.test_synckills import assert_survives

pytestmark = [pytest.mark.stress, pytest.mark.timeout(900), pytest.mark.untraced]

SEEDS = range(2_000)


@every_strategy
@pytest.mark.parametrize("forgetful", [False, True], ids=["remembering", "forgetful"])
@pytest.mark.promise("data-sync-converges")
def test_stores_converge_under_every_seed(strategy, forgetful):
    async def scenario() -> None:
        await storm(strategy, steps=20, forgetful=forgetful)

    explore(scenario, SEEDS)


@pytest.mark.real
@pytest.mark.promise("data-sync-kills")
def test_between_a_file_and_a_server_a_run_may_be_killed_at_any_point(tmp_path, postgres_dsn):
    assert_survives(f"sqlite:///{tmp_path}/left{{}}.db", postgres_dsn)


@pytest.mark.real
@pytest.mark.promise("data-sync-kills")
def test_between_a_server_and_a_file_a_run_may_be_killed_at_any_point(tmp_path, postgres_dsn):
    assert_survives(postgres_dsn, f"sqlite:///{tmp_path}/right{{}}.db")
