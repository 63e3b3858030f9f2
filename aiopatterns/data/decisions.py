"""Decisions: where a two-phase commit becomes true, once and for all.

Between "all have voted yes" and "all have committed" a coordinator may die. What it decided must
then be found, and must be the same for everybody who looks. So a decision is a row that is inserted
once; whoever comes second is told what the first has written::

    coordinator  decide(g1, COMMIT)  --> inserted        --> COMMIT: all commit
    recovery     decide(g1, ABORT)   --> is there already --> COMMIT: it commits as well

    recovery     decide(g2, ABORT)   --> inserted        --> ABORT: all roll back
    coordinator  decide(g2, COMMIT)  --> is there already --> ABORT: too late, it rolls back

*Presumed abort*: no row means "not decided", and whoever wants to abort inserts that first. So a
transaction that fails before its decision writes nothing.

Each log has an identity of its own that begins the ids of its transactions. A coordinator touches
only what bears the identity of its log: whoever loses the log, and starts a new one, finds what was
in doubt left alone, for a person to decide, instead of rolled back by guess.

Guarantees, for each log but that in memory:

* A decision that was returned is on the disk, and is the only one for its transaction.
* A record whose sum is wrong is an error, never a decision.
* Of those who recover, one at a time holds the lease; an abort that is claimed with the epoch of
  an earlier holder is refused.

Source: Mohan, Lindsay and Obermarck, "Transaction management in the R* distributed database
management system" (1986), for presumed abort.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, final

from aiopatterns.core.clock import wall
from aiopatterns.core.context import new_id
from aiopatterns.core.errors import BackendError
from aiopatterns.core.telemetry import Event, emit, listening

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = [
    "Decision",
    "DecisionLog",
    "DecisionRecord",
    "DecisionsVolatile",
    "Enlisted",
    "FencedError",
    "MemoryLog",
    "Proposal",
]


class Decision(Enum):
    """What becomes of a transaction."""

    COMMIT = "commit"
    ABORT = "abort"


class FencedError(BackendError):
    """Another one recovers by now; whoever is told so stops."""


@final
class Enlisted(NamedTuple):
    """One participant of a transaction.

    Attributes:
        name: Its name.
        kind: What it is, for people.
    """

    name: str
    kind: str


@final
class Proposal(NamedTuple):
    """A decision that somebody wants to make.

    Attributes:
        gid: Id of the transaction.
        decision: What is wanted.
        participants: Those that have voted yes; none are known to whoever claims an abort.
        coordinator: Who wants it.
        created_at: When the transaction began, in seconds since 1970, as the coordinator says.
        deadline_at: Until when its coordinator could have decided.
        epoch: That of the lease, if it is claimed in recovery.
    """

    gid: str
    decision: Decision
    participants: tuple[Enlisted, ...] = ()
    coordinator: str = ""
    created_at: float = 0.0
    deadline_at: float = 0.0
    epoch: int | None = None


@final
@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision that was made, and how far it has been carried out.

    Attributes:
        gid: Id of the transaction.
        decision: What was decided.
        participants: Those that have to commit.
        coordinator: Who decided.
        created_at: When the transaction began.
        deadline_at: Until when its coordinator could have decided.
        epoch: That of the lease, if it was decided in recovery.
        decided_at: When it was decided, by the clock of the log.
        acked: Participants that have done it, with the time of that.
        attempts: How often it was tried to carry it out, and failed.
        error: What was wrong the last time.
        ended_at: When all had done it.
    """

    gid: str
    decision: Decision
    participants: tuple[Enlisted, ...] = ()
    coordinator: str = ""
    created_at: float = 0.0
    deadline_at: float = 0.0
    epoch: int | None = None
    decided_at: float = 0.0
    acked: Mapping[str, float] = field(default_factory=dict[str, float])
    attempts: int = 0
    error: str | None = None
    ended_at: float | None = None


@final
@dataclass(frozen=True, slots=True)
class DecisionsVolatile(Event):
    """Decisions are kept in memory: the end of this process leaves transactions in doubt for ever.

    Attributes:
        log: Identity of the log.
    """

    name: ClassVar[str] = "aiopatterns.twophase.volatile"
    level: ClassVar[str] = "warning"

    log: str


