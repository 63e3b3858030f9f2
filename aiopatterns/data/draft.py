"""Draft: one transaction of a store, from what it has read to what it will write.

A store reads the rows of the keys in question and its own state, and locks them. What becomes of
them is decided here, without waiting for anything; then the store writes all of it, or nothing::

    lock, read --> Draft(state, rows, held) -- plan(draft) --> writes, removals, notes --> commit

So what a store does is written once, whatever it keeps its rows in.

Each write takes the next number of the store's change log. Numbers are given under the lock, so
nobody sees a later one committed before an earlier one. The same number names the change in
version vectors, together with the store and its *epoch*, which is new whenever the store was made
anew: no version ever has the name of another, also after a record was purged.

What another store has sent and this one cannot take is *held*, as it came: it blocks nothing, and
is not lost. What is held comes in again when it can, or when somebody has seen to it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import msgspec

from aiopatterns.core.clock import wall
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.context import new_id
from aiopatterns.core.errors import CodecError
from aiopatterns.data.clock import Stamp
from aiopatterns.data.record import Record, joined, packed, unpacked
from aiopatterns.data.vector import VersionVector
from aiopatterns.data.version import Versioned

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiopatterns.data.clock import HybridClock
    from aiopatterns.data.conflict import Strategy
    from aiopatterns.data.record import Joined, Row

__all__ = ["MAX_REASON", "Draft", "Held", "State", "fresh_state"]

#: Characters of a reason for quarantine that are kept.
MAX_REASON: Final = 1_000
_EPOCH_LENGTH: Final = 8


@final
class State(msgspec.Struct, frozen=True):
    """What a store knows of itself.

    Attributes:
        name: What the store is called.
        epoch: Which store of that name this is; one that was made anew has another.
        seq: The number of its last change.
        horizon: The number of the last change that was purged; who has not read so far has missed
            something.
        held: How many records are in quarantine.
        context: Changes that this store has seen, of every store.
        purged: Those of them that it has forgotten.
        peers: Up to which change each of the others has all.
    """

    name: str
    epoch: str
    seq: int = 0
    horizon: int = 0
    held: int = 0
    context: dict[str, int] = {}
    purged: dict[str, int] = {}
    peers: dict[str, int] = {}

    @property
    def node(self) -> str:
        """What version vectors call this store."""
        return f"{self.name}:{self.epoch}"

    @property
    def seen(self) -> VersionVector:
        """The changes that this store has seen, its own among them."""
        return VersionVector(self.context).raised(self.node, self.seq)

    def expired(self, since: int) -> bool:
        """Whether one who has read up to ``since`` has missed what was purged.

        Or has read what is not here any more: the store is an old copy of itself.
        """
        return since < self.horizon or since > self.seq

    def forgot(self, vectors: Iterable[VersionVector]) -> bool:
        """Whether a version was seen here, and was purged, if there is none of its key now."""
        purged = VersionVector(self.purged)
        return bool(purged) and all(purged.dominates(each) for each in vectors)

    def pack(self) -> bytes:
        """Return it as bytes."""
        return MSGPACK.encode(self)

    @classmethod
    def unpack(cls, data: bytes) -> State:
        """Return what :meth:`pack` made bytes of."""
        return MSGPACK.decode(data, State)


def fresh_state(name: str, seq: int = 0) -> State:
    """Return the state of a new store.

    Args:
        name: What it is called.
        seq: The highest number that its records have, if there are any.
    """
    return State(name, new_id()[:_EPOCH_LENGTH], seq, horizon=seq)


@final
class Held(NamedTuple):
    """A record in quarantine.

    Attributes:
        key: Which record.
        peer: The store that it came from.
        reason: Why it could not be taken.
        held_at: Since when, in seconds since 1970.
        row: What came, as it came.
    """

    key: str
    peer: str
    reason: str
    held_at: float
    row: Row


@final
class Draft:
    """What a transaction has read, and what it will write.

    Args:
        clock: That of the store.
        state: What the store knew of itself.
        rows: The records of the keys in question that there are.
        held: What is in quarantine of these keys.

    Attributes:
        state: What the store knows of itself.
        writes: Rows to write, by key.
        removals: Keys to forget.
        held: What is in quarantine, by key.
        holds: What comes into quarantine, by key; None for what leaves it.
        notes: Texts to keep, by name.
    """

    __slots__ = ("_clock", "_rows", "held", "holds", "notes", "removals", "state", "writes")

    def __init__(
        self,
        clock: HybridClock,
        state: State,
        rows: Mapping[str, Row],
        held: Mapping[str, Held],
    ) -> None:
        self._clock = clock
        self._rows: dict[str, Row] = dict(rows)
        self.state: State = state
        self.held: dict[str, Held] = dict(held)
        self.writes: dict[str, Row] = {}
        self.removals: list[str] = []
        self.holds: dict[str, Held | None] = {}
        self.notes: dict[str, bytes] = {}

    @property
    def written(self) -> bool:
        """Whether a record changes."""
        return bool(self.writes or self.removals)

    def row(self, key: str) -> Row | None:
        """Return what there is of a key, packed."""
        return self._rows.get(key)

    def record(self, key: str) -> Record | None:
        """Return what there is of a key.

        Raises:
            CodecError: It cannot be read.
        """
        row = self._rows.get(key)
        return None if row is None else unpacked(row)

    # ------------------------------------------------------------------------ records, by name

    def put(self, key: str, value: Any, *, deleted: bool = False) -> Versioned:
        """Write a version that knows of all that are here, also of those that cannot be read.

        Raises:
            CodecError: The value is none that can be written; nothing is changed.
        """
        old = self._readable(key)
        stamp = self._clock.now(after=_last(old))
        return self._follow(key, old, value, stamp, self._known(key), deleted=deleted)

    def bury(self, key: str, *, purged: VersionVector) -> Versioned:
        """Delete what another store has seen, deleted and forgotten.

        The tombstone is as old as it can be, for nobody knows when that was: any later edit that
        did not know of the deletion has a later stamp.

        Args:
            key: Which record.
            purged: What the other store has forgotten; other versions of this record among it.
        """
        old = self._readable(key)
        last = _last(old)
        if last is None:
            stamp = self._clock.now()
        else:
            stamp = Stamp(last.time, last.counter + 1, self._clock.node)
        return self._follow(key, old, None, stamp, self._known(key).merge(purged), deleted=True)

    def take(self, theirs: Record, *, strategy: Strategy) -> Joined | None:
        """Make what has come from another store a part of this one.

        Args:
            theirs: The record as the other store has it.
            strategy: Decides between concurrent versions.

        Returns:
            What is in force now, and the conflicts on the way; None if all was known here. What
            was in quarantine of this key is not any more.

        Raises:
            CodecError: What is here cannot be read, or what was merged not be written.
            ValueError: A stamp is too far ahead.
            Exception: What the function of a merge raises.
            In each case nothing is changed.
        """
        ours = self.record(theirs.key)
        for leaf in theirs.leaves:
            for each in leaf.parts or (leaf,):
                self._clock.check(each.stamp)
        found = joined(ours, theirs, strategy=strategy)
        if ours is not None and found.leaves == ours.leaves:
            self.release(theirs.key)
            return None
        shared = found.leaves == theirs.leaves
        for vector in theirs.vectors:
            self._recognise(vector)
        self._write(theirs.key, found.leaves, found.bases, shared=shared)
        self.release(theirs.key)
        return found

    def remove(self, key: str) -> None:
        """Forget a record, and remember that it was seen: all its versions must have been.

        What has not been read so far can not be read any more.
        """
        row, gone = self._rows.pop(key), VersionVector(self.state.purged)
        for vector in row.head().vectors:
            gone = gone.merge(vector)
        self.writes.pop(key, None)
        self.removals.append(key)
        self.change(horizon=max(self.state.horizon, row.seq), purged=dict(gone))

    # ------------------------------------------------------------------------------ quarantine

    def hold(self, row: Row, *, peer: str, reason: str) -> Held:
        """Keep what cannot be taken, in place of what was held of its key."""
        readable = reason.encode("utf-8", "replace").decode().replace("\0", "?")
        held = Held(row.key, peer, readable[:MAX_REASON], wall(), row)
        self._holding(row.key, held)
        return held

    def release(self, key: str) -> bool:
        """Keep nothing of a key in quarantine any more; returns whether there was something."""
        if key not in self.held:
            return False
        self._holding(key, None)
        return True

    # ------------------------------------------------------------------- the store about itself

    def saw(self, context: VersionVector) -> None:
        """Note which changes have been seen: all of each node's, up to its number."""
        self._recognise(context)
        self.change(context=dict(VersionVector(self.state.context).merge(context)))

    def passed(self, peer: str, seq: int) -> None:
        """Note that a peer has all changes up to ``seq``."""
        self.change(peers={**self.state.peers, peer: seq})

    def renew(self) -> None:
        """Become another node, with what is here as its past; all peers have to compare."""
        seq, epoch = self.state.seq + 1, fresh_state(self.state.name).epoch
        self.change(epoch=epoch, context=dict(self.state.seen), seq=seq, horizon=seq)

    def change(self, **fields: Any) -> None:
        """Change what the store knows of itself."""
        self.state = msgspec.structs.replace(self.state, **fields)

    # --------------------------------------------------------------------------- private core

    def _follow(
        self,
        key: str,
        old: Record | None,
        value: Any,
        stamp: Stamp,
        known: VersionVector,
        *,
        deleted: bool,
    ) -> Versioned:
        """Write the version that comes after what is here."""
        created = stamp if old is None else min(each.created for each in old.leaves)
        vector = known.raised(self.state.node, self.state.seq + 1)
        version = Versioned(key, value, stamp, created, vector, self._clock.node, deleted)
        base = self._base(old)
        self._write(key, (version,), {} if base is None else {vector: base}, shared=False)
        return version

    def _write(
        self,
        key: str,
        leaves: tuple[Versioned, ...],
        bases: Mapping[VersionVector, Versioned],
        *,
        shared: bool,
    ) -> None:
        row = packed(Record(key, self.state.seq + 1, leaves, bases, shared, wall()))
        self.writes[key] = self._rows[key] = row
        self.change(seq=row.seq)

    def _recognise(self, vector: VersionVector) -> None:
        """See that others know more of this store than it does: it is an old copy of itself."""
        if vector[self.state.node] > self.state.seq:
            self.renew()

    def _readable(self, key: str) -> Record | None:
        try:
            return self.record(key)
        except CodecError:
            return None

    def _known(self, key: str) -> VersionVector:
        """Return what a version that is written now knows: what is here, or a past that is over.

        What is in quarantine counts as seen, but nobody has read it: it must not be replaced.
        """
        row, vector = self._rows.get(key), VersionVector()
        if row is None:
            return vector if key in self.held else VersionVector(self.state.purged)
        for each in row.head().vectors:
            vector = vector.merge(each)
        return vector

    def _base(self, old: Record | None) -> Versioned | None:
        """Return the last version that others may have, of what is about to be replaced."""
        if old is None or len(old.leaves) != 1:
            return None
        leaf = old.leaves[0]
        if old.shared or old.seq <= max(self.state.peers.values(), default=0):
            return replace(leaf, parts=())
        return old.bases.get(leaf.vector)

    def _holding(self, key: str, held: Held | None) -> None:
        was = key in self.held
        self.holds[key] = held
        if held is None:
            del self.held[key]
        else:
            self.held[key] = held
        self.change(held=self.state.held + (key in self.held) - was)


def _last(record: Record | None) -> Stamp | None:
    """Return the latest stamp of what is here."""
    return None if record is None else max(each.stamp for each in record.leaves)
