"""What a graph hands to one of its runs: checked, complete, and the run's own to extend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from aiopatterns.core.validate import choice, instance
from aiopatterns.flow.checkpoint import ResultStore
from aiopatterns.flow.graph import Graph
from aiopatterns.flow.task import edges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.flow.task import AnyTask

__all__ = ["Mode", "Plan"]

Mode: TypeAlias = Literal["fail_fast", "continue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a graph hands to a run.

    Args:
        name: The graph's name.
        limit: How many tasks run at once.
        resources: Capacity of each resource.
        tasks: Every task by its id, in the order of their declaration.
        inputs: The inputs.
        mode: What a failure means.
        store: Where results are kept, or None.
        keep: Ids of the tasks whose results are kept to the end; None keeps all.
    """

    name: str
    limit: int
    resources: Mapping[str, int]
    tasks: dict[str, AnyTask[Any]]
    inputs: Mapping[str, object]
    mode: Mode
    store: ResultStore | None
    keep: frozenset[str] | None

    def __post_init__(self) -> None:
        shadowed = self.inputs.keys() & self.tasks.keys()
        if shadowed:
            raise ValueError(f"inputs must not have the name of a task: {min(shadowed)!r}")
        choice("mode", self.mode, ("fail_fast", "continue"))
        if self.store is not None:
            instance("store", self.store, ResultStore, "an object with async get and set")
        for unknown in sorted((self.keep or frozenset()) - self.tasks.keys()):
            raise ValueError(f"keep must name tasks of this graph; {unknown!r} is none")

    def graph(self) -> Graph:
        """Return who waits for whom.

        Raises:
            DagError: A task refers to one that is none of this graph.
        """
        return Graph({name: edges(task, self.tasks) for name, task in self.tasks.items()})
