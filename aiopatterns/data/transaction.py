"""Transaction: one two-phase commit, from its first statement to the end.

::

    WORKING --- the block ends ---> PREPARING --- all YES, decided --> COMMITTED
       |                               |    '---- the log is silent -> UNKNOWN: recovery ends it
       '------ an error, the timeout --'-- NO, or too late ----------> ABORTED

Until the decision everything can be given up, and a cancellation does that. The decision and what
follows belong to nobody's task: a caller who is cancelled then is cancelled when they are over.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from anyio import CancelScope, create_task_group, current_time, fail_after

from aiopatterns.core.clock import wall
from aiopatterns.core.completion import to_the_end
from aiopatterns.core.errors import (
    BackendError,
    ClosedError,
    HeuristicOutcomeError,
    OutcomeUnknownError,
    TimeoutExceededError,
    TwoPhaseError,
)
from aiopatterns.core.notes import in_words, note
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.data.carrying import carry_out
from aiopatterns.data.decisions import Decision, Enlisted, Proposal
from aiopatterns.data.participants import CommitsAlone, LastResource, Vote
from aiopatterns.data.twophaseevents import (
    HeuristicFound,
    TransactionAborted,
    TransactionPending,
    TransactionUnknown,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType
    from typing import Self

    from aiopatterns.data.decisions import DecisionLog, DecisionRecord
    from aiopatterns.data.participants import Participant

__all__ = ["DECIDED_WITHIN", "Ledger", "Transaction", "TransactionState"]

B = TypeVar("B")

#: Seconds that the log may take for a decision.
DECIDED_WITHIN: Final = 30.0


class TransactionState(Enum):
    """Where a transaction is."""

    WORKING = "working"
    PREPARING = "preparing"
    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


@final
class Ledger:
    """What the transactions of one coordinator share.

    Args:
        log: Where decisions are.
        participants: Who may take part.
        timeout: Seconds from the first statement to the decision.
        holder: Who the coordinator is.
    """

    __slots__ = ("active", "counts", "heuristic", "holder", "log", "participants", "timeout")

    def __init__(
        self,
        log: DecisionLog,
        participants: Iterable[Participant[Any]],
        *,
        timeout: float,
        holder: str,
    ) -> None:
        self.log: Final[DecisionLog] = log
        self.participants: Final[dict[str, Participant[Any]]] = {
            each.name: each for each in participants
        }
        self.timeout: Final[float] = timeout
        self.holder: Final[str] = holder
        self.active: int = 0
        self.heuristic: int = 0
        self.counts: dict[TransactionState, int] = dict.fromkeys(TransactionState, 0)

    def opposed(self, gid: str, decision: Decision, names: Iterable[str]) -> None:
        """Count participants that have done the opposite, and tell of them."""
        self.heuristic += 1
        if listening():
            emit(HeuristicFound(gid, decision.value, tuple(sorted(names))))


@final
class Transaction:
    """One transaction over several participants; made by ``TwoPhaseCommit.transaction()``.

    ``tx[participant]`` is the work there. The block commits when it ends, and rolls back if it
    raises.

    Args:
        ledger: What it shares with others.
        gid: How its id is made, when it begins.

    Raises:
        TwoPhaseError: Leaving: it was aborted, since a participant voted NO or because recovery
            had given it up. The participant's error is the cause.
        OutcomeUnknownError: Leaving: the log does not say whether it was decided. Recovery ends it;
            ``TwoPhaseCommit.outcome(gid)`` tells how.
        HeuristicOutcomeError: Leaving: it was committed, and a participant has rolled it back by
            hand, or has lost it.
        TimeoutExceededError: Leaving: its time was over, and it was aborted.
        BackendError: Entering: the log cannot be reached.

    Cancellation: before the decision it aborts; a cancellation that comes later is raised when all
    participants have been told.
    """

    __slots__ = (
        "_branches",
        "_created_at",
        "_gid",
        "_ledger",
        "_over",
        "_refused",
        "_scope",
        "_voters",
        "gid",
        "pending",
        "state",
    )

    def __init__(self, ledger: Ledger, gid: Callable[[], Awaitable[str]]) -> None:
        self.gid: str = ""
        self.state: TransactionState = TransactionState.WORKING
        self.pending: tuple[str, ...] = ()
        self._ledger = ledger
        self._gid = gid
        self._over = False
        self._created_at = 0.0
        self._branches: dict[str, Any] = {}
        self._voters: dict[str, Participant[Any]] = {}  # those that have to be told the outcome
        self._refused: tuple[str, Exception | None] | None = None
        self._scope = CancelScope()

    def __repr__(self) -> str:
        return f"Transaction({self.gid!r}, {self.state.value})"

    def __getitem__(self, participant: Participant[B]) -> B:
        """Return the work of this transaction at ``participant``.

        Raises:
            ClosedError: The block is not entered, or has ended.
            ValueError: It is none of the coordinator's participants, or a second last resource.
        """
        if not self.gid or self._over:
            msg = "a transaction is used inside 'async with transfers.transaction() as tx:'"
            raise ClosedError(msg)
        name = getattr(participant, "name", "")
        if self._ledger.participants.get(name) is not participant:
            msg = f"participants must hold {participant!r} before it can take part"
            raise ValueError(msg)
        if name not in self._branches:
            if isinstance(participant, LastResource) and self._last() is not None:
                msg = (
                    f"{name!r} would be the second last resource of a transaction; only one can be"
                )
                raise ValueError(msg)
            self._branches[name] = participant.branch(self.gid)
            self._voters[name] = participant
        branch: B = self._branches[name]
        return branch

    async def __aenter__(self) -> Self:
        """Begin; no participant is asked yet.

        Raises:
            RuntimeError: It was entered before; make another one.
        """
        if self.gid:
            msg = "a transaction is entered only once; call transaction() for each"
            raise RuntimeError(msg)
        self.gid = await self._gid()
        self._created_at = wall()
        self._ledger.active += 1
        self._scope.deadline = current_time() + self._ledger.timeout
        self._scope.__enter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Commit, or roll back if the block has raised."""
        self._over = True
        try:
            error = exc or await self._voted()
            if error is not None:
                await self._give_up(error)
                if error is not exc:
                    raise error
            else:
                self._scope.__exit__(None, None, None)
                await to_the_end(self._settle)
        finally:
            self._ledger.active -= 1
            self._ledger.counts[self.state] += 1

    # --------------------------------------------------------------------------- the first phase

    async def _voted(self) -> BaseException | None:
        """Ask all for their promise; return why there is none."""
        self.state = TransactionState.PREPARING
        try:
            if self._alone() is None:
                await self._ask_all()
        except BaseException as error:
            return error
        return None

    async def _ask_all(self) -> None:
        """Ask all at once, but the last resource when the others have promised.

        Raises:
            TwoPhaseError: One has not.
        """
        last = self._last()
        async with create_task_group() as group:
            for each in [*self._voters.values()]:
                if each is not last:
                    group.start_soon(self._ask, each, group.cancel_scope)
        if last is not None and self._refused is None:
            await self._ask(last, CancelScope())
        if self._refused is not None:
            name, error = self._refused
            reason = "it voted no" if error is None else in_words(error)
            raise TwoPhaseError(
                f"transaction {self.gid} was aborted by {name!r}: {reason}", gid=self.gid
            ) from error

    async def _ask(self, participant: Participant[Any], others: CancelScope) -> None:
        try:
            vote = await participant.prepare(self.gid)
        except Exception as error:
            self._refused = self._refused or (participant.name, error)
            others.cancel()
            return
        if vote is Vote.READ_ONLY:
            del self._voters[participant.name]
        elif vote is not Vote.YES:
            self._refused = self._refused or (participant.name, None)
            others.cancel()

    async def _give_up(self, error: BaseException) -> None:
        """Roll back, whatever comes.

        Raises:
            TimeoutExceededError: That was because its time was over.
        """
        try:
            await to_the_end(lambda: self._roll_back(in_words(error)))
        except BaseException as another:
            self._scope.__exit__(type(another), another, another.__traceback__)
            raise
        if self._scope.__exit__(type(error), error, error.__traceback__):
            timeout = self._ledger.timeout
            raise TimeoutExceededError(
                f"transaction {self.gid} was aborted: it took longer than {timeout:g} s",
                timeout=timeout,
            ) from None

    async def _roll_back(self, reason: str) -> None:
        self.state = TransactionState.ABORTED
        carried = await carry_out(self.gid, Decision.ABORT, self._voters.values())
        if carried.opposed:
            self._ledger.opposed(self.gid, Decision.ABORT, carried.opposed)
        self.pending = tuple(sorted(carried.pending))
        if listening():
            emit(TransactionAborted(self.gid, reason, self.pending))

    # --------------------------------------------------------------------------- the second phase

    async def _settle(self) -> None:
        """Decide and carry it out."""
        if (alone := self._alone()) is not None:
            await self._commit_alone(alone)
        elif self._voters:
            record = await self._decided()
            if record.decision is Decision.ABORT:
                reason = "recovery, or a silent log, has aborted it"
                await self._roll_back(reason)
                raise TwoPhaseError(f"transaction {self.gid}: {reason}", gid=self.gid)
            await self._carry_out(record)
        self.state = TransactionState.COMMITTED

    async def _commit_alone(self, alone: CommitsAlone) -> None:
        try:
            committed = await alone.commit_alone(self.gid)
        except OutcomeUnknownError as error:
            self._lost(error)
            raise
        except Exception as error:
            await self._roll_back(in_words(error))
            raise TwoPhaseError(
                f"transaction {self.gid} was aborted: {in_words(error)}", gid=self.gid
            ) from error
        if not committed:
            self.state = TransactionState.ABORTED
            raise TwoPhaseError(f"transaction {self.gid} was rolled back", gid=self.gid)

    async def _decided(self) -> DecisionRecord:
        """Write the decision; return the one that holds.

        When the answer is lost it is not guessed: an abort is inserted, unless the decision is
        there already.

        Raises:
            OutcomeUnknownError: The log says nothing.
        """
        ledger, last = self._ledger, self._last()
        proposal = Proposal(
            self.gid,
            Decision.COMMIT,
            tuple(Enlisted(each.name, type(each).__name__) for each in self._told()),
            ledger.holder,
            self._created_at,
            self._created_at + ledger.timeout,
        )
        try:
            with fail_after(DECIDED_WITHIN):
                if last is not None:
                    return await last.commit_with(self.gid, proposal)
                return await ledger.log.decide(proposal)
        except Exception as error:
            return await self._claimed(proposal._replace(decision=Decision.ABORT), error)

    async def _claimed(self, proposal: Proposal, error: Exception) -> DecisionRecord:
        try:
            with fail_after(DECIDED_WITHIN):
                return await self._ledger.log.decide(proposal._replace(participants=()))
        except Exception as another:
            note(error, f"then the log was asked what it holds: {in_words(another)}")
            self._lost(error)
            raise OutcomeUnknownError(
                f"nobody knows yet whether transaction {self.gid} is committed: {in_words(error)};"
                " recovery ends it either way",
                gid=self.gid,
            ) from error

    def _lost(self, error: Exception) -> None:
        self.state = TransactionState.UNKNOWN
        if listening():
            emit(TransactionUnknown(self.gid, in_words(error)))

    async def _carry_out(self, record: DecisionRecord) -> None:
        """Tell those who wait for it.

        Raises:
            HeuristicOutcomeError: One has done the opposite.
        """
        ledger = self._ledger
        self.state = TransactionState.COMMITTED
        carried = await carry_out(self.gid, record.decision, self._told(), log=ledger.log)
        self.pending = tuple(sorted(carried.pending))
        problem = "; ".join(f"{name}: {error}" for name, error in carried.pending.items())
        if carried.opposed:
            problem = f"rolled back by {', '.join(carried.opposed)}"
        try:
            if problem:
                await ledger.log.note(self.gid, carried.done, problem)
            else:
                await ledger.log.end(self.gid)
        except BackendError as error:  # recovery finds out for itself
            problem = problem or in_words(error)
        if carried.opposed:
            ledger.opposed(self.gid, record.decision, carried.opposed)
            raise HeuristicOutcomeError(
                f"transaction {self.gid} is committed, but {problem}", gid=self.gid
            )
        if self.pending and listening():
            emit(TransactionPending(self.gid, self.pending, problem))

    # --------------------------------------------------------------------------- who takes part

    def _alone(self) -> CommitsAlone | None:
        """Return the only participant, if it can do without a decision."""
        if len(self._branches) != 1:
            return None
        (name,) = self._branches
        only = self._ledger.participants[name]
        return only if isinstance(only, CommitsAlone) else None

    def _last(self) -> LastResource | None:
        found = [each for each in self._voters.values() if isinstance(each, LastResource)]
        return found[0] if found else None

    def _told(self) -> list[Participant[Any]]:
        """Return those that wait for a decision: all but the last resource, which is its own."""
        last = self._last()
        return [each for each in self._voters.values() if each is not last]
