"""Records: what a store keeps of one key, and how two stores' versions of it become one.

Mostly a record is one version. While a conflict waits for a person it is several, none of which
knows of another, its *leaves*; the first of them is the one that readers see, the same on every
node. With them goes the last version that others may have as well, the base of a later merge::

    Record   leaves (v7, v7')   base v3   seq 112          the key's place in the change log
    Row      the same as plain columns: what a database keeps

Guarantees: :func:`joined` comes to the same leaves in whatever order versions arrive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

import msgspec

from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import CodecError
from aiopatterns.core.hashing import stable_hash
from aiopatterns.data.clock import Stamp
from aiopatterns.data.conflict import Conflict, resolve
from aiopatterns.data.vector import VersionVector
from aiopatterns.data.version import Versioned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aiopatterns.data.conflict import Strategy

__all__ = ["BUCKETS", "Head", "Record", "Row", "covered", "joined", "ordered", "packed", "unpacked"]

#: Into how many groups the keys of a store fall, for digests.
BUCKETS: Final = 256
# Sums of so many bits over eight million rows of a bucket stay in 64 bits.
_DIGEST_BITS: Final = 40
_encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode

#: A version on the disk: value, stamp, created, vector, origin, deleted.
_Leaf: TypeAlias = tuple[Any, tuple[int, int, str], tuple[int, int, str], dict[str, int], str, bool]
_body_of: Final = MSGPACK.decoder(tuple[list[_Leaf], _Leaf | None, bool])
_vectors_of: Final = MSGPACK.decoder(list[dict[str, int]])


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
        body: Leaves, base, and whether others have them, packed.
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
        found = _vectors_of(self.vectors)
        return Head(self.key, self.seq, tuple(VersionVector(each) for each in found))


@final
@dataclass(frozen=True, slots=True)
class Record:
    """What a store keeps of one key.

    Attributes:
        key: Which record.
        seq: Its place in the change log of the store.
        leaves: Its versions, none of which knows of another; readers see the first.
        base: The last version before them that others may have, if there is one.
        shared: Whether these versions came from another store, which then has them as well.
        changed_at: When it was written here, in seconds since 1970.
    """

    key: str
    seq: int
    leaves: tuple[Versioned, ...]
    base: Versioned | None
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


def ordered(leaves: Iterable[Versioned]) -> tuple[Versioned, ...]:
    """Return leaves in the order of all nodes: what is not deleted, then what is later, first."""
    return tuple(sorted(leaves, key=lambda each: (not each.deleted, each.stamp), reverse=True))


def covered(theirs: Iterable[VersionVector], ours: Sequence[VersionVector]) -> bool:
    """Whether all of their versions are known to one of ours."""
    return all(any(our.dominates(their) for our in ours) for their in theirs)


def joined(
    ours: Sequence[Versioned],
    theirs: Iterable[Versioned],
    *,
    strategy: Strategy,
    base: Versioned | None,
    settled: Callable[[Conflict, Versioned], Versioned],
) -> tuple[tuple[Versioned, ...], list[Conflict]]:
    """Make one list of leaves out of two.

    Args:
        ours: What is here.
        theirs: What has come.
        strategy: Decides between concurrent ones.
        base: A version that may be known to both.
        settled: What becomes of the winner of a conflict.

    Returns:
        The leaves in order, and the conflicts that there were, our version on the left.

    Raises:
        Exception: What the function of a merge raises.

    Complexity: O(leaves squared).
    """
    leaves, conflicts = list(ours), list[Conflict]()
    for each in theirs:
        if any(_knows(old, each) for old in leaves):
            continue
        waiting, at = each, 0
        while at < len(leaves):
            old = leaves[at]
            both = base is not None and _knows(old, base) and _knows(waiting, base)
            found = resolve(old, waiting, strategy=strategy, base=base if both else None)
            if found.conflict is not None:
                conflicts.append(found.conflict)
            if found.winner is None:
                at += 1
                continue
            del leaves[at]
            waiting, at = found.winner, 0
            if found.conflict is not None:
                waiting = settled(found.conflict, waiting)
        leaves.append(waiting)
    return ordered(leaves), conflicts


def _knows(version: Versioned, other: Versioned) -> bool:
    return version.vector.dominates(other.vector)


def packed(record: Record) -> Row:
    """Return a record as columns.

    Raises:
        CodecError: A value is none that can be written.
    """
    base = None if record.base is None else _leaf(record.base)
    leaves = [_leaf(each) for each in record.leaves]
    try:
        vectors = _encode([leaf[3] for leaf in leaves])
        body = _encode((leaves, base, record.shared))
    except Exception as error:
        raise CodecError(f"cannot keep the value of {record.key!r}: {error}") from error
    seen = _encode((record.key, sorted(_encode(leaf[3]) for leaf in leaves)))
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
    leaves, base, shared = _body_of(row.body)
    return Record(
        row.key,
        row.seq,
        tuple(_version(row.key, each) for each in leaves),
        None if base is None else _version(row.key, base),
        shared,
        row.changed_at,
    )


def _leaf(version: Versioned) -> _Leaf:
    return (
        version.value,
        tuple(version.stamp),
        tuple(version.created),
        dict(version.vector),
        version.origin,
        version.deleted,
    )


def _version(key: str, leaf: _Leaf) -> Versioned:
    value, stamp, created, vector, origin, deleted = leaf
    return Versioned(
        key, value, Stamp(*stamp), Stamp(*created), VersionVector(vector), origin, deleted
    )
