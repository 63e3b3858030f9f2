"""Conflicts: which of two versions of a record is in force.

A version whose author knew of the other one replaces it, whatever their stamps say. What is left
are *concurrent* versions, and only those are for a strategy to decide::

    resolve(left, right)
        left knows of right           -> left            relation "after"
        right knows of left           -> right           relation "before"
        the same                      -> left            relation "equal"
        neither knows of the other    -> strategy        relation "concurrent", and a conflict
            LastWriteWins     the later stamp
            FirstWriteWins    the record that was created first; of versions of one, the later
            Merge(fn)         a new value made of both
            Manual            none: both stay until somebody writes a version that knows of both

Guarantees:

* A winner's vector covers both versions, so the decision is taken once and for all.
* Last and first write wins are commutative, associative and idempotent: replicas that have seen
  the same versions, in any order and any number of times, have the same one in force.
* No edit is lost silently: each concurrent pair is reported, also when a strategy decided.

Not guaranteed: that the later of two concurrent edits is the better one. What must not be lost is
merged, or left to people.

Source: the orders are those of the hybrid clock (Kulkarni et al., 2014); a conflict that stays as
several versions is that of Dynamo (DeCandia et al., SOSP 2007) and CouchDB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, final, runtime_checkable

from aiopatterns.core.errors import ConflictError
from aiopatterns.core.validate import instance
from aiopatterns.data.version import Versioned

if TYPE_CHECKING:
    from aiopatterns.data.clock import Stamp
    from aiopatterns.data.vector import Relation

__all__ = [
    "Conflict",
    "FirstWriteWins",
    "LastWriteWins",
    "Manual",
    "Resolution",
    "Strategy",
    "checked_strategy",
    "joint",
    "later",
    "resolve",
]


@runtime_checkable
class Strategy(Protocol):
    """What decides between concurrent versions; users may bring their own.

    It must come to the same end whichever version is left and which is right.
    """

    def decide(self, left: Versioned, right: Versioned, base: Versioned | None) -> Versioned | None:
        """Return the version that is in force, or None if both must stay.

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

    def decide(self, left: Versioned, right: Versioned, base: Versioned | None) -> Versioned | None:
        """Return the later one."""
        return joint(later(left, right), left, right)


@final
@dataclass(frozen=True, slots=True)
class FirstWriteWins:
    """The record that was created first; between versions of one record, the later stamp.

    That tie cannot go the other way: the first of several versions of a record is the one that
    all the others have replaced.
    """

    def decide(self, left: Versioned, right: Versioned, base: Versioned | None) -> Versioned | None:
        """Return that of the record that was created first."""
        if left.created == right.created:
            return LastWriteWins().decide(left, right, base)
        return joint(left if left.created < right.created else right, left, right)


@final
@dataclass(frozen=True, slots=True)
class Manual:
    """None wins: both versions stay until somebody writes one that knows of both."""

    def decide(self, left: Versioned, right: Versioned, base: Versioned | None) -> Versioned | None:
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
    instance("base", base, (Versioned, type(None)), "a Versioned or None")
    checked_strategy(strategy)
    if left.key != right.key:
        msg = f"right must have the key of left, {left.key!r}, not {right.key!r}"
        raise ValueError(msg)
    relation = left.vector.relation(right.vector)
    if relation != "concurrent":
        return Resolution(right if relation == "before" else left, relation)
    winner = strategy.decide(left, right, base)
    return Resolution(winner, relation, Conflict(left, right))


def joint(winner: Versioned, left: Versioned, right: Versioned) -> Versioned:
    """Return ``winner`` as the version that knows of both."""
    return replace(winner, vector=left.vector.merge(right.vector))


def later(left: Versioned, right: Versioned) -> Versioned:
    """Return the one with the later stamp, the same whichever is left.

    Stamps of honest clocks differ. Where a clock was copied, what was written decides.
    """
    if left.stamp != right.stamp:
        return left if left.stamp > right.stamp else right
    return max(left, right, key=_content)


def _content(version: Versioned) -> tuple[bool, Stamp, str, str]:
    return (version.deleted, version.created, version.origin, repr(version.value))


def checked_strategy(strategy: Strategy) -> Strategy:
    """Return ``strategy`` if it is one.

    Raises:
        TypeError: It is none, or a class that was not called.
    """
    if isinstance(strategy, type):
        msg = f"strategy must be an object, not the class {strategy.__name__}; write its ()"
        raise TypeError(msg)
    return instance(
        "strategy", strategy, Strategy, "a strategy such as LastWriteWins() or Merge(fn)"
    )
