"""The pure graph under a task graph: who must end before whom. No functions, no time, no loop.

::

    extract --> clean --> load          order()    extract, clean, audit, load
        `-----> audit ------^           heights()  extract 3, clean 2, audit 2, load 1

Edges point in the direction of time. ``heights`` counts the tasks on the longest way from a task
to the end, itself included; a scheduler that takes the highest first works on the critical path.

Complexity: everything that looks at the whole graph is O(tasks + edges), without recursion.

Source: Kahn, "Topological sorting of large networks", 1962; critical path method, Kelley and
Walker, 1959.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, final

from aiopatterns.core.errors import CycleError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = ["Graph"]


@final
class Graph:
    """A directed graph of names that must have no cycle.

    Args:
        edges: For each node the nodes that must end before it; each of them is a node itself.
    """

    __slots__ = ("_after", "_before")

    def __init__(self, edges: Mapping[str, Iterable[str]] | None = None) -> None:
        self._before: dict[str, dict[str, None]] = {}
        self._after: dict[str, dict[str, None]] = {}
        for node in edges or ():
            self.add(node)
        for node, earlier in (edges or {}).items():
            for each in earlier:
                self.connect(each, node)

    def __len__(self) -> int:
        return len(self._before)

    def add(self, node: str) -> None:
        """Add a node without edges."""
        self._before[node] = {}
        self._after[node] = {}

    def connect(self, first: str, then: str) -> None:
        """Add an edge, unchecked: ``first`` must end before ``then`` starts."""
        self._after[first][then] = None
        self._before[then][first] = None

    def before(self, node: str) -> Collection[str]:
        """Return the nodes that must end before ``node``."""
        return self._before[node]

    def after(self, node: str) -> Collection[str]:
        """Return the nodes that wait for ``node``."""
        return self._after[node]

    @property
    def edges(self) -> list[tuple[str, str]]:
        """Every edge, from the node that ends first to the one that waits for it. O(edges)."""
        return [(first, then) for first, after in self._after.items() for then in after]

    def copy(self) -> Graph:
        """Return a graph of its own with the same nodes and edges."""
        twin = Graph()
        twin._before = {node: dict(edges) for node, edges in self._before.items()}
        twin._after = {node: dict(edges) for node, edges in self._after.items()}
        return twin

    def order(self) -> list[str]:
        """Return all nodes, each behind those that must end before it; ties as they were added.

        Raises:
            CycleError: There is a cycle; its path is in the error.
        """
        waits = {node: len(edges) for node, edges in self._before.items()}
        ready = deque(node for node, count in waits.items() if not count)
        order: list[str] = []
        while ready:
            node = ready.popleft()
            order.append(node)
            for each in self._after[node]:
                waits[each] -= 1
                if not waits[each]:
                    ready.append(each)
        if len(order) < len(waits):
            raise CycleError(path=self._cycle({node for node, count in waits.items() if count}))
        return order

    def heights(self) -> dict[str, int]:
        """Return for each node how many are on the longest way from it to the end.

        Raises:
            CycleError: There is a cycle.
        """
        heights: dict[str, int] = {}
        for node in reversed(self.order()):
            heights[node] = 1 + max((heights[each] for each in self._after[node]), default=0)
        return heights

    def path(self, start: str, goal: str) -> list[str] | None:
        """Return a shortest way along the edges from ``start`` to ``goal``, or None.

        An edge from ``goal`` to ``start`` would close a cycle exactly if there is one.
        """
        came: dict[str, str | None] = {start: None}
        ahead = deque([start])
        while ahead and goal not in came:
            node = ahead.popleft()
            for each in self._after[node]:
                if each not in came:
                    came[each] = node
                    ahead.append(each)
        if goal not in came:
            return None
        way: list[str] = []
        step: str | None = goal
        while step is not None:
            way.append(step)
            step = came[step]
        return way[::-1]

    def _cycle(self, stuck: set[str]) -> list[str]:
        """Walk back from any node that can never start: within those, until one comes again."""
        node = min(stuck)
        seen: dict[str, None] = {}
        while node not in seen:
            seen[node] = None
            node = next(each for each in self._before[node] if each in stuck)
        walked = list(seen)
        return [node, *reversed(walked[walked.index(node) :])]