class DecisionLog(Protocol):
    """Where decisions are; users may bring their own.

    Every method may raise :class:`~aiopatterns.core.errors.BackendError`. ``decide`` may then have
    happened or not; the others are repeated safely.
    """

    async def identity(self) -> str:
        """Return the name that this log got when it was made, at most 24 letters and digits."""
        ...

    async def decide(self, proposal: Proposal) -> DecisionRecord:
        """Insert the decision unless there is one; return the one that is there then.

        It is on the disk when this returns.

        Raises:
            FencedError: The proposal's epoch is not that of the lease; nothing was inserted.
        """
        ...

    async def read(self, gid: str) -> DecisionRecord | None:
        """Return the decision about ``gid``, or None if there is none."""
        ...

    async def unfinished(
        self, *, older_than: float = 0.0, limit: int = 1_000
    ) -> Sequence[DecisionRecord]:
        """Return the oldest decisions to commit that not all have carried out.

        Args:
            older_than: Seconds since the decision; its coordinator may be at work until then.
            limit: How many at most.
        """
        ...

    async def note(self, gid: str, acked: Mapping[str, float], error: str) -> None:
        """Count an attempt that has not reached all, with those that have done it, and when."""
        ...

    async def end(self, gid: str) -> None:
        """Note that all have committed ``gid``; may reach the disk later, and may be lost."""
        ...

    async def flush(self) -> None:
        """Bring to the disk what :meth:`end` was told."""
        ...

    async def settled(self, *, limit: int = 1_000) -> Sequence[str]:
        """Return transactions that have ended, on the disk, and are not swept yet."""
        ...

    async def swept(self, gids: Collection[str]) -> None:
        """Note that no participant remembers ``gids`` any more."""
        ...

    async def purge(self, *, older_than: float) -> int:
        """Forget what was swept, and aborts, decided so many seconds ago; return how many."""
        ...

    async def claim(self, holder: str, *, ttl: float) -> int | None:
        """Take the lease of those who recover, or renew it; None if another holds it.

        Returns:
            The epoch, above that of every earlier holder.
        """
        ...

    async def release(self, holder: str) -> None:
        """Give the lease back if ``holder`` has it."""
        ...


@final
class MemoryLog:
    """Decisions in memory, for tests and trials: the end of the process is the end of them.

    Whatever is prepared then stays in doubt, for a person to decide. A listener is told so by
    :class:`DecisionsVolatile`.
    """

    __slots__ = ("_epoch", "_holder", "_identity", "_records", "_swept", "_until")

    def __init__(self) -> None:
        self._identity = ""
        self._records: dict[str, DecisionRecord] = {}
        self._swept: set[str] = set()
        self._holder = ""
        self._epoch = 0
        self._until = -math.inf

    def __repr__(self) -> str:
        return f"MemoryLog({len(self._records)} decisions, lost with the process)"

    async def identity(self) -> str:
        """Return the name that this log got with its first use."""
        if not self._identity:
            self._identity = new_id()[:12]
            if listening():
                emit(DecisionsVolatile(self._identity))
        return self._identity

    async def decide(self, proposal: Proposal) -> DecisionRecord:
        """Insert the decision unless there is one; return the one that is there then."""
        if proposal.epoch is not None and proposal.epoch != self._epoch:
            raise FencedError(f"epoch {proposal.epoch} is over, {self._epoch} recovers")
        record = self._records.get(proposal.gid)
        if record is None:
            record = DecisionRecord(*proposal, decided_at=wall())
            self._records[proposal.gid] = record
        return record

    async def read(self, gid: str) -> DecisionRecord | None:
        """Return the decision about ``gid``, or None if there is none."""
        return self._records.get(gid)

    async def unfinished(
        self, *, older_than: float = 0.0, limit: int = 1_000
    ) -> Sequence[DecisionRecord]:
        """Return the oldest decisions to commit that not all have carried out."""
        before = wall() - older_than
        found = [
            each
            for each in self._records.values()
            if each.decision is Decision.COMMIT
            and each.ended_at is None
            and each.decided_at <= before
        ]
        return found[:limit]

    async def note(self, gid: str, acked: Mapping[str, float], error: str) -> None:
        """Count an attempt that has not reached all."""
        record = self._records[gid]
        self._records[gid] = replace(record, acked=acked, attempts=record.attempts + 1, error=error)

    async def end(self, gid: str) -> None:
        """Note that all have committed ``gid``."""
        record = self._records[gid]
        if record.ended_at is None:
            self._records[gid] = replace(record, ended_at=wall())

    async def flush(self) -> None:
        """Nothing waits for a disk here."""

    async def settled(self, *, limit: int = 1_000) -> Sequence[str]:
        """Return transactions that have ended and are not swept yet."""
        records = self._records.values()
        found = [each.gid for each in records if each.ended_at is not None]
        return [gid for gid in found if gid not in self._swept][:limit]

    async def swept(self, gids: Collection[str]) -> None:
        """Note that no participant remembers ``gids`` any more."""
        self._swept.update(gids)

    async def purge(self, *, older_than: float) -> int:
        """Forget what was swept, and aborts, decided so many seconds ago; return how many."""
        before = wall() - older_than
        gone = [
            each.gid
            for each in self._records.values()
            if each.decided_at <= before
            and (each.decision is Decision.ABORT or each.gid in self._swept)
        ]
        for gid in gone:
            del self._records[gid]
        self._swept.difference_update(gone)
        return len(gone)

    async def claim(self, holder: str, *, ttl: float) -> int | None:
        """Take the lease of those who recover, or renew it; None if another holds it."""
        if holder != self._holder:
            if wall() < self._until:
                return None
            self._holder = holder
            self._epoch += 1
        self._until = wall() + ttl
        return self._epoch

    async def release(self, holder: str) -> None:
        """Give the lease back if ``holder`` has it."""
        if holder == self._holder:
            self._until = -math.inf
