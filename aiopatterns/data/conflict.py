"""Conflicts: which of two versions of a record is in force.

A version whose author knew of the other one replaces it, whatever their stamps say. What is left
are *concurrent* versions, and only those are for a strategy to decide::

    resolve(left, right)
        left knows of right           -> left            relation "after"
        right knows of left           -> right           relation "before"
        the same                      -> the same        relation "equal"
        neither knows of the other    -> strategy        relation "concurrent", and a conflict
            LastWriteWins     the later stamp
            FirstWriteWins    the record that was created first; of versions of one, the later
            Merge(fn)         a new value made of both
            Manual            none: both stay until somebody writes a version that knows of both

    reconcile(versions)       the same for any number: one version, or all that stay

Guarantees, for versions written by the rules of :class:`~aiopatterns.data.Versioned`:

* A winner's vector covers both versions, so the decision is taken once and for all.
* Every strategy here is commutative, associative and idempotent: replicas that have seen the same
  versions, in any order and any number of times, have the same in force.
* No edit is lost silently: each concurrent pair is reported, also when a strategy decided.

Why that holds. Of the written versions that a replica has seen, those count of which no other one
knows, the *frontier*; a vector says which they are. The frontier of two sets together does not
depend on the order in which they were put together. ``Manual`` keeps the frontier. ``Merge`` keeps
it as the parts of what it makes, and works that out from them alone, always in the same order, so
*any* function will do that gives the same value for the same arguments. The other two take the
greatest of a total order in which a version is greater than all that it knows of; so the greatest
of all is in the frontier, and what lost can be forgotten.

Not guaranteed: that the later of two concurrent edits is the better one. What must not be lost is
merged, or left to people.

Source: the orders are those of the hybrid clock (Kulkarni et al., 2014); a conflict that stays as
several versions is that of Dynamo (DeCandia et al., SOSP 2007), and the frontier as a state is
that of Preguica et al., "Dotted Version Vectors", 2010.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cmp_to_key
from typing import TYPE_CHECKING, Any, Final, Protocol, final, runtime_checkable

import msgspec

from aiopatterns.core.errors import ConflictError
from aiopatterns.core.validate import instance
from aiopatterns.data.version import Versioned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiopatterns.data.clock import Stamp
    from aiopatterns.data.vector import Relation, VersionVector

__all__ = [
    "Conflict",
    "FirstWriteWins",
    "LastWriteWins",
    "Manual",
    "Resolution",
    "Strategy",
    "frontier",
    "reconcile",
    "resolve",
]

# What does not depend on the order of a mapping or a set.
_encode: Final = msgspec.msgpack.Encoder(enc_hook=repr, order="deterministic").encode


@runtime_checkable
class Strategy(Protocol):
    """What decides between concurrent versions; users may bring their own.

    Replicas come to the same end if it returns the greater in a total order in which a version is
    greater than all that it knows of, or always None.
    """

    def decide(
        self, left: Versioned, right: Versioned, base: Versioned | None, /
    ) -> Versioned | None:
        """Return the version that is in force, or None if both must stay.

        It need not cover both: that is seen to.

        Args:
            left: One version.
            right: Another one of the same key, concurrent to it.
            base: The last version that both knew of, if that is known.
        """
        ...


@final
@dataclass(frozen=True, slots=True)
class Conflict:
    """Two versions whose authors did not know of each other.

    Attributes:
        left: One version.
        right: The other one.
    """

    left: Versioned
    right: Versioned

    @property
    def key(self) -> str:
        """Which record."""
        return self.left.key


@final
@dataclass(frozen=True, slots=True)
class Resolution:
    """What :func:`resolve` came to.

    Attributes:
        winner: The version in force; its vector covers both. None if both must stay.
        relation: How the left version stands to the right one.
        conflict: The pair, if it is concurrent.
    """

    winner: Versioned | None
    relation: Relation
    conflict: Conflict | None = None

    def settled(self) -> Versioned:
        """Return the winner.

        Raises:
            ConflictError: There is none.
        """
        if self.winner is None:
            key = self.conflict.key if self.conflict is not None else ""
            raise ConflictError(key=key)
        return self.winner


@final
@dataclass(frozen=True, slots=True)
class LastWriteWins:
    """The version with the later stamp; at equal times the node's name decides."""

    def decide(
        self, left: Versioned, right: Versioned, _base: Versioned | None, /
    ) -> Versioned | None:
        """Return the later one."""
        return max(left, right, key=_order)


@final
@dataclass(frozen=True, slots=True)
class FirstWriteWins:
    """The record that was created first; between versions of one record, the later stamp.

    That tie cannot go the other way: the first of several versions of a record is the one that
    all the others have replaced.
    """

    def decide(
        self, left: Versioned, right: Versioned, _base: Versioned | None, /
    ) -> Versioned | None:
        """Return that of the record that was created first."""
        if left.created == right.created:
            return max(left, right, key=_order)
        return min(left, right, key=_created)


@final
@dataclass(frozen=True, slots=True)
class Manual:
    """None wins: both versions stay until somebody writes one that knows of both."""

    def decide(
        self, _left: Versioned, _right: Versioned, _base: Versioned | None, /
    ) -> Versioned | None:
        """Return None."""
        return None


