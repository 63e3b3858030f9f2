"""The long form of the demo's chaos act: as it is played, with several seeds."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.cli.chaos import ChaosAct
from tests.cli.test_chaos import lost_on_screen
from tests.jobs.fleet import on_one_loop

pytestmark = [pytest.mark.stress, pytest.mark.real, pytest.mark.timeout(200)]


@pytest.mark.parametrize("seed", range(5))
@on_one_loop
async def test_two_thousand_jobs_and_the_counter_of_lost_ones_stays_at_zero(seed):
    act = ChaosAct(seed=seed, within=180.0)
    assert await lost_on_screen(act) == {"0"}
    facts: dict[str, Any] = {**act.facts()}
    assert (facts["done"], facts["lost"]) == (2_000, 0)
    assert facts["workers_killed"] >= 2
    assert facts["redis_killed"] >= 2
    assert facts["twice"] <= 10 * facts["workers_killed"] + 40 * facts["redis_killed"]
