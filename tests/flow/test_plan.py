"""What a graph hands to a run, and what is refused before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.core.errors import DagError
from aiopatterns.flow.plan import Plan, Shape
from aiopatterns.flow.task import Results, Task


def first():
    return 1


def second(first):
    return first


def plan(**changed: Any) -> Plan:
    tasks: dict[str, Task[..., Any, Any]] = {"first": Task(first), "second": Task(second)}
    given: dict[str, Any] = {
        "name": "d",
        "limit": 2,
        "resources": {},
        "shape": Shape(tasks),
        "inputs": {},
        "mode": "continue",
        "store": None,
        "keep": None,
    }
    return Plan(**(given | changed))


def test_the_shape():
    shape = plan().shape
    assert shape.order == ("first", "second")
    assert shape.ranks == {"first": (0, -2, 0), "second": (0, -1, 1)}
    assert shape.results["second"] == {"first": Results(("first",), several=False)}
    with pytest.raises(DagError, match="refers to 'nobody'"):
        Shape({"first": Task(first, after=["nobody"])})


@pytest.mark.promise("flow-bad-input")
@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"inputs": {"first": 1}}, ValueError, "inputs must not have the name of a task: 'first'"),
        ({"inputs": {"dya": 1}}, ValueError, r"'dya' is none \(there are: none\)"),
        ({"mode": "hope"}, ValueError, "mode must be one of 'fail_fast', 'continue'"),
        ({"store": {}}, TypeError, "store must be an object with async get and set"),
        ({"keep": frozenset({"third"})}, ValueError, "keep must name tasks.*'third' is none"),
    ],
)
def test_bad_input(changed, error, text):
    with pytest.raises(error, match=text):
        plan(**changed)


def test_an_input_is_somebodys_parameter_unless_tasks_may_be_added():
    def third(day, run):
        return day

    shape = Shape({"first": Task(first), "third": Task(third)})
    assert plan(shape=shape, inputs={"day": 1, "later": 2}).inputs == {"day": 1, "later": 2}

    def fourth(day):
        return day

    shape = Shape({"fourth": Task(fourth)})
    with pytest.raises(ValueError, match=r"'later' is none \(there are: day\)"):
        plan(shape=shape, inputs={"day": 1, "later": 2})
