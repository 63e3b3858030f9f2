"""Edges between jobs: who waits for whom, and what to do when one has ended.

An edge leads from a job that others wait for (the parent) to one of these (the kid). A *strict*
edge cancels the kid if the parent did not end well; a loose one, as between two keep_last jobs,
only waits for the end. A parent that ends is put on the list of the ended with its kids, and the
list is worked off in bounded portions; until then its id counts as known.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiopatterns.backends.memory.queuejob import Job

__all__ = ["Edges"]


@final
class Edges:
    """The dependencies of one queue.

    Complexity: O(1) for an edge, O(n log n) for the n kids of a job that ends.
    """

    __slots__ = ("_kids", "_order", "ended", "waiting")

    def __init__(self) -> None:
        self._kids: dict[str, dict[str, bool]] = {}
        self._order: list[tuple[bool, str]] = []
        self.ended: dict[str, bool] = {}
        self.waiting: dict[str, Job] = {}

    def add(self, kid: Job, parent: str, *, strict: bool) -> None:
        """Make ``kid`` wait for ``parent``; naming a parent twice is one edge."""
        kids = self._kids.setdefault(parent, {})
        if kid.id not in kids:
            kids[kid.id] = strict
            kid.left += 1

    def remove(self, kid: Job, parents: Iterable[str]) -> None:
        """Let ``kid`` wait no longer."""
        for parent in parents:
            kids = self._kids.get(parent, {})
            if kids.pop(kid.id, None) is not None and not kids:
                del self._kids[parent]
                self.ended.pop(parent, None)
        kid.left = 0

    def end(self, parent: str, *, well: bool) -> None:
        """Note that ``parent`` has ended."""
        if parent in self._kids:
            if not self.ended:
                self._order.clear()  # what is left there was outdated
            self.ended[parent] = well
            heappush(self._order, (well, parent))

    def next_ended(self, most: int) -> tuple[bool, list[tuple[str, bool]]]:
        """Take up to ``most`` kids of the first parent on the list, which must not be empty.

        Parents that ended badly are first, and kids on a loose edge; else both go by their ids.

        Returns:
            Whether the parent ended well, and of each kid the id and whether its edge is strict.
        """
        well, parent = self._order[0]
        while self.ended.get(parent) is not well:  # an entry of an earlier end
            heappop(self._order)
            well, parent = self._order[0]
        kids = self._kids[parent]
        taken = sorted(kids, key=lambda kid: (kids[kid], kid))[:most]
        edges = [(kid, kids.pop(kid)) for kid in taken]
        if not kids:
            del self._kids[parent], self.ended[parent]
        return well, edges
