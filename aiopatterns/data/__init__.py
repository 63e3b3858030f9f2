"""Data: one truth on several nodes."""

from aiopatterns.data.changelog import Change, ChangeLog
from aiopatterns.data.clock import HybridClock, Stamp
from aiopatterns.data.conflict import (
    Conflict,
    FirstWriteWins,
    LastWriteWins,
    Manual,
    Resolution,
    Strategy,
    frontier,
    reconcile,
    resolve,
)
from aiopatterns.data.counter import PNCounter, merge_counters
from aiopatterns.data.decisions import (
    Decision,
    DecisionLog,
    DecisionRecord,
    DecisionsVolatile,
    Enlisted,
    FencedError,
    MemoryLog,
    Proposal,
)
from aiopatterns.data.draft import Held
from aiopatterns.data.memoryparticipant import MemoryBranch, MemoryParticipant
from aiopatterns.data.memorystore import MemorySyncStore
from aiopatterns.data.merge import (
    Merge,
    MergeFunction,
    merge_fields,
    merge_registers,
    register,
    three_way,
)
from aiopatterns.data.orset import ORSet, merge_sets
from aiopatterns.data.participants import (
    CommitsAlone,
    Fate,
    LastResource,
    Participant,
    Prepared,
    Vote,
)
from aiopatterns.data.position import Position
from aiopatterns.data.postgresbranch import PostgresBranch
from aiopatterns.data.postgresnode import PostgresNode
from aiopatterns.data.postgresparticipant import PostgresParticipant
from aiopatterns.data.recovery import RecoveryReport, TwoPhaseRecovery, TwoPhaseRecoveryStatistics
from aiopatterns.data.redisparticipant import RedisBranch, RedisParticipant
from aiopatterns.data.replica import Replica, ReplicaBack, ReplicaLost, ReplicaStatistics
from aiopatterns.data.replicas import ReplicaRouter, ReplicaRouterStatistics
from aiopatterns.data.saga import Saga, SagaResult, SagaStatistics
from aiopatterns.data.sagabarrier import SagaBarrier
from aiopatterns.data.sagaevents import (
    SagaEnded,
    SagaMigrationNeeded,
    SagaRecoveryInterrupted,
    SagaRecoveryResumed,
    SagaStuck,
    SagaTakenOver,
    SagaTurnedBack,
)
from aiopatterns.data.sagajournal import SagaState, StepOutcome, StepState
from aiopatterns.data.sagarecovery import SagaRecovery, SagaRecoveryStatistics, SagaReport
from aiopatterns.data.sagaredis import RedisSagaStore
from aiopatterns.data.sagasql import PostgresSagaStore, SqliteSagaStore
from aiopatterns.data.sagastore import MemorySagaStore, SagaStore
from aiopatterns.data.session import ReplicaSession
from aiopatterns.data.sqlidempotency import SqlIdempotent
from aiopatterns.data.sqlitebranch import SqliteBranch
from aiopatterns.data.sqlitelastresource import SqliteLastResource
from aiopatterns.data.sqliteparticipant import SqliteParticipant
from aiopatterns.data.sqllogs import PostgresLog, SqliteLog
from aiopatterns.data.sqlstore import SqlSyncStore
from aiopatterns.data.sync import SyncDirection, Synchronizer, SyncProgress, SyncReport
from aiopatterns.data.syncevents import (
    SyncConflictFound,
    SyncInterrupted,
    SyncQuarantined,
    SyncResumed,
    SyncStartedOver,
)
from aiopatterns.data.syncstore import SyncStore
from aiopatterns.data.syncwatch import SyncWatch, SyncWatchStatistics
from aiopatterns.data.transaction import Transaction, TransactionState
from aiopatterns.data.twophase import TwoPhaseCommit, TwoPhaseStatistics
from aiopatterns.data.twophaseevents import (
    HeuristicFound,
    TransactionAborted,
    TransactionPending,
    TransactionsForeign,
    TransactionsRecovered,
    TransactionUnknown,
    TwoPhaseRecoveryInterrupted,
    TwoPhaseRecoveryResumed,
    TwoPhaseRecoveryTakenOver,
)
from aiopatterns.data.vector import Relation, VersionVector
from aiopatterns.data.version import Versioned

__all__ = [
    "Change",
    "ChangeLog",
    "CommitsAlone",
    "Conflict",
    "Decision",
    "DecisionLog",
    "DecisionRecord",
    "DecisionsVolatile",
    "Enlisted",
    "Fate",
    "FencedError",
    "FirstWriteWins",
    "Held",
    "HeuristicFound",
    "HybridClock",
    "LastResource",
    "LastWriteWins",
    "Manual",
    "MemoryBranch",
    "MemoryLog",
    "MemoryParticipant",
    "MemorySagaStore",
    "MemorySyncStore",
    "Merge",
    "MergeFunction",
    "ORSet",
    "PNCounter",
    "Participant",
    "Position",
    "PostgresBranch",
    "PostgresLog",
    "PostgresNode",
    "PostgresParticipant",
    "PostgresSagaStore",
    "Prepared",
    "Proposal",
    "RecoveryReport",
    "RedisBranch",
    "RedisParticipant",
    "RedisSagaStore",
    "Relation",
    "Replica",
    "ReplicaBack",
    "ReplicaLost",
    "ReplicaRouter",
    "ReplicaRouterStatistics",
    "ReplicaSession",
    "ReplicaStatistics",
    "Resolution",
    "Saga",
    "SagaBarrier",
    "SagaEnded",
    "SagaMigrationNeeded",
    "SagaRecovery",
    "SagaRecoveryInterrupted",
    "SagaRecoveryResumed",
    "SagaRecoveryStatistics",
    "SagaReport",
    "SagaResult",
    "SagaState",
    "SagaStatistics",
    "SagaStore",
    "SagaStuck",
    "SagaTakenOver",
    "SagaTurnedBack",
    "SqlIdempotent",
    "SqlSyncStore",
    "SqliteBranch",
    "SqliteLastResource",
    "SqliteLog",
    "SqliteParticipant",
    "SqliteSagaStore",
    "Stamp",
    "StepOutcome",
    "StepState",
    "Strategy",
    "SyncConflictFound",
    "SyncDirection",
    "SyncInterrupted",
    "SyncProgress",
    "SyncQuarantined",
    "SyncReport",
    "SyncResumed",
    "SyncStartedOver",
    "SyncStore",
    "SyncWatch",
    "SyncWatchStatistics",
    "Synchronizer",
    "Transaction",
    "TransactionAborted",
    "TransactionPending",
    "TransactionState",
    "TransactionUnknown",
    "TransactionsForeign",
    "TransactionsRecovered",
    "TwoPhaseCommit",
    "TwoPhaseRecovery",
    "TwoPhaseRecoveryInterrupted",
    "TwoPhaseRecoveryResumed",
    "TwoPhaseRecoveryStatistics",
    "TwoPhaseRecoveryTakenOver",
    "TwoPhaseStatistics",
    "VersionVector",
    "Versioned",
    "Vote",
    "frontier",
    "merge_counters",
    "merge_fields",
    "merge_registers",
    "merge_sets",
    "reconcile",
    "register",
    "resolve",
    "three_way",
]
