"""Data: one truth on several nodes."""

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

__all__ = [
    "MemorySagaStore",
    "PostgresSagaStore",
    "RedisSagaStore",
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
    "SqliteSagaStore",
    "StepOutcome",
    "StepState",
]
