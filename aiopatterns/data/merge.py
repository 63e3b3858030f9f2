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

* Whatever the function is: replicas that have seen the same versions have the same value. It is
  called for the written versions that are concurrent, the earlier ones first; what was merged
  before is never merged again, but worked out anew from its parts.
* An edit outlives a deletion that did not know of it, of a record as of a field.
* What cannot be merged stays in conflict: :class:`~aiopatterns.core.errors.ConflictError` leaves
  all versions, as :class:`~aiopatterns.data.Manual` does.

A function must give the same value for the same arguments, on every node: no clock, no random
numbers, no order of a set. And nodes must have the same base for the same versions, or none; a
base of which one of several parts does not know counts as none.

Not guaranteed: that the value makes sense. Of more than two versions a function gets what it has
made of the first ones, and the next one. The functions here come to the same value in any order;
one of your own should, or people will wonder.

Source: three-way merges as in diff3 (Khanna, Kunal and Pierce, "A Formal Investigation of Diff3",
2007); registers, counters and sets: Shapiro et al., "Conflict-free Replicated Data Types", 2011.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard, final

from aiopatterns.core.errors import ConflictError
from aiopatterns.core.validate import instance, plain_function
from aiopatterns.data.clock import Stamp
from aiopatterns.data.conflict import frontier
from aiopatterns.data.vector import VersionVector
from aiopatterns.data.version import Versioned

if TYPE_CHECKING:
    from collections.abc import Sequence

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
            or None; left was written earlier than right. It gets plain data and must not change
            it. A ConflictError of it leaves the versions in conflict.

    Raises:
        TypeError: ``fn`` is no plain function.

    Example::

        Merge(lambda base, left, right: max(left, right))
    """

    fn: MergeFunction

    def __post_init__(self) -> None:
        plain_function("fn", self.fn)

    def decide(
        self, left: Versioned, right: Versioned, base: Versioned | None, /
    ) -> Versioned | None:
        """Return a version with the value of both, None if the function finds none."""
        parts = frontier((left, right))
        if base is not None and (left.parts or right.parts) and not _known(base, parts):
            base = None
        live = [part for part in parts if not part.deleted] or [parts[-1]]
        try:
            value = self._value(base, live)
        except ConflictError:
            return None
        vector = VersionVector()
        for part in parts:
            vector = vector.merge(part.vector)
        return Versioned(
            parts[0].key,
            value,
            parts[-1].stamp,
            min(part.created for part in parts),
            vector,
            live[-1].origin,
            live[-1].deleted,
            parts,
        )

    def _value(self, base: Versioned | None, live: Sequence[Versioned]) -> Any:
        known = None if base is None or base.deleted else base.value
        value = live[0].value
        for each in live[1:]:
            value = self.fn(known, value, each.value)
        return value


def _known(base: Versioned, parts: Sequence[Versioned]) -> bool:
    return all(part.vector.dominates(base.vector) for part in parts)


def three_way(base: Any, left: Any, right: Any) -> Any:
    """Take from each side what it has changed; mappings are merged key by key, at any depth.

    Args:
        base: The last value that both knew, or None.
        left: One value.
        right: The other one.

    Raises:
        ConflictError: Both have changed the same thing in different ways.
    """
    if right in (left, base):
        return left
    if left == base:
        return right
    if _mapping(left) and _mapping(right):
        return _merged(base if _mapping(base) else None, left, right, lambda _: three_way)
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
        return _merged(
            base if _mapping(base) else None, left, right, lambda name: ways.get(name, other)
        )

    return merge


def register(value: Any, stamp: Stamp) -> dict[str, Any]:
    """Return a field that says when it was written, for :func:`merge_registers`.

    Args:
        value: Plain data.
        stamp: From the clock of the writer.
    """
    instance("stamp", stamp, Stamp, "a Stamp")
    return {"value": value, "stamp": list(stamp)}


def merge_registers(_base: Any, left: Any, right: Any) -> Any:
    """Return the register that was written later.

    Args:
        _base: Not needed.
        left: What :func:`register` made.
        right: Another one.
    """
    return max(left, right, key=_written)


def _written(made: Any) -> tuple[Stamp, str]:
    if not _mapping(made) or not made.keys() >= {"value", "stamp"}:
        msg = f"value must be what register() makes, not {made!r}"
        raise TypeError(msg)
    return Stamp(*made["stamp"]), repr(made["value"])


def _mapping(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


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
