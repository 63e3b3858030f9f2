"""Versioned: one version of a record, with all that decides which version wins.

::

    key      value        stamp              created            vector         origin  deleted
    "user"   {"n": "A"}   12:00:05.000 #0 a  12:00:01.000 #0 b  {a: 1, b: 1}   "a"     False

A deleted record is a version as well, a *tombstone*: without it, a node that slept would bring
the record back.

A version is *written* by a node, which counts it in the vector, or *merged* by a strategy out of
written ones. A merged version keeps those as its :attr:`~Versioned.parts`: what it holds is worked
out anew from them whenever another version is met. Who stores a merged version stores them too.

Written versions hold to three rules, which all laws stand on; :meth:`Versioned.first`,
:meth:`Versioned.next` and :meth:`Versioned.replacing` keep them:

* a node's versions of a record know of all that it has written before. A node that has lost its
  storage therefore comes back under another name;
* the stamp is later than those of all that it knows of;
* ``created`` is the earliest of all that it knows of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from aiopatterns.core.validate import instance, text
from aiopatterns.data.clock import Stamp
from aiopatterns.data.vector import VersionVector

if TYPE_CHECKING:
    from collections.abc import Iterable

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
        parts: The written versions, none of which knows of another, that this one is merged
            from; empty if a node wrote it.

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
    parts: tuple[Versioned, ...] = ()

    def __post_init__(self) -> None:
        text("key", self.key)
        instance("stamp", self.stamp, Stamp, "a Stamp")
        instance("created", self.created, Stamp, "a Stamp")
        instance("vector", self.vector, VersionVector, "a VersionVector")
        text("origin", self.origin)
        instance("deleted", self.deleted, bool, "a bool")
        for part in instance("parts", self.parts, tuple, "a tuple of Versioned"):
            instance("a part", part, Versioned, "a Versioned")

    @classmethod
    def first(cls, key: str, value: Any, *, stamp: Stamp) -> Versioned:
        """Return the first version of a record, written by the node whose clock made ``stamp``."""
        instance("stamp", stamp, Stamp, "a Stamp")
        vector = VersionVector().increment(stamp.node)
        return cls(key, value, stamp, stamp, vector, stamp.node)

    @classmethod
    def replacing(
        cls, versions: Iterable[Versioned], value: Any, *, stamp: Stamp, deleted: bool = False
    ) -> Versioned:
        """Return a version that knows of several, which ends their conflict.

        Args:
            versions: Of one record; at least one.
            value: What it holds.
            stamp: From the clock of the writer, later than those of all of them.
            deleted: Whether it is a tombstone.

        Raises:
            TypeError: A value is of another type.
            ValueError: There is no version, the keys differ, or ``stamp`` is not later.
        """
        known = tuple(versions)
        if not known:
            msg = "versions must have at least one version"
            raise ValueError(msg)
        instance("stamp", stamp, Stamp, "a Stamp")
        key, vector = _key(known), VersionVector()
        for each in known:
            vector = vector.merge(each.vector)
            if stamp <= each.stamp:
                msg = f"stamp must be later than {each.stamp}, not {stamp}"
                raise ValueError(msg)
        created = min(each.created for each in known)
        vector = vector.increment(stamp.node)
        return cls(key, value, stamp, created, vector, stamp.node, deleted)

    def next(self, value: Any, *, stamp: Stamp, deleted: bool = False) -> Versioned:
        """Return the version that follows this one, written by the node that made ``stamp``.

        Args:
            value: What it holds.
            stamp: From the clock of the writer, later than that of this version.
            deleted: Whether it is a tombstone.

        Raises:
            TypeError: A value is of another type.
            ValueError: ``stamp`` is not later.
        """
        return self.replacing((self,), value, stamp=stamp, deleted=deleted)


def _key(versions: tuple[Versioned, ...]) -> str:
    for each in versions:
        instance("a version", each, Versioned, "a Versioned")
        if each.key != versions[0].key:
            msg = f"versions must be of one record, not of {versions[0].key!r} and {each.key!r}"
            raise ValueError(msg)
    return versions[0].key
