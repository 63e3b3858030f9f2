from __future__ import annotations

from typing import Any

import anyio

from aiopatterns.cli.breakeract import BreakerAct
from aiopatterns.core.clock import sleep
from aiopatterns.testing import simulate


def test_the_circuit_opens_spares_the_service_and_closes_again():
    act = BreakerAct(seconds=3.0)
    simulate(act.run)
    facts: dict[str, Any] = {**act.facts()}
    assert act.well()
    assert facts["state"] == "closed"
    assert facts["opened"] >= 2
    assert facts["refused"] > facts["failed"] >= 5
    assert act.scene().notes[-1].endswith("closed")
    assert "now closed" in act.ending()


def test_what_is_to_be_seen_while_the_service_is_ill():
    act = BreakerAct(seconds=3.0)

    async def scene():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(act.run)
            await sleep(1.4)
            seen = act.scene()
            tasks.cancel_scope.cancel()
        return seen

    seen = simulate(scene)
    assert (seen.figures[0].value, seen.figures[0].tone) == ("open", "bad")
    assert seen.bars[0].text == "it is ill"
