"""What a graph hands to one of its runs: checked and complete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

from aiopatterns.core.validate import choice, instance
from aiopatterns.flow.checkpoint import ResultStore
from aiopatterns.flow.graph import Graph
from aiopatterns.flow.task import edges, results

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.flow.ready import Rank
    from aiopatterns.flow.task import AnyTask, Results

__all__ = ["Mode", "Plan", "Shape"]

Mode: TypeAlias = Literal["fail_fast", "continue"]


@final
class Shape:
    """What follows from the tasks of a graph alone, worked out once for all its runs.

    Args:
        tasks: Every task by its id, in the order of their declaration.

    Raises:
        CycleError: Tasks wait for each other.
        DagError: A task refers to one that is none of this graph.
    """

    __slots__ = ("graph", "order", "ranks", "results", "tasks")

    def __init__(self, tasks: Mapping[str, AnyTask[Any]]) -> None:
        self.tasks: dict[str, AnyTask[Any]] = dict(tasks)
        self.results: dict[str, dict[str, Results]] = {
            name: results(task, tasks) for name, task in tasks.items()
        }
        self.graph: Graph = Graph(
            {name: edges(task, self.results[name], tasks) for name, task in tasks.items()}
        )
        self.order: tuple[str, ...] = tuple(self.graph.order())
        heights = self.graph.heights()
        self.ranks: dict[str, Rank] = {
            name: (-task.priority, -heights[name], number)
            for number, (name, task) in enumerate(tasks.items())
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a graph hands to a run.

    Args:
        name: The graph's name.
        limit: How many tasks run at once.
        resources: Capacity of each resource.
        shape: The tasks, and who waits for whom.
        inputs: The inputs.
        mode: What a failure means.
        store: Where results are kept, or None.
        keep: Ids of the tasks whose results are kept to the end; None keeps all.
    """

    name: str
    limit: int
    resources: Mapping[str, int]
    shape: Shape
    inputs: Mapping[str, object]
    mode: Mode
    store: ResultStore | None
    keep: frozenset[str] | None

    def __post_init__(self) -> None:
        shadowed = self.inputs.keys() & self.shape.tasks.keys()
        if shadowed:
            raise ValueError(f"inputs must not have the name of a task: {min(shadowed)!r}")
        self._check_inputs()
        choice("mode", self.mode, ("fail_fast", "continue"))
        if self.store is not None:
            instance("store", self.store, ResultStore, "an object with async get and set")
        for unknown in sorted((self.keep or frozenset()) - self.shape.tasks.keys()):
            raise ValueError(f"keep must name tasks of this graph; {unknown!r} is none")

    def _check_inputs(self) -> None:
        """Refuse an input that no task takes; a task that takes the run may add one that does."""
        taken = {name for task in self.shape.tasks.values() for name in task.parameters}
        unknown = sorted(self.inputs.keys() - taken)
        if unknown and "run" not in taken:
            known = ", ".join(sorted(taken - self.shape.tasks.keys())) or "none"
            raise ValueError(
                f"inputs must name parameters of tasks; {unknown[0]!r} is none (there are: {known})"
            )
