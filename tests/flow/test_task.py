"""A task: where its arguments come from, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.core.errors import DagError
from aiopatterns.flow.task import Given, Live, Results, Task, bind, check_new, edges, results
from aiopatterns.resilience.retry import Retry


def extract(day):
    return [day]


async def load(extract, day="today", *, run=None, **more):
    return extract


def no_names(x, /):
    return x


EXTRACT: Task[..., Any, Any] = Task(extract)
WRONG: Any = 3


def test_a_task_is_still_the_function():
    assert EXTRACT("now") == ["now"]
    assert repr(EXTRACT) == "Task('extract')"
    assert EXTRACT.fn is extract
    assert not EXTRACT.asynchronous
    assert Task(load).asynchronous


def test_where_arguments_come_from():
    task: Task[..., Any, Any] = Task(load)
    known = {"extract": EXTRACT, "load": task}
    assert bind(task, results(task, known), {}) == {
        "extract": Results(("extract",), several=False),
        "run": Live(),
    }
    assert bind(task, results(task, known), {"day": "d", "run": 1}) == {
        "extract": Results(("extract",), several=False),
        "day": Given("d"),
        "run": Given(1),
    }
    with pytest.raises(DagError, match="task 'extract' needs 'day': no task and no input"):
        bind(EXTRACT, results(EXTRACT, known), {})


def test_explicit_arguments():
    many: Task[..., Any, Any] = Task(
        load, args={"extract": [EXTRACT, EXTRACT], "day": (), "other": EXTRACT, "n": [1, EXTRACT]}
    )
    known = {"extract": EXTRACT, "load": many}
    assert bind(many, results(many, known), {"day": "d"}) == {
        "extract": Results(("extract", "extract"), several=True),
        "other": Results(("extract",), several=False),
        "day": Given(()),
        "n": Given([1, EXTRACT]),
        "run": Live(),
    }
    assert edges(many, results(many, known), known) == ["extract"]


def test_unknown_tasks_are_refused():
    other: Task[..., Any, Any] = Task(extract)
    with pytest.raises(DagError, match="'load' refers to 'extract', which is no task"):
        edges(Task(load, after=["extract"]), {}, {})
    with pytest.raises(DagError, match="refers to 'extract'"):
        edges(Task(load, args={"extract": other}), {}, {"extract": EXTRACT})
    assert edges(Task(load, after=[EXTRACT, "extract"]), {}, {"extract": EXTRACT}) == ["extract"]


def test_names_and_capacities():
    with pytest.raises(DagError, match="there is a task 'extract' already"):
        check_new(EXTRACT, {"extract": 1}, {})
    greedy: Task[..., Any, Any] = Task(extract, resources={"db": 2})
    check_new(greedy, {}, {"db": 2})
    with pytest.raises(ValueError, match=r"resources\['db'\] of task 'extract' must be at most"):
        check_new(greedy, {}, {})


@pytest.mark.promise("flow-bad-input")
@pytest.mark.parametrize(
    ("fn", "options", "error", "text"),
    [
        (3, {}, TypeError, "fn must be a function"),
        (no_names, {}, TypeError, "positional-only parameter 'x'"),
        (extract, {"id": ""}, ValueError, "id must be a non-empty"),
        (max, {}, TypeError, "fn must be a function that tells its parameters"),
        (extract, {"args": 3}, TypeError, "args must be a mapping"),
        (extract, {"args": []}, TypeError, "args must be a mapping"),
        (extract, {"args": {"night": 1}}, TypeError, "args names 'night', which is no parameter"),
        (extract, {"after": "load"}, TypeError, "after must be a list of tasks"),
        (extract, {"after": EXTRACT}, TypeError, "after must be a list"),
        (extract, {"after": 3}, TypeError, "after must be a list of tasks or ids, not 3"),
        (
            extract,
            {"after": [3]},
            TypeError,
            "after must be a list of tasks or ids, not one with 3",
        ),
        (extract, {"retry": 3}, TypeError, "retry must be a Retry"),
        (extract, {"timeout": 0}, ValueError, "timeout must be"),
        (extract, {"priority": "high"}, TypeError, "priority must be a whole number"),
        (extract, {"priority": True}, TypeError, "priority must be a whole number, not True"),
        (
            extract,
            {"resources": {"db": 0}},
            ValueError,
            r"resources\['db'\] must be a whole number",
        ),
        (extract, {"resources": {3: 1}}, TypeError, "a name in resources must be a non-empty"),
        (extract, {"resources": [1]}, TypeError, "resources must be a mapping of names to amounts"),
        (extract, {"colour": 3}, TypeError, "colour"),
        (Retry, {"id": ""}, ValueError, "id must be"),
    ],
)
def test_bad_input(fn, options, error, text):
    with pytest.raises(error, match=text):
        Task(fn, **options)
