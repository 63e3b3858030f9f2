"""Events of two-phase commit: what a person may have to know, or to do something about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from aiopatterns.core.telemetry import Event

__all__ = [
    "HeuristicFound",
    "TransactionAborted",
    "TransactionPending",
    "TransactionUnknown",
    "TransactionsForeign",
    "TransactionsRecovered",
    "TwoPhaseRecoveryInterrupted",
    "TwoPhaseRecoveryResumed",
    "TwoPhaseRecoveryTakenOver",
]


@final
@dataclass(frozen=True, slots=True)
class TransactionAborted(Event):
    """A transaction was aborted by its coordinator.

    Attributes:
        gid: Its id.
        reason: Why.
        pending: Participants that could not be told; recovery tells them.
    """

    name: ClassVar[str] = "aiopatterns.twophase.aborted"

    gid: str
    reason: str
    pending: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class TransactionPending(Event):
    """A transaction is to commit, and some have not done it yet; recovery tells them.

    Attributes:
        gid: Its id.
        participants: Those that have not.
        error: What was wrong with one of them.
    """

    name: ClassVar[str] = "aiopatterns.twophase.pending"
    level: ClassVar[str] = "warning"

    gid: str
    participants: tuple[str, ...]
    error: str


@final
@dataclass(frozen=True, slots=True)
class TransactionUnknown(Event):
    """The log does not say whether a transaction was decided; recovery finds out.

    Attributes:
        gid: Its id.
        error: What was wrong with the log.
    """

    name: ClassVar[str] = "aiopatterns.twophase.unknown"
    level: ClassVar[str] = "error"

    gid: str
    error: str


@final
@dataclass(frozen=True, slots=True)
class HeuristicFound(Event):
    """A participant has done the opposite of what was decided: somebody resolved it by hand.

    All or nothing is broken for this transaction, and only a person can mend it.

    Attributes:
        gid: Its id.
        decision: What was decided: ``commit`` or ``abort``.
        participants: Those that have done the opposite.
    """

    name: ClassVar[str] = "aiopatterns.twophase.heuristic"
    level: ClassVar[str] = "error"

    gid: str
    decision: str
    participants: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class TransactionsForeign(Event):
    """Transactions are in doubt whose decisions are in another log; nobody here touches them.

    If that log is lost, a person has to decide.

    Attributes:
        gids: Their ids.
    """

    name: ClassVar[str] = "aiopatterns.twophase.foreign"
    level: ClassVar[str] = "warning"

    gids: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class TransactionsRecovered(Event):
    """Recovery has resolved transactions that somebody had left.

    Attributes:
        committed: Those that have committed.
        aborted: Those that were rolled back.
    """

    name: ClassVar[str] = "aiopatterns.twophase.recovered"

    committed: tuple[str, ...]
    aborted: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class TwoPhaseRecoveryTakenOver(Event):
    """This process recovers from now on.

    Attributes:
        coordinator: Who.
        epoch: Of the lease; claims of earlier ones are refused.
    """

    name: ClassVar[str] = "aiopatterns.twophase.recovery_taken_over"

    coordinator: str
    epoch: int


@final
@dataclass(frozen=True, slots=True)
class TwoPhaseRecoveryInterrupted(Event):
    """Recovery cannot reach its log, or a participant; it goes on trying.

    Attributes:
        error: What is wrong.
    """

    name: ClassVar[str] = "aiopatterns.twophase.recovery_interrupted"
    level: ClassVar[str] = "warning"

    error: str


@final
@dataclass(frozen=True, slots=True)
class TwoPhaseRecoveryResumed(Event):
    """Recovery reaches its log and all participants again."""

    name: ClassVar[str] = "aiopatterns.twophase.recovery_resumed"
