"""Records: what a store keeps of one key, and how two stores' versions of it become one.

Mostly a record is one version. While a conflict waits for a person it is several, none of which
knows of another, its *leaves*; the first of them is the one that readers see, the same on every
node. With a version travels its *base*, the last one before it that another store may have: of two
concurrent versions the latest base that both know is what a merge starts from::

    Record   leaves (v7, w4)   bases {v7: v3, w4: v3}   seq 112      its place in the change log
    Row      the same as plain columns: what a database keeps, and what travels

Guarantees: :func:`joined` comes to the same leaves in whatever order versions arrive, since a base
belongs to its version and not to the store that merges.

Not guaranteed: that what a row holds can be read. It may be damaged, or of a later release;
:func:`unpacked` says so by one error, for one record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import msgspec

from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import CodecError
from aiopatterns.core.hashing import stable_hash
from aiopatterns.data.clock import Stamp
from aiopatterns.data.conflict import Conflict, frontier, reconcile
from aiopatterns.data.vector import VersionVector
from aiopatterns.data.version import Versioned

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aiopatterns.data.conflict import Strategy

__all__ = ["BUCKETS", "Head", "Joined", "Record", "Row", "covered", "joined", "packed", "unpacked"]

#: Into how many groups the keys of a store fall, for digests.
BUCKETS: Final = 256
# Sums of so many bits over eight million rows of a bucket stay in 64 bits.
_DIGEST_BITS: Final = 40
_encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode


@final
class Head(NamedTuple):
    """A record without its values: enough to see who lacks it.

    Attributes:
        key: Which record.
        seq: Its place in the change log.
        vectors: One for each leaf.
    """

    key: str
    seq: int
    vectors: tuple[VersionVector, ...]


@final
class Row(NamedTuple):
    """A record as plain columns.

    Attributes:
        key: Which record.
        seq: Its place in the change log.
        deleted: Whether all leaves are tombstones.
        changed_at: When it was written here, in seconds since 1970.
        bucket: Which group of keys it is in.
        digest: A number that is another when the leaves are others.
        vectors: The vectors of the leaves, packed.
        body: Leaves, their bases, and whether others have them, packed.
    """

    key: str
    seq: int
    deleted: bool
    changed_at: float
    bucket: int
    digest: int
    vectors: bytes
    body: bytes

    def head(self) -> Head:
        """Return the record without its values."""
        return head(self.key, self.seq, self.vectors)


@final
@dataclass(frozen=True, slots=True)
class Record:
    """What a store keeps of one key.

    Attributes:
        key: Which record.
        seq: Its place in the change log of the store.
        leaves: Its versions, none of which knows of another; readers see the first.
        bases: By the vector of a written version, the last one before it that others may have.
        shared: Whether these versions came from another store, which then has them as well.
        changed_at: When it was written here, in seconds since 1970.
    """

    key: str
    seq: int
    leaves: tuple[Versioned, ...]
    bases: Mapping[VersionVector, Versioned]
    shared: bool
    changed_at: float

    @property
    def deleted(self) -> bool:
        """Whether all leaves are tombstones."""
        return self.leaves[0].deleted

    @property
    def vectors(self) -> tuple[VersionVector, ...]:
        """One for each leaf."""
        return tuple(each.vector for each in self.leaves)


@final
class Joined(NamedTuple):
    """What two records of a key come to.

    Attributes:
        leaves: The versions in force.
        bases: What they were made from.
        conflicts: The concurrent pairs that are new, our version on the left.
    """

    leaves: tuple[Versioned, ...]
    bases: Mapping[VersionVector, Versioned]
    conflicts: tuple[Conflict, ...]


def covered(theirs: Iterable[VersionVector], ours: Sequence[VersionVector]) -> bool:
    """Whether all of their versions are known to one of ours."""
    return all(any(our.dominates(their) for our in ours) for their in theirs)


def joined(ours: Record | None, theirs: Record, *, strategy: Strategy) -> Joined:
    """Make one record out of two.

    Args:
        ours: What is here.
        theirs: What has come.
        strategy: Decides between concurrent versions; the same on all nodes.

    Raises:
        Exception: What the function of a merge raises.

    Complexity: O(leaves squared times nodes).
    """
    if ours is None:
        return Joined(theirs.leaves, theirs.bases, ())
    here, there = frontier(ours.leaves), frontier(theirs.leaves)
    written = frontier((*here, *there))
    known = {**theirs.bases, **ours.bases}
    bases = {each.vector: known[each.vector] for each in written if each.vector in known}
    leaves = reconcile(written, strategy=strategy, base=_common(bases.values(), written))
    conflicts = tuple(
        Conflict(our, their)
        for our in here
        if our in written and our not in there
        for their in there
        if their in written and their not in here
    )
    return Joined(leaves, bases, conflicts)


def _common(bases: Iterable[Versioned], versions: Sequence[Versioned]) -> Versioned | None:
    """Return the latest of the bases that all versions know."""
    known = (base for base in bases if all(each.vector.dominates(base.vector) for each in versions))
    return max(known, key=lambda base: base.stamp, default=None)


# ---------------------------------------------------------------------------------- as columns


@final
class _Leaf(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A version on the disk; new fields go to the end."""

    value: Any
    stamp: tuple[int, int, str]
    created: tuple[int, int, str]
    vector: dict[str, int]
    origin: str
    deleted: bool = False
    parts: list[_Leaf] = []
    base: _Leaf | None = None


