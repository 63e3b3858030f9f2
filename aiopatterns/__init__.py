"""Concurrency, resilience and distributed patterns as plain coroutines.

Every pattern is an async function, or an object that owns its tasks, over anyio task groups and
object streams. This front door names the headlines; the rooms hold everything::

    aiopatterns.core         errors, outcomes, events, correlation, lifecycle
    aiopatterns.backends     state behind protocols, in memory or in Redis
    aiopatterns.resilience   what may happen to one call
    aiopatterns.cache        values kept near
    aiopatterns.flow         data moving inside one process
    aiopatterns.cluster      who is alive, where, and whom to ask
    aiopatterns.jobs         work that survives a process
    aiopatterns.messaging    messages inside a process and between them
    aiopatterns.gateway      one door to many services
    aiopatterns.testing      the test kit: simulated loop, cancellation at every await

Names load on first use: ``import aiopatterns`` imports no room and no third-party package.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiopatterns.backends.opening import open_backend
    from aiopatterns.cache.aside import Cache
    from aiopatterns.cache.decorator import cached
    from aiopatterns.cache.sharded import ShardedCache
    from aiopatterns.cluster.balancer import LoadBalancer
    from aiopatterns.cluster.health import HealthChecker
    from aiopatterns.cluster.peer import PeerNode
    from aiopatterns.cluster.registry import ServiceRegistry
    from aiopatterns.core.errors import (
        AioPatternsError,
        BackendError,
        BackendUnavailableError,
        BulkheadFullError,
        CheckpointExpiredError,
        CircuitIsolatedError,
        CircuitOpenError,
        ClosedError,
        CodecError,
        ConfigError,
        ConflictError,
        CycleError,
        DagError,
        HeuristicOutcomeError,
        JobCancelledError,
        JobError,
        JobFailedError,
        JobNotFoundError,
        LoadAbortedError,
        NoEndpointError,
        NoHandlersError,
        OutcomeUnknownError,
        OverloadedError,
        QueueFullError,
        QuorumError,
        RateLimitedError,
        Reject,
        RejectedError,
        RemoteError,
        RequestRefusedError,
        RetryLater,
        SagaError,
        SecretMismatchError,
        TimeoutExceededError,
        TwoPhaseError,
        UnknownVersionError,
        UpstreamError,
        WorkerCrashedError,
    )
    from aiopatterns.core.outcome import Err, Ok, Outcome
    from aiopatterns.core.telemetry import install_listener, listen, log_events
    from aiopatterns.data.replicas import ReplicaRouter
    from aiopatterns.data.saga import Saga
    from aiopatterns.data.sync import Synchronizer
    from aiopatterns.data.twophase import TwoPhaseCommit
    from aiopatterns.flow.channel import Channel
    from aiopatterns.flow.dag import Dag
    from aiopatterns.flow.gathering import scatter_gather
    from aiopatterns.flow.mapping import amap, stream_map
    from aiopatterns.flow.mapreduce import map_reduce
    from aiopatterns.flow.pipeline import Pipeline
    from aiopatterns.flow.pool import WorkerPool
    from aiopatterns.flow.producer import produce_consume
    from aiopatterns.gateway.app import Gateway
    from aiopatterns.jobs.queue import JobQueue
    from aiopatterns.jobs.worker import Worker
    from aiopatterns.messaging.broker import Broker
    from aiopatterns.messaging.bus import EventBus
    from aiopatterns.messaging.consumer import StreamConsumer
    from aiopatterns.messaging.service import Service
    from aiopatterns.messaging.stream import Stream
    from aiopatterns.resilience.breaker import CircuitBreaker
    from aiopatterns.resilience.bulkhead import Bulkhead
    from aiopatterns.resilience.fallback import Fallback
    from aiopatterns.resilience.hedge import Hedge
    from aiopatterns.resilience.idempotency import Idempotent
    from aiopatterns.resilience.ratelimit import Rate, TokenBucket
    from aiopatterns.resilience.retry import Retry
    from aiopatterns.resilience.stack import Stack
    from aiopatterns.resilience.timeout import Timeout

__version__: Final = "0.1.0"

__all__ = [
    "AioPatternsError",
    "BackendError",
    "BackendUnavailableError",
    "Broker",
    "Bulkhead",
    "BulkheadFullError",
    "Cache",
    "Channel",
    "CheckpointExpiredError",
    "CircuitBreaker",
    "CircuitIsolatedError",
    "CircuitOpenError",
    "ClosedError",
    "CodecError",
    "ConfigError",
    "ConflictError",
    "CycleError",
    "Dag",
    "DagError",
    "Err",
    "EventBus",
    "Fallback",
    "Gateway",
    "HealthChecker",
    "Hedge",
    "HeuristicOutcomeError",
    "Idempotent",
    "JobCancelledError",
    "JobError",
    "JobFailedError",
    "JobNotFoundError",
    "JobQueue",
    "LoadAbortedError",
    "LoadBalancer",
    "NoEndpointError",
    "NoHandlersError",
    "Ok",
    "Outcome",
    "OutcomeUnknownError",
    "OverloadedError",
    "PeerNode",
    "Pipeline",
    "QueueFullError",
    "QuorumError",
    "Rate",
    "RateLimitedError",
    "Reject",
    "RejectedError",
    "RemoteError",
    "ReplicaRouter",
    "RequestRefusedError",
    "Retry",
    "RetryLater",
    "Saga",
    "SagaError",
    "SecretMismatchError",
    "Service",
    "ServiceRegistry",
    "ShardedCache",
    "Stack",
    "Stream",
    "StreamConsumer",
    "Synchronizer",
    "Timeout",
    "TimeoutExceededError",
    "TokenBucket",
    "TwoPhaseCommit",
    "TwoPhaseError",
    "UnknownVersionError",
    "UpstreamError",
    "Worker",
    "WorkerCrashedError",
    "WorkerPool",
    "__version__",
    "amap",
    "cached",
    "install_listener",
    "listen",
    "log_events",
    "map_reduce",
    "open_backend",
    "produce_consume",
    "scatter_gather",
    "stream_map",
]

# Where the headline names live that are no errors; importing the front door costs next to nothing.
_HOMES: Final = MappingProxyType(
    {
        "backends.opening": ("open_backend",),
        "cache.aside": ("Cache",),
        "cache.decorator": ("cached",),
        "cache.sharded": ("ShardedCache",),
        "cluster.balancer": ("LoadBalancer",),
        "cluster.health": ("HealthChecker",),
        "cluster.peer": ("PeerNode",),
        "cluster.registry": ("ServiceRegistry",),
        "core.outcome": ("Err", "Ok", "Outcome"),
        "core.telemetry": ("install_listener", "listen", "log_events"),
        "data.replicas": ("ReplicaRouter",),
        "data.saga": ("Saga",),
        "data.sync": ("Synchronizer",),
        "data.twophase": ("TwoPhaseCommit",),
        "flow.channel": ("Channel",),
        "flow.dag": ("Dag",),
        "flow.gathering": ("scatter_gather",),
        "flow.mapping": ("amap", "stream_map"),
        "flow.mapreduce": ("map_reduce",),
        "flow.pipeline": ("Pipeline",),
        "flow.pool": ("WorkerPool",),
        "flow.producer": ("produce_consume",),
        "gateway.app": ("Gateway",),
        "jobs.queue": ("JobQueue",),
        "jobs.worker": ("Worker",),
        "messaging.broker": ("Broker",),
        "messaging.bus": ("EventBus",),
        "messaging.consumer": ("StreamConsumer",),
        "messaging.service": ("Service",),
        "messaging.stream": ("Stream",),
        "resilience.breaker": ("CircuitBreaker",),
        "resilience.bulkhead": ("Bulkhead",),
        "resilience.fallback": ("Fallback",),
        "resilience.hedge": ("Hedge",),
        "resilience.idempotency": ("Idempotent",),
        "resilience.ratelimit": ("Rate", "TokenBucket"),
        "resilience.retry": ("Retry",),
        "resilience.stack": ("Stack",),
        "resilience.timeout": ("Timeout",),
    }
)


def __getattr__(name: str) -> object:
    """Load a headline name from its room on first use, then keep it here."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    home = next((home for home, names in _HOMES.items() if name in names), "core.errors")
    found: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
