"""A task in one run: what it needs, and when it ran."""

from __future__ import annotations

from typing import Any

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.flow.node import UNSETTLED, Node, Span, TaskState, needed
from aiopatterns.flow.task import Given, Live, Results, Task
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import simulate


def work(x):
    return x


def node(**bindings: Any) -> Node:
    retry = Retry(on=OSError) if bindings else None
    task: Task[..., Any, Any] = Task(work, resources={"db": 1}, retry=retry)
    return Node(task, bindings, (0, 0, 0), 0)


def test_what_it_needs():
    several = Results(("a", "b", "a"), several=True)
    assert needed({"x": several, "y": Given(1)}) == {"a", "b"}
    assert node(x=several).needs == {"a", "b"}
    assert node(x=Live()).adds_tasks()
    assert not node(x=Given(1)).adds_tasks()
    assert node().resources == {"db": 1}


def test_when_it_ran():
    async def scenario():
        node().begin()
        each = node(x=Given(1))
        assert each.state in UNSETTLED
        await sleep(1)
        each.begin()
        await sleep(2)
        each.begin()
        await sleep(3)
        each.state, each.ended = TaskState.OK, monotonic()
        assert each.state not in UNSETTLED
        assert each.span(0.5) == Span("work", TaskState.OK, 0.5, 5.5, 0, 2)

    simulate(scenario)
