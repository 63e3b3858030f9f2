"""The plan of a saga: order, pivot, and what may not be."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.data.sagaplan import Plan, Step


async def nothing(_: Any) -> None:
    """Do nothing."""


def step(name: str, *after: str, pivot: bool = False, compensate: Any = None) -> Step[Any]:
    return Step(name, nothing, compensate, after, None, None, pivot)


def test_it_knows_what_follows_what():
    plan = Plan(1, [step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c")])
    assert plan.following == {"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}
    assert plan.pivot is None
    assert plan.behind == frozenset()


def test_behind_the_pivot_is_what_comes_after_it():
    plan = Plan(1, [step("a"), step("b", "a", pivot=True), step("c", "b"), step("d", "c")])
    assert plan.pivot is plan.steps["b"]
    assert plan.behind == {"c", "d"}


def test_what_two_steps_behind_the_pivot_lead_to_is_behind_it():
    steps = [step("a", pivot=True), step("b", "a"), step("c", "a"), step("d", "b", "c")]
    assert Plan(1, steps).behind == {"b", "c", "d"}


def test_a_step_beside_the_pivot_is_refused():
    with pytest.raises(ValueError, match="'c' is neither before nor behind the pivot 'b'"):
        Plan(1, [step("a"), step("b", "a", pivot=True), step("c", "a")])


def test_two_pivots_or_no_step_are_refused():
    with pytest.raises(ValueError, match="one pivot at most"):
        Plan(1, [step("a", pivot=True), step("b", "a", pivot=True)])
    with pytest.raises(ValueError, match="must have a step"):
        Plan(1, [])


def test_the_definition_changes_with_version_and_shape_alone():
    first = Plan(1, [step("a"), step("b", "a")]).definition
    assert first == Plan(1, [step("a"), step("b", "a")]).definition
    others = [
        Plan(2, [step("a"), step("b", "a")]),
        Plan(1, [step("a"), step("b")]),
        Plan(1, [step("a"), step("c", "a")]),
        Plan(1, [step("a"), step("b", "a", pivot=True)]),
        Plan(1, [step("a"), step("b", "a", compensate=nothing)]),
    ]
    assert len({first, *(each.definition for each in others)}) == 6
