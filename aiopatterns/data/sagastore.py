"""Where sagas are kept: the protocol of stores, and the store in memory.

A store keeps one record for each saga, and says who may write it::

    create ---> held by owner A, fence 1 --save--save--save--> ended, kept for a while
                        |
                        | A has not saved for its lease
                        v
                claim: held by owner B, fence 2      A's next save is refused: it stops

Guarantees of every store:

* ``save`` writes only for the owner and fence that hold the record, so of two processes that both
  think a saga is theirs one is refused, and is told so.
* A save that was held up on its way changes nothing when it arrives behind a later one.
* Every call may be repeated when its answer was lost.
* Time is the store's own, so clocks of hosts do not matter.

Source: fencing tokens, Kleppmann, "How to do distributed locking", 2016.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, final

import msgspec

from aiopatterns.core.clock import monotonic
from aiopatterns.core.validate import positive
from aiopatterns.data.sagajournal import ENDED, SagaState

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KEEP", "Filed", "Listed", "MemorySagaStore", "SagaStore"]

#: Seconds for which a saga that has ended is remembered, unless told otherwise.
KEEP: Final = 7 * 86_400.0


@final
class Filed(msgspec.Struct, frozen=True, array_like=True):
    """The record of one saga; new fields go to the end.

    Attributes:
        saga: Name of what it is a run of.
        id: Its id.
        definition: Version and shape of the steps that it was begun with.
        state: Where it is.
        owner: Mark of who holds it.
        fence: How often it was taken: above that of every earlier holder.
        revision: Grows with every save.
        body: Its journal, encoded.
    """

    saga: str
    id: str
    definition: str
    state: SagaState
    owner: str
    fence: int
    revision: int
    body: bytes

    def is_held_by(self, other: Filed) -> bool:
        """Whether this record has the owner and fence of ``other``."""
        return self.owner == other.owner and self.fence == other.fence

    def supersedes(self, other: Filed) -> bool:
        """Whether this record is what ``other`` was to become, or what came after it."""
        return self.is_held_by(other) and self.revision >= other.revision


@final
class Listed(NamedTuple):
    """One saga that has not ended.

    Attributes:
        id: Its id.
        definition: Version and shape of the steps that it was begun with.
        state: Where it is.
    """

    id: str
    definition: str
    state: SagaState


class SagaStore(Protocol):
    """Where sagas are kept; users may write one.

    Every call may raise :class:`~aiopatterns.core.errors.BackendError`; it may be repeated then.
    """

    async def create(self, filed: Filed, *, lease: float) -> bool:
        """File a saga that its owner holds for ``lease`` seconds; False if the id is there.

        True as well if it is there and this owner has created it.
        """
        ...

    async def read(self, saga: str, id: str) -> Filed | None:
        """Return the record, or None."""
        ...

    async def save(self, filed: Filed, *, lease: float) -> bool:
        """Write a record that its owner holds, and hold it for ``lease`` seconds from now.

        Args:
            filed: Its state and body are written if owner and fence are those of the record, the
                revision is above that of the record, and the saga has not ended.
            lease: Seconds; 0 gives it up.

        Returns:
            False if somebody else holds it, or it has ended or is gone. True without a change if
            this revision of the same holder, or a later one, is there.
        """
        ...

    async def claim(self, saga: str, id: str, *, owner: str, lease: float) -> Filed | None:
        """Take a saga that has not ended and is held by nobody; None if there is none of that id.

        The fence grows by one, and the revision as well.
        """
        ...

    async def due(self, saga: str, definition: str, *, limit: int) -> list[str]:
        """Return ids of sagas of ``definition`` that run or are undone, and are held by nobody."""
        ...

    async def unfinished(self, saga: str, *, limit: int) -> list[Listed]:
        """Return sagas that have not ended, whoever holds them, also those that are stuck."""
        ...

    async def purge(self) -> int:
        """Forget those that ended long ago; return how many. For stores without expiry."""
        ...


@final
class _Slot:
    """A record, and until when it is held, or kept."""

    __slots__ = ("filed", "until")

    def __init__(self, filed: Filed, until: float) -> None:
        self.filed = filed
        self.until = until


@final
class MemorySagaStore:
    """Sagas in the memory of this process: for tests, and where losing them is no harm.

    It does what the other stores do, and survives nothing.

    Args:
        keep: Seconds for which a saga that has ended is remembered.
    """

    __slots__ = ("_ended", "_keep", "_open")

    def __init__(self, *, keep: float = KEEP) -> None:
        self._keep = positive("keep", keep)
        self._open: dict[tuple[str, str], _Slot] = {}
        self._ended: dict[tuple[str, str], _Slot] = {}  # in the order of their ends

    def __repr__(self) -> str:
        return f"MemorySagaStore({len(self._open)} open, {len(self._ended)} ended)"

    async def create(self, filed: Filed, *, lease: float) -> bool:
        """File a saga. O(1)."""
        self._forget()
        key = filed.saga, filed.id
        found = self._open.get(key) or self._ended.get(key)
        if found is None:
            self._open[key] = _Slot(filed, monotonic() + lease)
            return True
        return found.filed.owner == filed.owner

    async def read(self, saga: str, id: str) -> Filed | None:
        """Return the record, or None. O(1)."""
        self._forget()
        found = self._open.get((saga, id)) or self._ended.get((saga, id))
        return None if found is None else found.filed

    async def save(self, filed: Filed, *, lease: float) -> bool:
        """Write a record that its owner holds. O(1)."""
        key = filed.saga, filed.id
        slot = self._open.get(key)
        if slot is None:
            ended = self._ended.get(key)
            return ended is not None and ended.filed.supersedes(filed)
        if not slot.filed.is_held_by(filed):
            return False
        if slot.filed.revision < filed.revision:
            slot.filed = filed
            slot.until = monotonic() + lease
            if filed.state in ENDED:
                self._ended[key] = self._open.pop(key)
                slot.until = monotonic() + self._keep
        return True

    async def claim(self, saga: str, id: str, *, owner: str, lease: float) -> Filed | None:
        """Take a saga that nobody holds. O(1)."""
        slot = self._open.get((saga, id))
        if slot is None or slot.until > monotonic():
            return None
        old = slot.filed
        slot.filed = msgspec.structs.replace(
            old, owner=owner, fence=old.fence + 1, revision=old.revision + 1
        )
        slot.until = monotonic() + lease
        return slot.filed

    async def due(self, saga: str, definition: str, *, limit: int) -> list[str]:
        """Return ids of sagas that nobody holds. O(open sagas)."""
        now = monotonic()
        found = self._listed(
            lambda slot: (
                slot.until <= now
                and slot.filed.saga == saga
                and slot.filed.definition == definition
                and slot.filed.state is not SagaState.STUCK
            )
        )
        return [each.id for each in found[:limit]]

    async def unfinished(self, saga: str, *, limit: int) -> list[Listed]:
        """Return sagas that have not ended. O(open sagas)."""
        found = self._listed(lambda slot: slot.filed.saga == saga)
        return [Listed(each.id, each.definition, each.state) for each in found[:limit]]

    async def purge(self) -> int:
        """Forget those that ended long ago."""
        return self._forget()

    def _listed(self, wanted: Callable[[_Slot], bool]) -> list[Filed]:
        return [slot.filed for slot in self._open.values() if wanted(slot)]

    def _forget(self) -> int:
        """Forget what ended long ago: the first of those that have ended, so O(1) each."""
        count, now = 0, monotonic()
        while self._ended:
            key = next(iter(self._ended))
            if self._ended[key].until > now:
                break
            del self._ended[key]
            count += 1
        return count
