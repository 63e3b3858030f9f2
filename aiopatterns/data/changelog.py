"""ChangeLog: what has changed in a store since somebody looked last.

Whoever keeps something that follows from records, such as a search index or a cache, reads the log
from where it stopped, and then says how far it is::

    record a, b, a, c      seq   2   3   4
                                 b   a   c          each record once, in its newest version
    since("x1:2")                    a   c          a checkpoint is the store's epoch, and a number

Guarantees:

* At least once: a change that was not acknowledged comes again. Nothing is left out.
* In the order in which records were changed last.
* Tombstones that a consumer has not acknowledged are not purged, once it has acknowledged
  anything. One that has been away too long, or belongs to another store, gets a
  :class:`~aiopatterns.core.errors.CheckpointExpiredError`, and not a log with a hole in it.

Not guaranteed: every version. What was overwritten before it was read is never seen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from aiopatterns.core.errors import CheckpointExpiredError
from aiopatterns.core.validate import instance, text
from aiopatterns.data.record import unpacked
from aiopatterns.data.syncstore import PAGE, SyncStore, checked_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiopatterns.data.draft import Draft, State
    from aiopatterns.data.version import Versioned

__all__ = ["Change", "ChangeLog"]

_CHECKPOINT: Final = re.compile("([0-9a-f]+):([0-9]{1,19})")


@final
class Change(NamedTuple):
    """A record that has changed.

    Attributes:
        checkpoint: Where to read on once this is done.
        version: The version in force; a tombstone if it was deleted.
    """

    checkpoint: str
    version: Versioned

    @property
    def key(self) -> str:
        """Which record."""
        return self.version.key

    @property
    def value(self) -> Any:
        """What it holds now; None if it was deleted."""
        return self.version.value

    @property
    def deleted(self) -> bool:
        """Whether it was deleted."""
        return self.version.deleted


@final
class ChangeLog:
    """The log of a store, and how far one consumer has read it.

    Args:
        store: Where the records are.
        consumer: Names who reads; different from others, and from the stores that this one is
            synchronised with.

    Raises:
        TypeError: A value is of another type.
        ValueError: ``consumer`` is empty.

    Example::

        log = ChangeLog(store, consumer="search")
        checkpoint = await log.acknowledged()
        if checkpoint is None:
            await index.clear()
        async for change in log.since(checkpoint):
            await index.update(change.key, change.value)
            await log.acknowledge(change.checkpoint)
    """

    __slots__ = ("_consumer", "_store")

    def __init__(self, store: SyncStore, *, consumer: str = "consumer") -> None:
        self._store = instance("store", store, SyncStore, "a SyncStore")
        self._consumer = text("consumer", consumer)

    def __repr__(self) -> str:
        return f"ChangeLog({self._store!r}, consumer={self._consumer!r})"

    async def record(self, key: str, value: Any) -> str:
        """Write a record, as ``store.put`` does.

        Returns:
            The checkpoint of this change: what is read from it is later.

        Raises:
            CodecError: ``value`` is none that can be written.
            TypeError: ``key`` is no text.
            ValueError: ``key`` is empty or too long.
            BackendError: The store failed.

        Cancellation: the record is written or not.
        """

        def plan(draft: Draft) -> str:
            draft.put(key, value)
            return _checkpoint(draft.state, draft.state.seq)

        return await self._store.transact((checked_key(key),), plan)

    async def since(self, checkpoint: str | None = None) -> AsyncIterator[Change]:
        """Iterate over what has changed, until there is nothing more.

        Args:
            checkpoint: What has been read already; None to begin with the first record.

        Raises:
            CheckpointExpiredError: What was purged meanwhile is missing, or the checkpoint is
                not of this store: begin anew, with nothing and with None.
            CodecError: A record cannot be read.
            TypeError: ``checkpoint`` is no text.
            ValueError: It is no checkpoint.
            BackendError: The store failed.

        Complexity: O(changes), in pages of three statements.
        """
        start = await self._store.state()
        seq = 0 if checkpoint is None else _seq(checkpoint, start)
        while True:
            heads = await self._store.changes(seq, PAGE)
            state = await self._store.state()  # after the page: a purge would have left a gap
            if state.epoch != start.epoch or state.horizon > max(seq, start.horizon):
                raise CheckpointExpiredError(checkpoint=_checkpoint(start, seq))
            if not heads:
                return
            rows = await self._store.fetch([each.key for each in heads])
            for each in heads:
                row = rows.get(each.key)
                if row is not None and row.seq == each.seq:  # else it comes again, further on
                    yield Change(_checkpoint(start, row.seq), unpacked(row).leaves[0])
            seq = heads[-1].seq

    async def acknowledge(self, checkpoint: str) -> None:
        """Note that the consumer has done all up to here; an older one changes nothing.

        Args:
            checkpoint: Of the last change that is done.

        Raises:
            CheckpointExpiredError: It is not of this store.
            TypeError: It is no text.
            ValueError: It is no checkpoint.
            BackendError: The store failed.

        Cancellation: it is noted or not.
        """

        def plan(draft: Draft) -> None:
            seq = _seq(checkpoint, draft.state, purged=True)
            draft.passed(self._consumer, max(seq, draft.state.peers.get(self._consumer, 0)))

        await self._store.transact((), plan)

    async def acknowledged(self) -> str | None:
        """Return the last checkpoint that was acknowledged, or None."""
        state = await self._store.state()
        seq = state.peers.get(self._consumer)
        return None if seq is None else _checkpoint(state, seq)


def _checkpoint(state: State, seq: int) -> str:
    return f"{state.epoch}:{seq}"


def _seq(checkpoint: str, state: State, *, purged: bool = False) -> int:
    """Return the number of a checkpoint of this store."""
    found = _CHECKPOINT.fullmatch(text("checkpoint", checkpoint))
    if found is None:
        msg = f"checkpoint must be one that a ChangeLog has returned, not {checkpoint!r}"
        raise ValueError(msg)
    seq = int(found[2])
    if found[1] != state.epoch or seq > state.seq or (state.expired(seq) and not purged):
        raise CheckpointExpiredError(checkpoint=checkpoint)
    return seq
