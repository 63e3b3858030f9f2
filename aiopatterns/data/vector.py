"""Version vectors: which version knows of which.

Two nodes change one record. A time stamp says which change came later, but not whether its author
had seen the other one; a version vector says exactly that. It counts, for each node, the changes
that are in a version::

    {a: 1} --- b edits ---> {a: 1, b: 1}      after: b knew of a's change
       `------ a edits ---> {a: 2}            concurrent to b's: neither knows of the other

Guarantees: vectors are values, equal if and only if they count the same; merging them is
commutative, associative and idempotent.

Not guaranteed: a bound on their size. A vector has an entry for every node that has ever changed
the record.

Source: Parker et al., "Detection of Mutual Inconsistency in Distributed Systems", IEEE TSE 1983.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

from aiopatterns.core.validate import count, instance, text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Relation", "VersionVector"]

#: How the left one of two versions stands to the right one.
Relation: TypeAlias = Literal["equal", "before", "after", "concurrent"]

_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


@final
class VersionVector(Mapping[str, int]):
    """Changes per node; a node that is not in it has made none.

    Args:
        counts: Changes by the name of the node, 0 or more.

    Raises:
        TypeError: ``counts`` is no mapping of names to whole numbers.
        ValueError: A name is empty, or a number negative.

    Complexity: O(nodes) for everything but looking up one node.

    Example::

        ours = VersionVector({"a": 1}).increment("a")
        theirs = VersionVector({"a": 1, "b": 1})
        assert ours.relation(theirs) == "concurrent"
        assert ours.merge(theirs) == VersionVector({"a": 2, "b": 1})
    """

    __slots__ = ("_counts",)

    def __init__(self, counts: Mapping[str, int] = _NOTHING) -> None:
        instance("counts", counts, Mapping, "a mapping of names to whole numbers")
        self._counts = {
            text("node", node): number
            for node, number in counts.items()
            if count(f"count of {node!r}", number, minimum=0)
        }

    def increment(self, node: str) -> VersionVector:
        """Return this vector with one more change of ``node``."""
        return self.raised(node, self[node] + 1)

    def raised(self, node: str, number: int) -> VersionVector:
        """Return this vector with ``number`` changes of ``node``, if it counts fewer.

        Args:
            node: Name of the node.
            number: 0 or more. Whoever numbers the changes of a node over all records gives each
                version a number that no other version has, also when the record was forgotten.
        """
        return self.merge(VersionVector({node: number}))

    def merge(self, other: VersionVector) -> VersionVector:
        """Return the vector that knows what either knows."""
        instance("other", other, VersionVector, "a VersionVector")
        merged = dict(self._counts)
        for node, number in other._counts.items():
            if number > merged.get(node, 0):
                merged[node] = number
        return self._made(merged)

    def dominates(self, other: VersionVector) -> bool:
        """Whether this knows of every change that ``other`` knows of; so it does of its own."""
        instance("other", other, VersionVector, "a VersionVector")
        mine = self._counts
        return all(number <= mine.get(node, 0) for node, number in other._counts.items())

    def relation(self, other: VersionVector) -> Relation:
        """Return how this stands to ``other``: before it, after it, equal or concurrent."""
        newer, older = self.dominates(other), other.dominates(self)
        if newer:
            return "equal" if older else "after"
        return "before" if older else "concurrent"

    def __getitem__(self, node: str) -> int:
        """Return the changes of ``node``, 0 if there are none."""
        return self._counts.get(node, 0)

    def __contains__(self, node: object) -> bool:
        return node in self._counts

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VersionVector) and self._counts == other._counts

    def __hash__(self) -> int:
        return hash(frozenset(self._counts.items()))

    def __repr__(self) -> str:
        return f"VersionVector({dict(sorted(self._counts.items()))!r})"

    @classmethod
    def _made(cls, counts: dict[str, int]) -> VersionVector:
        """Return a vector of counts that were checked before."""
        vector = cls()
        vector._counts = counts
        return vector
