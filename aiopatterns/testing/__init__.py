"""The test kit: simulated time, cancellation at every await, faults, leaks, replays, real servers."""

from __future__ import annotations

from aiopatterns.testing.cancel import CancelKind, cancel_everywhere
from aiopatterns.testing.events import capture_events
from aiopatterns.testing.explore import explore, simulate
from aiopatterns.testing.faults import InjectedError, fail_everywhere
from aiopatterns.testing.golden import GoldenMessages
from aiopatterns.testing.leaks import LeakGuard, leak_guard
from aiopatterns.testing.proxy import Fault, FaultProxy, ProxyStatistics
from aiopatterns.testing.replay import (
    Comparison,
    Recorded,
    Replay,
    ReplayedError,
    compare,
    replay,
)
from aiopatterns.testing.sealed import RealWorldError, SimulationError
from aiopatterns.testing.servers import (
    PostgresServer,
    RedisCluster,
    RedisSentinel,
    RedisServer,
)
from aiopatterns.testing.simloop import DeadlockError, LivelockError, SimLoop
from aiopatterns.testing.trial import Trial, Visited

__all__ = [
    "CancelKind",
    "Comparison",
    "DeadlockError",
    "Fault",
    "FaultProxy",
    "GoldenMessages",
    "InjectedError",
    "LeakGuard",
    "LivelockError",
    "PostgresServer",
    "ProxyStatistics",
    "RealWorldError",
    "Recorded",
    "RedisCluster",
    "RedisSentinel",
    "RedisServer",
    "Replay",
    "ReplayedError",
    "SimLoop",
    "SimulationError",
    "Trial",
    "Visited",
    "cancel_everywhere",
    "capture_events",
    "compare",
    "explore",
    "fail_everywhere",
    "leak_guard",
    "replay",
    "simulate",
]