@final
class _Body(msgspec.Struct, frozen=True, array_like=True):
    leaves: list[_Leaf]
    shared: bool


_body_of: Final = MSGPACK.decoder(_Body)
_vectors_of: Final = MSGPACK.decoder(list[dict[str, int]])


def head(key: str, seq: int, vectors: bytes) -> Head:
    """Return a head of what :func:`packed` made of its vectors.

    Raises:
        CodecError: They are something else.
    """
    found = _vectors_of(vectors)
    try:
        return Head(key, seq, tuple(VersionVector(each) for each in found))
    except ValueError as error:
        raise CodecError(f"cannot read the vectors of {key!r}: {error}") from error


def packed(record: Record) -> Row:
    """Return a record as columns.

    Raises:
        CodecError: A value is none that can be written.
    """
    leaves = [_leaf(each, record.bases) for each in record.leaves]
    try:
        vectors = _encode([leaf.vector for leaf in leaves])
        body = _encode(_Body(leaves, record.shared))
    except Exception as error:
        raise CodecError(f"cannot keep the value of {record.key!r}: {error}") from error
    seen = _encode((record.key, sorted(_encode(leaf.vector) for leaf in leaves)))
    return Row(
        record.key,
        record.seq,
        record.deleted,
        record.changed_at,
        bucket=stable_hash(record.key) % BUCKETS,
        digest=stable_hash(seen) % (1 << _DIGEST_BITS),
        vectors=vectors,
        body=body,
    )


def unpacked(row: Row) -> Record:
    """Return what :func:`packed` made a row of.

    Raises:
        CodecError: It was something else.
    """
    body = _body_of(row.body)
    bases: dict[VersionVector, Versioned] = {}
    try:
        leaves = tuple(_version(row.key, each, bases) for each in body.leaves)
        if not leaves:
            raise CodecError("no version")
    except Exception as error:
        raise CodecError(f"cannot read what is kept of {row.key!r}: {error}") from error
    return Record(row.key, row.seq, leaves, bases, body.shared, row.changed_at)


def _leaf(version: Versioned, bases: Mapping[VersionVector, Versioned]) -> _Leaf:
    base = bases.get(version.vector)
    return _Leaf(
        version.value,
        version.stamp,
        version.created,
        dict(version.vector),
        version.origin,
        version.deleted,
        [_leaf(each, bases) for each in version.parts],
        None if base is None else _leaf(base, {}),
    )


def _version(key: str, leaf: _Leaf, bases: dict[VersionVector, Versioned]) -> Versioned:
    version = Versioned(
        key,
        leaf.value,
        Stamp(*leaf.stamp),
        Stamp(*leaf.created),
        VersionVector(leaf.vector),
        leaf.origin,
        leaf.deleted,
        tuple(_version(key, each, bases) for each in leaf.parts),
    )
    if leaf.base is not None:
        bases[version.vector] = _version(key, leaf.base, {})
    return version
