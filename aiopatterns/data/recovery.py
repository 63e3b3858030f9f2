"""Recovery: ends what a coordinator has left, for ever, in turns.

A coordinator that dies leaves promises behind, and a promise keeps rows locked until somebody says
what is decided. What has to be done follows from the log and the age of a promise alone::

    promise   in the log         so
    any       COMMIT             commit
    any       ABORT              roll back
    old       nothing            insert ABORT, obey what is there then
    young     nothing            wait: its coordinator is at work, or would be
    foreign                      another log's: leave it alone, and tell a person

    decided   promise            so
    COMMIT    none, remembered   done
    COMMIT    none, nothing      somebody has rolled it back by hand, or lost it: tell a person

It is a loop, not a step at the start: a PREPARE that was under way when its coordinator died may
arrive after everybody has looked.

Guarantees:

* Any number of processes may recover at once; a lease lets one at a time do it, and the epoch of
  an earlier one is refused. Every step may be repeated.
* A log or participant that does not answer is asked again, with jitter, for ever. A listener is
  told once when that begins and once when it ends.
* What is against the decision is told. What was decided to commit is in every report until a person
  has mended it and says so by :meth:`~aiopatterns.data.TwoPhaseCommit.resolve`.

Not guaranteed: an end while the log, or a participant, is away. Two-phase commit *blocks*.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, final

from anyio import fail_after, move_on_after

from aiopatterns.core.clock import rng, sleep
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.notes import in_words
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.validate import positive
from aiopatterns.data.carrying import ANSWERED_WITHIN, carry_out
from aiopatterns.data.decisions import Decision, FencedError, Proposal
from aiopatterns.data.twophaseevents import (
    TransactionsForeign,
    TransactionsRecovered,
    TwoPhaseRecoveryInterrupted,
    TwoPhaseRecoveryResumed,
    TwoPhaseRecoveryTakenOver,
)
from aiopatterns.flow.mapping import amap

if TYPE_CHECKING:
    from collections.abc import Collection

    from anyio.abc import TaskGroup

    from aiopatterns.data.decisions import DecisionRecord
    from aiopatterns.data.participants import Participant
    from aiopatterns.data.transaction import Ledger

__all__ = [
    "KEPT",
    "Move",
    "RecoveryReport",
    "TwoPhaseRecovery",
    "TwoPhaseRecoveryStatistics",
    "next_move",
    "recover",
]

#: Seconds that decisions are kept, for late questions.
KEPT: Final = 7 * 24 * 3600.0
#: Seconds that leaving may take, to give the lease back.
FAREWELL: Final = 1.0
_AT_ONCE: Final = 8
_JITTER: Final = 0.2
_SEPARATOR: Final = "-"


@final
@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What one turn of recovery has found.

    Attributes:
        committed: Transactions that are committed everywhere by now.
        aborted: Those that are rolled back everywhere by now.
        heuristic: Those of which a participant has done the opposite of what is decided.
        pending: Those that wait: for their coordinator's time to be over, or for a participant.
        foreign: Those in doubt whose decisions are in another log.
        unreachable: Participants that have not answered.
        in_doubt: Seconds since the oldest promise that is not resolved; 0 if there is none.
    """

    committed: tuple[str, ...] = ()
    aborted: tuple[str, ...] = ()
    heuristic: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    in_doubt: float = 0.0


class Move(Enum):
    """What to do about a promise."""

    COMMIT = "commit"
    ROLL_BACK = "roll_back"
    CLAIM = "claim"
    WAIT = "wait"


def next_move(decision: Decision | None, *, age: float, timeout: float) -> Move:
    """Return what to do about a promise.

    Args:
        decision: What the log holds.
        age: Seconds since the promise, by the participant's clock. Its transaction began before
            that, so an age above ``timeout`` means that its coordinator may not commit any more.
        timeout: Seconds that a transaction may take to its decision.
    """
    if decision is Decision.COMMIT:
        return Move.COMMIT
    if decision is Decision.ABORT:
        return Move.ROLL_BACK
    return Move.CLAIM if age > timeout else Move.WAIT


@final
@dataclass(slots=True)
class _Doubt:
    """A transaction that somebody has promised."""

    age: float = 0.0
    promised: list[Participant[Any]] = field(default_factory=list["Participant[Any]"])


