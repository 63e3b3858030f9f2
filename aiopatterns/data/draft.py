"""Draft: one transaction of a store, from what it has read to what it will write.

A store reads the rows of the keys in question and its own state, and locks them. What becomes of
them is decided here, without waiting for anything; then the store writes all of it, or nothing::

    lock, read --> Draft(rows, state) -- plan(draft) --> writes, removals, notes --> commit

So what a store does is written once, whatever it keeps its rows in.

Each write takes the next number of the store's change log. Numbers are given under the lock, so
nobody sees a later one committed before an earlier one. The same number names the change in
version vectors, together with the store and its *epoch*, which is new whenever the store was made
anew: no version ever has the name of another, also after a record was purged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import msgspec

from aiopatterns.core.clock import wall
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.context import new_id
from aiopatterns.data.record import Record, packed
from aiopatterns.data.vector import VersionVector
from aiopatterns.data.version import Versioned

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiopatterns.data.clock import HybridClock
    from aiopatterns.data.record import Row

__all__ = ["Draft", "State", "fresh_state"]

_EPOCH_LENGTH: Final = 8


@final
class State(msgspec.Struct, frozen=True):
    """What a store knows of itself.

    Attributes:
        epoch: Which store this is; a new one has another.
        seq: The number of its last change.
        horizon: The number of the last change that was purged; who has not read so far has missed
            something.
        shared: Up to which change others have read.
        context: Changes that this store has seen, of every store.
        purged: Those of them that it has forgotten.
        peers: Up to which change each of the others has all.
    """

    epoch: str
    seq: int = 0
    horizon: int = 0
    shared: int = 0
    context: dict[str, int] = {}
    purged: dict[str, int] = {}
    peers: dict[str, int] = {}

    def pack(self) -> bytes:
        """Return it as bytes."""
        return MSGPACK.encode(self)

    @classmethod
    def unpack(cls, data: bytes) -> State:
        """Return what :meth:`pack` made bytes of."""
        return MSGPACK.decode(data, State)

    def forgot(self, vectors: Iterable[VersionVector]) -> bool:
        """Whether a version was seen here, and was purged, if there is none of its key now."""
        purged = VersionVector(self.purged)
        return bool(purged) and all(purged.dominates(each) for each in vectors)


def fresh_state() -> State:
    """Return the state of a store that holds nothing."""
    return State(epoch=new_id()[:_EPOCH_LENGTH])


@final
class Draft:
    """What a transaction has read, and what it will write.

    Args:
        clock: That of the store.
        state: What the store knew of itself.
        records: The records of the keys in question that there are.

    Attributes:
        state: What the store knows of itself.
        writes: Rows to write, by key.
        removals: Keys to forget.
        notes: Texts to keep, by name.
    """

    __slots__ = ("_clock", "_records", "notes", "removals", "state", "writes")

    def __init__(self, clock: HybridClock, state: State, records: Mapping[str, Record]) -> None:
        self._clock = clock
        self._records = dict(records)
        self.state = state
        self.writes: dict[str, Row] = {}
        self.removals: list[str] = []
        self.notes: dict[str, bytes] = {}

    @property
    def node(self) -> str:
        """What version vectors call this store."""
        return f"{self._clock.node}:{self.state.epoch}"

    def record(self, key: str) -> Record | None:
        """Return what there is of a key."""
        return self._records.get(key)

    def put(self, key: str, value: Any, *, deleted: bool = False) -> Versioned:
        """Write a version that knows of all versions that are here."""
        old = self._records.get(key)
        leaves = () if old is None else old.leaves
        after = max((each.stamp for each in leaves), default=None)
        stamp = self._clock.now(after=after)
        vector = VersionVector(self.state.purged if old is None else {})
        for each in leaves:
            vector = vector.merge(each.vector)
        version = Versioned(
            key,
            value,
            stamp,
            min((each.created for each in leaves), default=stamp),
            vector.raised(self.node, self.state.seq + 1),
            self._clock.node,
            deleted,
        )
        self.write(key, (version,), base=self._base(old), shared=False)
        return version

    def write(
        self, key: str, leaves: tuple[Versioned, ...], *, base: Versioned | None, shared: bool
    ) -> None:
        """Write a record; it takes the next number.

        Raises:
            CodecError: A value is none that can be written; nothing is changed.
        """
        record = Record(key, self.state.seq + 1, leaves, base, shared, wall())
        self.writes[key] = packed(record)
        self._records[key] = record
        self.change(seq=record.seq)

    def remove(self, key: str) -> None:
        """Forget a record; what has not been read so far can not be read any more."""
        record = self._records.pop(key)
        context = self.seen()
        gone = VersionVector(self.state.purged)
        for vector in record.vectors:
            known = {node: min(number, context[node]) for node, number in vector.items()}
            gone = gone.merge(VersionVector(known))
        self.removals.append(key)
        self.change(horizon=max(self.state.horizon, record.seq), purged=dict(gone))

    def seen(self) -> VersionVector:
        """Return the changes that this store has seen, its own among them."""
        return VersionVector(self.state.context).raised(self.node, self.state.seq)

    def change(self, **fields: Any) -> None:
        """Change what the store knows of itself."""
        self.state = msgspec.structs.replace(self.state, **fields)

    def _base(self, old: Record | None) -> Versioned | None:
        """Return the last version that others may have, of what is about to be replaced."""
        if old is None or len(old.leaves) > 1:
            return None
        if old.shared or old.seq <= self.state.shared:
            return old.leaves[0]
        return old.base
