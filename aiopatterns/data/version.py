"""Versioned: one version of a record, with all that decides which version wins.

::

    key      value        stamp              created            vector         origin  deleted
    "user"   {"n": "A"}   12:00:05.000 #0 a  12:00:01.000 #0 b  {a: 1, b: 1}   "a"     False

A deleted record is a version as well, a *tombstone*: without it, a node that slept would bring
the record back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from aiopatterns.core.validate import instance, text
from aiopatterns.data.clock import Stamp
from aiopatterns.data.vector import VersionVector

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Versioned"]


@final
@dataclass(frozen=True, slots=True)
class Versioned:
    """One version of a record. It is a value: two of the same content are equal.

    Attributes:
        key: Which record.
        value: What it holds; None if it is deleted.
        stamp: When this version was written.
        created: When the record was first written; every later version inherits it, tombstones
            too.
        vector: Which changes are in this version.
        origin: The node that wrote it.
        deleted: Whether it is a tombstone.

    Raises:
        TypeError: A field is of another type.
        ValueError: A name is empty.
    """

    key: str
    value: Any
    stamp: Stamp
    created: Stamp
    vector: VersionVector
    origin: str
    deleted: bool = False

    def __post_init__(self) -> None:
        text("key", self.key)
        instance("stamp", self.stamp, Stamp, "a Stamp")
        instance("created", self.created, Stamp, "a Stamp")
        instance("vector", self.vector, VersionVector, "a VersionVector")
        text("origin", self.origin)
        instance("deleted", self.deleted, bool, "a bool")

    @classmethod
    def first(cls, key: str, value: Any, *, stamp: Stamp) -> Self:
        """Return the first version of a record, written by the node whose clock made ``stamp``."""
        vector = VersionVector().increment(stamp.node)
        return cls(key, value, stamp, stamp, vector, stamp.node)

    def next(self, value: Any, *, stamp: Stamp, deleted: bool = False) -> Versioned:
        """Return the version that follows this one, written by the node that made ``stamp``.

        Args:
            value: What it holds.
            stamp: Later than that of this version.
            deleted: Whether it is a tombstone.
        """
        vector = self.vector.increment(stamp.node)
        return Versioned(self.key, value, stamp, self.created, vector, stamp.node, deleted)
