"""ORSet: a set that several nodes add to and take from at the same time.

Of a plain list nobody can tell whether ``["x"]`` against ``[]`` means that x was added there or
removed here. This set numbers each addition, and knows which additions it has seen::

    a adds x           {x: {a: 1}}  seen {a: 1}
    b takes x out      {}           seen {a: 1}      has seen that addition: x goes
    a adds x again     {x: {a: 2}}  seen {a: 2}      b has not seen this one: x stays

Guarantees: merging is commutative, associative and idempotent. An addition outlives a removal
that did not know of it. Removed elements leave nothing behind.

Not guaranteed: an order of the elements.

Source: Bieniusa et al., "An Optimized Conflict-free Replicated Set", INRIA 8083, 2012.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, final

from aiopatterns.core.validate import instance, text
from aiopatterns.data.vector import VersionVector

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ORSet", "merge_sets"]


@final
class ORSet(AbstractSet[str]):
    """A set of strings, as a value; :attr:`state` is the plain data that is stored.

    Args:
        state: What :attr:`state` was; None for an empty set.

    Raises:
        TypeError: ``state`` is no such thing.
        ValueError: An element or a name is empty, a number is negative, or an element has an
            addition that was not seen.

    Example::

        tags = ORSet().add("a", "new").add("b", "sale").remove("new")
        assert set(tags) == {"sale"}
        await store.put("tags", tags.state)
    """

    __slots__ = ("_additions", "_seen")

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        given = instance("state", {} if state is None else state, Mapping, "a mapping")
        self._seen = VersionVector(given.get("seen", {}))
        additions: Mapping[str, Any] = instance(
            "state['elements']", given.get("elements", {}), Mapping, "a mapping"
        )
        self._additions: dict[str, VersionVector] = {
            text("element", element): VersionVector(dots) for element, dots in additions.items()
        }
        for element, dots in self._additions.items():
            if not dots or not self._seen.dominates(dots):
                msg = f"state must have seen the additions of {element!r}, {dict(dots)!r}"
                raise ValueError(msg)

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        """The set as plain data."""
        elements = {each: dict(self._additions[each]) for each in sorted(self._additions)}
        return {"seen": dict(sorted(self._seen.items())), "elements": elements}

    def add(self, node: str, *elements: str) -> ORSet:
        """Return the set after ``node`` has added something.

        Args:
            node: Who adds: each node has a name of its own.
            elements: What it adds.
        """
        seen, additions = self._seen, dict(self._additions)
        for element in elements:
            seen = seen.increment(node)
            additions[text("element", element)] = VersionVector({node: seen[node]})
        return self._made(seen, additions)

    def remove(self, *elements: str) -> ORSet:
        """Return the set without ``elements``; those that are not in it do no harm."""
        gone = frozenset(elements)
        kept = {each: dots for each, dots in self._additions.items() if each not in gone}
        return self._made(self._seen, kept)

    def merge(self, other: ORSet) -> ORSet:
        """Return the set that has seen what either has."""
        instance("other", other, ORSet, "an ORSet")
        additions: dict[str, VersionVector] = {}
        for element in {**self._additions, **other._additions}:
            ours, theirs = self._dots(element), other._dots(element)
            dots = {
                node: number
                for node, number in ours.merge(theirs).items()
                if ours[node] == theirs[node]
                or number > (other._seen if number == ours[node] else self._seen)[node]
            }
            if dots:
                additions[element] = VersionVector(dots)
        return self._made(self._seen.merge(other._seen), additions)

    def __contains__(self, element: object) -> bool:
        return element in self._additions

    def __iter__(self) -> Iterator[str]:
        return iter(self._additions)

    def __len__(self) -> int:
        return len(self._additions)

    def __repr__(self) -> str:
        return f"ORSet({sorted(self._additions)!r})"

    def _dots(self, element: str) -> VersionVector:
        return self._additions.get(element, VersionVector())

    @classmethod
    def _made(cls, seen: VersionVector, additions: dict[str, VersionVector]) -> ORSet:
        """Return a set of parts that are known to fit."""
        made = cls()
        made._seen, made._additions = seen, additions
        return made

    @classmethod
    def _from_iterable(cls, elements: Any) -> Any:
        """Make what ``&``, ``|`` and ``-`` return: plain sets, which nobody merges."""
        return frozenset(elements)


def merge_sets(_base: Any, left: Any, right: Any) -> dict[str, dict[str, Any]]:
    """Merge two states of sets, for :class:`~aiopatterns.data.Merge`.

    Args:
        _base: Not needed.
        left: The state of one set.
        right: The state of another.
    """
    return ORSet(left).merge(ORSet(right)).state
