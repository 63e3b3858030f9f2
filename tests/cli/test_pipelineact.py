from __future__ import annotations

from typing import Any

import anyio
import pytest

from aiopatterns.cli.pipelineact import PipelineAct
from aiopatterns.core.clock import sleep
from aiopatterns.testing import simulate


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_items_come_through_in_order_and_memory_is_bounded(seed):
    act = PipelineAct(items=200, seed=seed)
    simulate(act.run, seed=seed)
    facts: dict[str, Any] = {**act.facts()}
    assert act.well()
    assert facts["stored"] == 200
    assert facts["in_order"]
    assert facts["inside_at_most"] <= facts["inside_bound"]
    assert "200 of 200 items through 3 stages, in order" in act.ending()


def test_the_slow_stage_holds_the_others_back():
    act = PipelineAct(items=300)

    async def scene():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(act.run)
            await sleep(1.0)
            seen = act.scene()
            tasks.cancel_scope.cancel()
        return seen

    seen = simulate(scene)
    stored, *stages = seen.bars
    assert 0 < stored.share < 1
    assert [each.label for each in stages] == ["read", "parse", "store"]
    assert stages[-1].share > 0.9
    assert int(seen.figures[2].value) > 60
    assert not act.well()