@final
class _Turn:
    """One turn of recovery."""

    __slots__ = (
        "_epoch",
        "_ledger",
        "aborted",
        "committed",
        "foreign",
        "heuristic",
        "pending",
        "unreachable",
    )

    def __init__(self, ledger: Ledger, epoch: int | None) -> None:
        self._ledger = ledger
        self._epoch = epoch
        self.committed: set[str] = set()
        self.aborted: set[str] = set()
        self.heuristic: set[str] = set()
        self.pending: dict[str, float] = {}
        self.foreign: set[str] = set()
        self.unreachable: set[str] = set()

    def report(self) -> RecoveryReport:
        """Return what was found so far."""
        return RecoveryReport(
            committed=tuple(sorted(self.committed)),
            aborted=tuple(sorted(self.aborted)),
            heuristic=tuple(sorted(self.heuristic)),
            pending=tuple(sorted(self.pending)),
            foreign=tuple(sorted(self.foreign)),
            unreachable=tuple(sorted(self.unreachable)),
            in_doubt=max(self.pending.values(), default=0.0),
        )

    async def run(self, older_than: float) -> None:
        """Look at all promises and at all decisions that wait."""
        log = self._ledger.log
        identity = await log.identity()
        doubts = await self._doubts(identity)
        waiting = {each.gid: each for each in await log.unfinished(older_than=older_than)}
        await amap(self._finish, waiting.values(), limit=_AT_ONCE)
        self.pending = {gid: doubts.get(gid, _Doubt()).age for gid in self.pending}
        others = {gid: doubt for gid, doubt in doubts.items() if gid not in waiting}

        async def resolve(gid: str) -> None:
            await self._resolve(gid, others[gid])

        await amap(resolve, others, limit=_AT_ONCE)

    async def _doubts(self, identity: str) -> dict[str, _Doubt]:
        """Return what is promised under this log, by its id."""
        doubts: dict[str, _Doubt] = {}

        async def look(participant: Participant[Any]) -> None:
            try:
                with fail_after(ANSWERED_WITHIN):
                    found = await participant.in_doubt()
            except Exception:
                self.unreachable.add(participant.name)
                return
            for gid, age in found:
                if gid.partition(_SEPARATOR)[0] != identity:
                    self.foreign.add(gid)
                    continue
                doubt = doubts.setdefault(gid, _Doubt())
                doubt.age = max(doubt.age, age)
                doubt.promised.append(participant)

        await amap(look, self._ledger.participants.values(), limit=_AT_ONCE)
        return doubts

    async def _finish(self, record: DecisionRecord) -> None:
        """Carry out a decision to commit where that was not done."""
        ledger = self._ledger
        names = [each.name for each in record.participants if each.name not in record.acked]
        known = [ledger.participants[name] for name in names if name in ledger.participants]
        missing = [name for name in names if name not in ledger.participants]
        carried = await carry_out(record.gid, record.decision, known, log=ledger.log)
        acked = {**record.acked, **carried.done}
        if carried.opposed:
            self.heuristic.add(record.gid)
            problem = f"rolled back by {', '.join(carried.opposed)}"
            if record.error != problem:  # found just now
                ledger.opposed(record.gid, record.decision, carried.opposed)
        elif carried.pending or missing:
            self.pending[record.gid] = 0.0
            problem = "; ".join(
                [*carried.pending.values(), *(f"{each}: no such" for each in missing)]
            )
        else:
            self.committed.add(record.gid)
            return await ledger.log.end(record.gid)
        return await ledger.log.note(record.gid, acked, problem)

    async def _resolve(self, gid: str, doubt: _Doubt) -> None:
        """End a promise of which the log has no decision that waits."""
        ledger = self._ledger
        record = await ledger.log.read(gid)
        move = next_move(
            None if record is None else record.decision, age=doubt.age, timeout=ledger.timeout
        )
        if move is Move.CLAIM:
            claim = Proposal(gid, Decision.ABORT, coordinator=ledger.holder, epoch=self._epoch)
            record = await ledger.log.decide(claim)
        if move is Move.WAIT or record is None or _is_under_way(record):
            self.pending[gid] = doubt.age
            return
        told = doubt.promised
        if record.decision is Decision.ABORT:  # somebody may have committed it by hand
            told = [*ledger.participants.values()]
        carried = await carry_out(gid, record.decision, told)
        if carried.opposed:
            self.heuristic.add(gid)
            ledger.opposed(gid, record.decision, carried.opposed)
        elif carried.pending:
            self.pending[gid] = doubt.age
        else:
            ended = self.committed if record.decision is Decision.COMMIT else self.aborted
            ended.add(gid)


def _is_under_way(record: DecisionRecord) -> bool:
    """Whether it was decided a moment ago, so that its coordinator carries it out."""
    return record.decision is Decision.COMMIT and record.ended_at is None


