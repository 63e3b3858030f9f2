"""MemoryParticipant: a key-value store that can promise, for tests and trials.

It does all that a database does in a two-phase commit, in memory. Work is seen by nobody until it
is committed. At the vote, what was read or written must not have changed meanwhile, and what was
written is locked until the outcome is known::

    execute, get     notes what was seen and what is to be written
    prepare          has it changed?  is it locked?  -> NO;   else locked -> YES
    commit           written, unlocked, remembered

A coordinator that "dies" in a test leaves it as it is, promises and locks and all.

Not guaranteed: anything behind the end of the process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import ConflictError
from aiopatterns.data.participants import Fate, Prepared, Vote, participant_name

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["MemoryBranch", "MemoryParticipant"]


@final
@dataclass(slots=True)
class _Promise:
    """Work that waits for the outcome."""

    writes: dict[str, object]
    since: float = field(default_factory=monotonic)


@final
class MemoryBranch:
    """The work of one transaction, made by ``tx[participant]``.

    Args:
        participant: Where it is done.
    """

    __slots__ = ("_participant", "seen", "writes")

    def __init__(self, participant: MemoryParticipant) -> None:
        self._participant = participant
        self.seen: dict[str, int] = {}  # versions
        self.writes: dict[str, object] = {}

    async def execute(self, key: str, value: object) -> None:
        """Write ``value`` under ``key`` when the transaction commits; None removes it."""
        self.seen.setdefault(key, self._participant.version(key))
        self.writes[key] = value

    async def get(self, key: str) -> object:
        """Return what is under ``key``, with the transaction's own writes; None if nothing is."""
        self.seen.setdefault(key, self._participant.version(key))
        return self.writes[key] if key in self.writes else self._participant.get(key)


@final
class MemoryParticipant:
    """A key-value store in memory.

    Args:
        name: Its name: up to 40 letters, digits, ``_`` and ``-``.

    Example::

        async with transfers.transaction() as tx:
            await tx[accounts].execute("anna", 90)
    """

    __slots__ = ("_committed", "_locks", "_promised", "_values", "_versions", "_working", "name")

    def __init__(self, name: str) -> None:
        self.name: Final[str] = participant_name(name)
        self._values: dict[str, object] = {}
        self._versions: dict[str, int] = {}
        self._working: dict[str, MemoryBranch] = {}
        self._promised: dict[str, _Promise] = {}
        self._locks: dict[str, str] = {}
        self._committed: set[str] = set()

    def __repr__(self) -> str:
        return f"MemoryParticipant({self.name!r})"

    def get(self, key: str) -> object:
        """Return what is committed under ``key``; None if nothing is."""
        return self._values.get(key)

    def version(self, key: str) -> int:
        """Return how often ``key`` was written."""
        return self._versions.get(key, 0)

    def branch(self, gid: str) -> MemoryBranch:
        """Begin work under ``gid``."""
        branch = self._working[gid] = MemoryBranch(self)
        return branch

    async def prepare(self, gid: str) -> Vote:
        """Promise the work, or refuse what others have changed or are about to change.

        Raises:
            ConflictError: They have.
        """
        branch = self._working.pop(gid)
        for key, version in branch.seen.items():
            if key in self._locks or self.version(key) != version:
                raise ConflictError(f"{key!r} was changed by another transaction", key=key)
        if not branch.writes:
            return Vote.READ_ONLY
        self._locks.update(dict.fromkeys(branch.writes, gid))
        self._promised[gid] = _Promise(branch.writes)
        return Vote.YES

    async def commit(self, gid: str) -> bool:
        """Commit what was promised; False if there is no such promise."""
        promise = self._promised.pop(gid, None)
        if promise is None:
            return False
        for key, value in promise.writes.items():
            self._versions[key] = self.version(key) + 1
            del self._locks[key]
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value
        self._committed.add(gid)
        return True

    async def commit_alone(self, gid: str) -> bool:
        """Commit in one step.

        Raises:
            ConflictError: Others have changed what it has seen.
        """
        if await self.prepare(gid) is Vote.YES:
            await self.commit(gid)
            self._committed.discard(gid)  # nobody will ask: there is no decision
        return True

    async def rollback(self, gid: str) -> bool:
        """Undo the work, promised or not; False if there is none."""
        working = self._working.pop(gid, None)
        promise = self._promised.pop(gid, None)
        for key in promise.writes if promise is not None else ():
            del self._locks[key]
        return working is not None or promise is not None

    async def in_doubt(self) -> Sequence[Prepared]:
        """Return what was promised and not resolved."""
        now = monotonic()
        return [Prepared(gid, now - each.since) for gid, each in self._promised.items()]

    async def outcome(self, gid: str) -> Fate:
        """Return what is known of ``gid``."""
        if gid in self._promised:
            return Fate.PREPARED
        return Fate.COMMITTED if gid in self._committed else Fate.UNKNOWN

    async def forget(self, gids: Collection[str]) -> None:
        """Forget that ``gids`` were committed."""
        self._committed.difference_update(gids)
