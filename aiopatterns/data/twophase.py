"""TwoPhaseCommit: one transaction over several databases; all of them commit, or none.

Two commits one after the other are two chances to fail in between. Here each participant first
*promises* that it can commit, whatever happens to it; then the decision is written down, once; then
all are told::

    begin   work at a, work at b
    1       prepare a --> YES                 no answer, or NO: all roll back
            prepare b --> YES
    D       log: COMMIT g17, synced           the point at which it is true
    2       commit a, commit b                repeated until it has worked, by recovery if need be

Guarantees:

* All or nothing, after a crash of the coordinator or of any participant at any point; recovery
  brings the end. The table of crash points is in ``docs/patterns/two-phase-commit.md``.
* A decision is made once. Whoever is late, or slow, obeys what is there.
* A participant that was resolved by hand against the decision is reported, never hidden.
* Transactions that are decided at the same time share one flush of the disk.

Not guaranteed:

* Progress while the log or a participant is away. From its promise on, a participant's rows stay
  locked until it is told: that is the price, and why a saga is the better first choice.
* Isolation between databases. For a moment one has committed and the other has not, and a reader
  of both sees that.
* Deadlocks over two databases are seen by neither; the timeout ends them.

Source: Gray, "Notes on data base operating systems" (1978); Mohan, Lindsay and Obermarck,
"Transaction management in the R* distributed database management system" (1986), presumed abort.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from aiopatterns.core.context import new_id
from aiopatterns.core.validate import positive, text
from aiopatterns.data.participants import LastResource, participant_name
from aiopatterns.data.recovery import TwoPhaseRecovery, recover
from aiopatterns.data.transaction import Ledger, Transaction, TransactionState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiopatterns.data.decisions import Decision, DecisionLog
    from aiopatterns.data.participants import Participant
    from aiopatterns.data.recovery import RecoveryReport

__all__ = ["TwoPhaseCommit", "TwoPhaseStatistics"]

_VERBS = ("branch", "prepare", "commit", "rollback", "in_doubt", "outcome", "forget")


@final
@dataclass(frozen=True, slots=True)
class TwoPhaseStatistics:
    """What a coordinator has done so far.

    Attributes:
        active: Transactions under way.
        committed: Those that were committed.
        aborted: Those that were rolled back.
        unknown: Those of which the caller was told that nobody knows.
        heuristic: Participants' answers that were against the decision.
    """

    active: int
    committed: int
    aborted: int
    unknown: int
    heuristic: int


@final
class TwoPhaseCommit:
    """A coordinator: makes transactions over its participants, and recovers what others have left.

    It may be made at module level and does no I/O then. Any number of processes may have one over
    the same log, and one participant may have several.

    Args:
        log: Where decisions are: a ``SqliteLog`` or a ``PostgresLog``; a ``MemoryLog`` for tests.
            All that recover each other's transactions share one.
        participants: Who may take part; those that a transaction does not use are not asked.
        timeout: Seconds from the begin of a transaction to its decision. What is promised and not
            decided for longer is aborted by recovery; the same in all processes.
        name: How events and errors call this coordinator.

    Raises:
        TypeError: A participant is none.
        ValueError: There is none, two have one name, a last resource has another log, or
            ``timeout`` is out of its range.

    Example::

        log = SqliteLog("decisions.db")
        bank, shop = PostgresParticipant("bank", dsn), PostgresParticipant("shop", other)
        transfers = TwoPhaseCommit(log, participants=[bank, shop])

        async with transfers.recovery():
            async with transfers.transaction() as tx:
                await tx[bank].execute("UPDATE accounts SET ...")
                await tx[shop].execute("UPDATE orders SET ...")
    """

    __slots__ = ("_ledger", "name")

    def __init__(
        self,
        log: DecisionLog,
        participants: Iterable[Participant[Any]],
        *,
        timeout: float = 30.0,
        name: str = "two-phase",
    ) -> None:
        self.name: str = text("name", name)
        given = [*participants]
        names = [participant_name(_checked(each, log).name) for each in given]
        if not given or len({*names}) < len(names):
            msg = f"participants must be at least one, with names of their own, not {names!r}"
            raise ValueError(msg)
        self._ledger = Ledger(
            log, given, timeout=positive("timeout", timeout), holder=f"{name}-{new_id()}"
        )

    def __repr__(self) -> str:
        return f"TwoPhaseCommit({self.name!r}, participants={[*self._ledger.participants]})"

    @property
    def timeout(self) -> float:
        """Seconds from the begin of a transaction to its decision."""
        return self._ledger.timeout

    def transaction(self) -> Transaction:
        """Return a new transaction, an ``async with`` block."""
        return Transaction(self._ledger, self._new_gid)

    def recovery(self, *, interval: float = 5.0, lease: float = 30.0) -> TwoPhaseRecovery:
        """Return an ``async with`` block that recovers while it is open; every process should.

        Args:
            interval: Seconds between two turns, a fifth more or less.
            lease: Seconds after which another process takes over from one that is dead.

        Raises:
            ValueError: ``lease`` is not above ``interval``.
        """
        return TwoPhaseRecovery(self._ledger, interval=interval, lease=lease)

    async def recover_once(self) -> RecoveryReport:
        """Take one turn of recovery now, whoever holds the lease.

        Raises:
            BackendError: The log does not answer. Participants that do not are in the report.

        Cancellation: some are resolved, and some not.
        """
        return await recover(self._ledger)

    async def outcome(self, gid: str) -> Decision | None:
        """Return what was decided about ``gid``; None if nothing was, or if it is long forgotten.

        Raises:
            BackendError: The log does not answer.
        """
        record = await self._ledger.log.read(text("gid", gid))
        return None if record is None else record.decision

    async def resolve(self, gid: str) -> None:
        """Take the opposed participants of ``gid`` to have been mended, by a person.

        Recovery then reports it no more.

        Raises:
            BackendError: The log does not answer.
        """
        await self._ledger.log.end(text("gid", gid))
        await self._ledger.log.flush()

    def statistics(self) -> TwoPhaseStatistics:
        """Return what it has done so far."""
        counts = self._ledger.counts
        return TwoPhaseStatistics(
            active=self._ledger.active,
            committed=counts[TransactionState.COMMITTED],
            aborted=counts[TransactionState.ABORTED],
            unknown=counts[TransactionState.UNKNOWN],
            heuristic=self._ledger.heuristic,
        )

    async def _new_gid(self) -> str:
        """The log's identity, and what is unique in it."""
        return f"{await self._ledger.log.identity()}-{new_id()}"


def _checked(participant: Participant[Any], log: DecisionLog) -> Participant[Any]:
    """Return ``participant`` if it is one, for this log.

    Raises:
        TypeError: It is none.
        ValueError: It is a last resource of another log.
    """
    if missing := [each for each in _VERBS if not hasattr(participant, each)]:
        msg = f"participants must be participants, but {participant!r} has no {', '.join(missing)}"
        raise TypeError(msg)
    if isinstance(participant, LastResource) and participant.log is not log:
        msg = f"log must be the one that {participant!r} commits with"
        raise ValueError(msg)
    return participant
