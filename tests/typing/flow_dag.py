"""What the type checkers must conclude about task graphs."""

from __future__ import annotations

from typing import assert_type

from aiopatterns.flow.dag import Dag
from aiopatterns.flow.dagrun import DagRun
from aiopatterns.flow.node import TaskState

etl = Dag("etl", resources={"db": 2})


@etl.task(timeout=3, resources={"db": 1})
async def extract(day: str) -> list[str]:
    return [day]


@etl.task
def load(extract: list[str]) -> int:
    return len(extract)


@etl.task(after=[load])
async def grow(run: DagRun) -> str:
    added = run.add(load, id="again", args={"extract": extract})
    run.link(added, "last")
    return added.id


def halve(number: int) -> float:
    return number / 2


async def check() -> None:
    half = etl.add(halve, id="half", args={"number": load}, after=[extract, "grow"])
    run = await etl.run({"day": "monday"}, mode="continue", keep=[load, "half"])
    assert_type(run, DagRun)
    assert_type(run[extract], list[str])
    assert_type(run[load], int)
    assert_type(run[grow], str)
    assert_type(run[half], float)
    assert_type(run.states, dict[str, TaskState])
    assert_type(load(["a"]), int)
    assert_type(await extract("monday"), list[str])
