"""The declaration of a saga's steps."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from aiopatterns.data.sagasteps import Steps


@pytest.fixture
def steps() -> Steps[Any]:
    return Steps("trip", 3)


async def work(_: Any) -> None: ...


class Desk:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def plain(self, context: str) -> None:
        self.seen.append(f"plain {context}")

    async def here(self, context: str) -> None:
        self.seen.append(f"here {context}")

    __call__ = here


async def test_whatever_can_be_called_is_a_step_and_a_plain_one_is_called_in_a_thread(steps):
    desk = Desk()
    assert steps.add(desk.plain, compensate=desk.here) == desk.plain
    steps.add(partial(desk.plain), name="b", compensate=desk)
    for step in steps.declared.values():
        await step.action("done")
        assert step.compensate is not None
        await step.compensate("undone")
    assert desk.seen == ["plain done", "here undone"] * 2
    assert steps.declared["b"].compensate is desk  # of no thread's concern


def test_a_step_comes_after_the_one_before_or_after_those_that_it_names(steps):
    steps.add(work, name="a")
    steps.add(len, name="b")
    steps.add(work, name="c", after=[len, "a", "b"])
    steps.add(work, name="d", after=[])
    found = {name: step.after for name, step in steps.declared.items()}
    assert found == {"a": (), "b": ("a",), "c": ("b", "a"), "d": ()}


def test_the_plan_is_made_once_and_anew_after_another_step(steps):
    with pytest.raises(ValueError, match="a saga must have a step"):
        steps.plan()
    steps.add(work, name="a")
    plan = steps.plan()
    assert steps.plan() is plan
    assert plan.definition.startswith("3-")
    steps.add(work, name="b", pivot=True)
    assert [*steps.plan().steps] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({}, ValueError, "saga 'trip' has a step 'work' already; give this one a name="),
        ({"name": ""}, ValueError, "name must be a non-empty string"),
        ({"name": "b", "after": "work"}, TypeError, "after must be a list of steps"),
        ({"name": "b", "after": 7}, TypeError, "after must be a list of steps"),
        ({"name": "b", "after": ["b"]}, ValueError, "after must name steps that were declared"),
        ({"name": "b", "compensate": 7}, TypeError, "compensate must be"),
        ({"name": "b", "retry": 3}, TypeError, "retry must be a Retry"),
        ({"name": "b", "timeout": 0}, ValueError, "timeout must be"),
        ({"name": "b", "pivot": 1}, TypeError, "pivot must be True or False"),
    ],
)
def test_what_makes_no_step_is_refused_and_changes_nothing(steps, options, error, says):
    steps.add(work)
    with pytest.raises(error, match=says):
        steps.add(work, **options)
    assert [*steps.declared] == ["work"]
    with pytest.raises(TypeError, match="fn must be"):
        steps.add(7)