async def recover(
    ledger: Ledger, *, epoch: int | None = None, older_than: float = 0.0
) -> RecoveryReport:
    """Take one turn.

    Args:
        ledger: The log, the participants and the timeout.
        epoch: That of the lease; None to do without.
        older_than: Seconds for which decisions are left to their coordinators.

    Raises:
        FencedError: The epoch is over.
        BackendError: The log does not answer. Participants that do not are in the report.
    """
    turn = _Turn(ledger, epoch)
    await turn.run(older_than)
    await ledger.log.flush()
    report = turn.report()
    if listening() and (report.committed or report.aborted):
        emit(TransactionsRecovered(report.committed, report.aborted))
    return report


async def sweep(ledger: Ledger) -> None:
    """Let participants forget what has ended, and the log what was over long ago.

    Raises:
        Exception: One of them does not answer; nothing is lost by that.
    """
    gids = await ledger.log.settled()
    if gids:
        await amap(lambda each: each.forget(gids), ledger.participants.values(), limit=_AT_ONCE)
        await ledger.log.swept(gids)
    await ledger.log.purge(older_than=KEPT)


@final
@dataclass(frozen=True, slots=True)
class TwoPhaseRecoveryStatistics:
    """What a recovery has done.

    Attributes:
        leading: Whether it holds the lease.
        turns: How many turns it has taken.
        committed: Transactions that it has committed.
        aborted: Those that it has rolled back.
        last: The report of the last turn.
    """

    leading: bool
    turns: int
    committed: int
    aborted: int
    last: RecoveryReport


@final
class TwoPhaseRecovery(Owner):
    """Recovers while it is open; made by ``TwoPhaseCommit.recovery()``.

    Args:
        ledger: The log, the participants and the timeout.
        interval: Seconds between two turns, a fifth more or less.
        lease: Seconds after which another process takes over from one that is dead; above
            ``interval``.
    """

    __slots__ = (
        "_aborted",
        "_committed",
        "_epoch",
        "_foreign",
        "_interrupted",
        "_interval",
        "_last",
        "_lease",
        "_ledger",
        "_turns",
    )

    def __init__(self, ledger: Ledger, *, interval: float = 5.0, lease: float = 30.0) -> None:
        super().__init__(f"recovery of {ledger.holder}")
        self._ledger = ledger
        self._interval = positive("interval", interval)
        if positive("lease", lease) <= interval:
            msg = f"lease must be above interval ({interval!r}), not {lease!r}"
            raise ValueError(msg)
        self._lease = lease
        self._epoch: int | None = None
        self._last = RecoveryReport()
        self._interrupted = False
        self._foreign: Collection[str] = ()
        self._turns = self._committed = self._aborted = 0

    def statistics(self) -> TwoPhaseRecoveryStatistics:
        """Return what it has done so far."""
        return TwoPhaseRecoveryStatistics(
            self._epoch is not None, self._turns, self._committed, self._aborted, self._last
        )

    async def _start(self, tasks: TaskGroup) -> None:
        tasks.start_soon(self._run)

    def _settle(self) -> None:
        self._epoch = None
        self._interrupted = False

    async def _run(self) -> None:
        """Take turns; ends by cancellation."""
        try:
            while True:
                problem = await self._take_turn()
                self._tell(problem)
                await sleep(self._interval * rng().uniform(1 - _JITTER, 1 + _JITTER))
        finally:
            with move_on_after(FAREWELL, shield=True), suppress(Exception):
                await self._ledger.log.flush()
                if self._epoch is not None:
                    await self._ledger.log.release(self._ledger.holder)

    async def _take_turn(self) -> str | None:
        """Take one turn, if nobody else does; return what was wrong."""
        ledger = self._ledger
        try:
            await ledger.log.flush()
            epoch = await ledger.log.claim(ledger.holder, ttl=self._lease)
            if epoch is not None and epoch != self._epoch and listening():
                emit(TwoPhaseRecoveryTakenOver(ledger.holder, epoch))
            self._epoch = epoch
            if epoch is None:
                return None
            report = await recover(ledger, epoch=epoch, older_than=self._interval)
            self._note(report)
            if report.unreachable:
                return f"no answer from {', '.join(report.unreachable)}"
            await sweep(ledger)
        except FencedError:
            self._epoch = None
        except Exception as error:
            return in_words(error)
        return None

    def _note(self, report: RecoveryReport) -> None:
        self._last = report
        self._turns += 1
        self._committed += len(report.committed)
        self._aborted += len(report.aborted)
        if report.foreign and report.foreign != self._foreign and listening():
            emit(TransactionsForeign(report.foreign))
        self._foreign = report.foreign

    def _tell(self, problem: str | None) -> None:
        """Tell once that it is interrupted, and once that it is not any more."""
        was, self._interrupted = self._interrupted, problem is not None
        if was is self._interrupted or not listening():
            return
        emit(TwoPhaseRecoveryResumed() if problem is None else TwoPhaseRecoveryInterrupted(problem))
