"""PNCounter: a number that several nodes count up and down at the same time.

``value + 1`` on two nodes is one more after a merge, not two. A counter keeps, for each node, how
much it has added and how much it has taken; a merge takes the greater number of each::

    a: {a: [3, 0]}            --.
                                 +-->  {a: [3, 0], b: [2, 1]}  = 4
    b: {a: [1, 0], b: [2, 1]} --'

Guarantees: merging is commutative, associative and idempotent, and no count is lost or doubled.

Not guaranteed: a bound. A counter can go below 0 when two nodes take at the same time.

Source: Shapiro et al., "Conflict-free Replicated Data Types", SSS 2011.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.core.validate import count, instance, text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PNCounter", "merge_counters"]

_NONE: Final = (0, 0)


@final
class PNCounter:
    """A counter, as a value; :attr:`state` is the plain data that is stored.

    Args:
        state: What :attr:`state` was; None for a fresh counter.

    Raises:
        TypeError: ``state`` is no such thing.
        ValueError: A count is negative.

    Example::

        counter = PNCounter().add("a", 3).add("b", -1)
        assert counter.value == 2
        await store.put("stock", counter.state)
    """

    __slots__ = ("_counts",)

    def __init__(self, state: Mapping[str, Sequence[int]] | None = None) -> None:
        allowed = "a mapping of names to [added, taken]"
        given = instance("state", {} if state is None else state, Mapping, allowed)
        self._counts: dict[str, tuple[int, int]] = {}
        for node, pair in given.items():
            text("node", node)
            if not isinstance(pair, (list, tuple)) or len(pair) != len(_NONE):
                msg = f"state[{node!r}] must be [added, taken], not {pair!r}"
                raise TypeError(msg)
            both = count("added", pair[0], minimum=0), count("taken", pair[1], minimum=0)
            if both != _NONE:
                self._counts[node] = both

    @property
    def value(self) -> int:
        """The number."""
        return sum(added - taken for added, taken in self._counts.values())

    @property
    def state(self) -> dict[str, list[int]]:
        """The counter as plain data."""
        return {node: list(pair) for node, pair in sorted(self._counts.items())}

    def add(self, node: str, amount: int = 1) -> PNCounter:
        """Return the counter after ``node`` has added something.

        Args:
            node: Who counts: each node has a name of its own.
            amount: A whole number, also a negative one.
        """
        text("node", node)
        if isinstance(amount, bool) or not isinstance(amount, int):
            msg = f"amount must be a whole number, not {amount!r}"
            raise TypeError(msg)
        added, taken = self._counts.get(node, _NONE)
        pair = (added + amount, taken) if amount > 0 else (added, taken - amount)
        return PNCounter({**self._counts, node: pair})

    def merge(self, other: PNCounter) -> PNCounter:
        """Return the counter that has counted what either has."""
        instance("other", other, PNCounter, "a PNCounter")
        merged = dict(self._counts)
        for node, (added, taken) in other._counts.items():
            ours = merged.get(node, _NONE)
            merged[node] = (max(added, ours[0]), max(taken, ours[1]))
        return PNCounter(merged)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PNCounter) and self._counts == other._counts

    def __hash__(self) -> int:
        return hash(frozenset(self._counts.items()))

    def __repr__(self) -> str:
        return f"PNCounter({self.state!r})"


def merge_counters(_base: Any, left: Any, right: Any) -> dict[str, list[int]]:
    """Merge two states of counters, for :class:`~aiopatterns.data.Merge`.

    Args:
        _base: Not needed.
        left: The state of one counter.
        right: The state of another.
    """
    return PNCounter(left).merge(PNCounter(right)).state