def resolve(
    left: Versioned,
    right: Versioned,
    *,
    strategy: Strategy,
    base: Versioned | None = None,
) -> Resolution:
    """Decide which of two versions of a record is in force.

    Args:
        left: One version.
        right: Another version of the same key.
        strategy: Decides if they are concurrent.
        base: The last version that both knew of, for strategies that merge.

    Returns:
        The winner, how left stands to right, and the conflict if there is one.

    Raises:
        ValueError: The keys differ.
        TypeError: A value is of another type.
        Exception: What the function of a merge raises.

    Complexity: O(nodes), and what the strategy needs.

    Example::

        found = resolve(ours, theirs, strategy=LastWriteWins())
        if found.conflict is not None:
            log.warning("both have changed %s", found.conflict.key)
    """
    for name, each in (("left", left), ("right", right)):
        instance(name, each, Versioned, "a Versioned")
    _check(strategy, base)
    if left.key != right.key:
        msg = f"right must have the key of left, {left.key!r}, not {right.key!r}"
        raise ValueError(msg)
    relation = left.vector.relation(right.vector)
    if relation != "concurrent":
        known = {"after": left, "before": right, "equal": max(left, right, key=_order)}
        return Resolution(known[relation], relation)
    winner = strategy.decide(left, right, base)
    if winner is not None:
        winner = _covering(winner, left.vector.merge(right.vector))
    return Resolution(winner, relation, Conflict(left, right))


def reconcile(
    versions: Iterable[Versioned], *, strategy: Strategy, base: Versioned | None = None
) -> tuple[Versioned, ...]:
    """Return what is in force, of any number of versions of a record.

    Args:
        versions: In any order, and any number of times.
        strategy: Decides between concurrent ones.
        base: The last version that all knew of, for strategies that merge.

    Returns:
        One version, or all that stay in conflict: those that are not deleted first, and of these
        the latest. So the first is what to show while nobody has decided, the same on each node.

    Raises:
        ValueError: There is no version, or the keys differ.
        TypeError: A value is of another type.
        Exception: What the function of a merge raises.

    Complexity: O(versions squared times nodes), and what the strategy needs.

    Example::

        shown, *others = reconcile((*stored, *received), strategy=Manual())
    """
    _check(strategy, base)
    leaves = frontier(versions)
    winner = leaves[0]
    for each in leaves[1:]:
        found = resolve(winner, each, strategy=strategy, base=base).winner
        if found is None:
            return tuple(sorted(leaves, key=_showing, reverse=True))
        winner = found
    return (winner,)


def frontier(versions: Iterable[Versioned]) -> tuple[Versioned, ...]:
    """Return the written versions of which no other one knows, in the order of their stamps.

    Args:
        versions: Of one record, in any order; of merged ones the parts count.

    Raises:
        ValueError: There is no version, or the keys differ.
        TypeError: One is no Versioned.
    """
    written: list[Versioned] = []
    for each in versions:
        written += instance("a version", each, Versioned, "a Versioned").parts or (each,)
    if len({each.key for each in written}) != 1:
        msg = f"versions must be of one record, not of {sorted({each.key for each in written})}"
        raise ValueError(msg)
    kept: list[Versioned] = []
    for each in sorted(written, key=_order):
        if not any(_replaced(each, other) for other in written) and each not in kept:
            kept.append(each)
    return tuple(kept)


def _replaced(version: Versioned, other: Versioned) -> bool:
    """Whether ``other`` knows of ``version``; of versions with one vector the greater stays."""
    if version.vector == other.vector:
        return _compare(version, other) < 0
    return other.vector.dominates(version.vector)


def _covering(winner: Versioned, vector: VersionVector) -> Versioned:
    instance("what decide returns", winner, Versioned, "a Versioned or None")
    if winner.vector == vector:
        return winner
    return replace(winner, vector=vector, parts=())


def _compare(left: Versioned, right: Versioned) -> int:
    """Order versions by their stamps.

    Stamps of honest clocks differ. Where a clock was copied, what was written decides.
    """
    ours, theirs = _written(left), _written(right)
    if ours != theirs:
        return 1 if ours > theirs else -1
    if left.value is right.value:
        return 0
    one, other = _encode(left.value), _encode(right.value)
    return (one > other) - (one < other)


def _written(version: Versioned) -> tuple[Stamp, bool, Stamp, str]:
    return (version.stamp, version.deleted, version.created, version.origin)


_order: Final = cmp_to_key(_compare)


def _created(version: Versioned) -> Stamp:
    return version.created


def _showing(version: Versioned) -> tuple[bool, Any]:
    return (not version.deleted, _order(version))


def _check(strategy: Strategy, base: Versioned | None) -> None:
    if isinstance(strategy, type):
        msg = f"strategy must be an object, not the class {strategy.__name__}; write its ()"
        raise TypeError(msg)
    allowed = "a strategy such as LastWriteWins() or Merge(fn)"
    instance("strategy", strategy, Strategy, allowed)
    instance("base", base, (Versioned, type(None)), "a Versioned or None")
