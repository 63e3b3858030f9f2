"""Merging: a value that holds what both writers wanted.

Last write wins loses one of two concurrent edits. Where that must not happen, a function makes a
new value out of both, and out of the last one that both writers knew, if there is one::

    base     {"name": "Ann", "city": "Rome"}
    left     {"name": "Ann", "city": "Oslo"}  --.
                                                 +--> {"name": "Anna", "city": "Oslo"}
    right    {"name": "Anna", "city": "Rome"} --'

:func:`three_way` does that for records, :func:`merge_fields` has a function for each field, and
:func:`merge_registers` lets the later one win field by field. Counters and sets that are edited on
several nodes are :class:`~aiopatterns.data.PNCounter` and :class:`~aiopatterns.data.ORSet`.

Guarantees:

* Without a base, :func:`merge_registers`, :func:`merge_counters` and :func:`merge_sets`, and
  :func:`merge_fields` over these, are commutative, associative and idempotent.
* An edit outlives a deletion that did not know of it, of a record as of a field.
* What cannot be merged stays in conflict: :class:`~aiopatterns.core.errors.ConflictError` leaves
  both versions, as :class:`~aiopatterns.data.Manual` does.

Not guaranteed: the same for functions of your own. They must come to the same value with left and
right exchanged, for each node merges what it has.

Source: three-way merges as in diff3 (Khanna, Kunal and Pierce, "A Formal Investigation of Diff3",
2007); registers, counters and sets: Shapiro et al., "Conflict-free Replicated Data Types", 2011.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias, final

from aiopatterns.core.errors import ConflictError
from aiopatterns.core.validate import instance, plain_function
from aiopatterns.data.clock import Stamp
from aiopatterns.data.conflict import LastWriteWins, joint, later
from aiopatterns.data.version import Versioned

__all__ = ["Merge", "MergeFunction", "merge_fields", "merge_registers", "register", "three_way"]

#: ``fn(base, left, right)``, of values; ``base`` is None where it is not known.
MergeFunction: TypeAlias = Callable[[Any, Any, Any], Any]

_ABSENT: Final = object()


@final
@dataclass(frozen=True, slots=True)
class Merge:
    """A strategy: the value is made of both.

    Args:
        fn: ``fn(base, left, right)`` returns the value; ``base`` is the last one that both knew,
            or None. It gets plain data and must not change it. A ConflictError of it leaves both
            versions in conflict.

    Raises:
        TypeError: ``fn`` is no plain function.

    Example::

        Merge(lambda base, left, right: max(left, right))
    """

    fn: MergeFunction

    def __post_init__(self) -> None:
        plain_function("fn", self.fn)

    def decide(self, left: Versioned, right: Versioned, base: Versioned | None) -> Versioned | None:
        """Return a version with the value of both, None if the function finds none."""
        if left.deleted and right.deleted:
            return LastWriteWins().decide(left, right, base)
        if left.deleted or right.deleted:
            return joint(right if left.deleted else left, left, right)
        known = None if base is None or base.deleted else base.value
        try:
            value = self.fn(known, left.value, right.value)
        except ConflictError:
            return None
        created = min(left.created, right.created)
        return replace(joint(later(left, right), left, right), value=value, created=created)


def three_way(base: Any, left: Any, right: Any) -> Any:
    """Take from each side what it has changed; mappings are merged key by key, at any depth.

    Args:
        base: The last value that both knew, or None.
        left: One value.
        right: The other one.

    Raises:
        ConflictError: Both have changed the same thing in different ways.
    """
    if left == right or right == base:
        return left
    if left == base:
        return right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        known: Any = base if isinstance(base, Mapping) else None
        return _merged(known, left, right, lambda _: three_way)
    raise ConflictError(f"both have changed {base!r}: to {left!r}, and to {right!r}")


def merge_fields(
    fields: Mapping[str, MergeFunction], *, other: MergeFunction = three_way
) -> MergeFunction:
    """Make a function for mappings that merges each field in its own way.

    A field that one side lacks was removed there, if the other side still has it as it was in the
    base; else it is kept.

    Args:
        fields: Functions by the names of fields.
        other: For all other fields.

    Raises:
        TypeError: One is no plain function.

    Example::

        Merge(merge_fields({"visits": merge_counters, "tags": merge_sets}))
    """
    instance("fields", fields, Mapping, "a mapping of names to functions")
    ways = {name: plain_function(f"fields[{name!r}]", fn) for name, fn in fields.items()}
    plain_function("other", other)

    def merge(base: Any, left: Any, right: Any) -> Any:
        for each in (left, right):
            instance("value", each, Mapping, "a mapping, for merge_fields")
        known = base if isinstance(base, Mapping) else None
        return _merged(known, left, right, lambda name: ways.get(name, other))

    return merge


def register(value: Any, stamp: Stamp) -> dict[str, Any]:
    """Return a field that says when it was written, for :func:`merge_registers`.

    Args:
        value: Plain data.
        stamp: From the clock of the writer.
    """
    instance("stamp", stamp, Stamp, "a Stamp")
    return {"value": value, "stamp": list(stamp)}


def merge_registers(base: Any, left: Any, right: Any) -> Any:
    """Return the register that was written later.

    Args:
        base: Not needed.
        left: What :func:`register` made.
        right: Another one.
    """
    return max(left, right, key=_written)


def _written(made: Mapping[str, Any]) -> Stamp:
    return Stamp(*made["stamp"])


def _merged(
    base: Mapping[Any, Any] | None,
    left: Mapping[Any, Any],
    right: Mapping[Any, Any],
    way: Callable[[Any], MergeFunction],
) -> dict[Any, Any]:
    known: Mapping[Any, Any] = {} if base is None else base
    merged: dict[Any, Any] = {}
    for name in {**left, **right}:
        was = known.get(name, _ABSENT)
        ours, theirs = left.get(name, _ABSENT), right.get(name, _ABSENT)
        if ours is _ABSENT or theirs is _ABSENT:
            there = theirs if ours is _ABSENT else ours
            if there != was:
                merged[name] = there
            continue
        merged[name] = way(name)(None if was is _ABSENT else was, ours, theirs)
    return merged
