from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.cli.poolact import PoolAct
from aiopatterns.testing import simulate


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_calls_are_done_and_never_too_many_a_second(seed):
    act = PoolAct(calls=120, seed=seed)
    simulate(act.run, seed=seed)
    facts: dict[str, Any] = {**act.facts()}
    assert act.well()
    assert facts["done"] == 120
    assert facts["attempts"] == 120 + facts["attempts_failed"]
    assert facts["attempts_failed"]
    assert 0 < facts["rate"] <= facts["rate_limit"]
    assert "120 of 120 calls done" in act.ending()


def test_a_seed_decides_which_calls_fail():
    def failed(seed: int) -> object:
        act = PoolAct(calls=50, seed=seed)
        simulate(act.run)
        return act.facts()["attempts_failed"]

    assert failed(1) == failed(1)
    assert len({failed(each) for each in range(4)}) > 1


def test_what_is_to_be_seen_halfway():
    act = PoolAct(calls=1)
    assert act.scene().figures[3].value == "0"
    simulate(act.run)
    assert act.scene().bars[0].text == "1 of 1"
