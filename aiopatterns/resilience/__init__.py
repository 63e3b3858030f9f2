"""What may happen to one call: policies, and stacks of them."""

from __future__ import annotations

from aiopatterns.resilience.adaptive import (
    AIMD,
    AdaptiveLimit,
    AdaptiveLimitChanged,
    AdaptiveLimitRejected,
    AdaptiveStatistics,
    Gradient,
)
from aiopatterns.resilience.attempts import Attempt, Attempts
from aiopatterns.resilience.backoff import (
    Additive,
    Backoff,
    Constant,
    Exponential,
    Linear,
    Proportional,
)
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.breaktime import BreakInfo
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.bulkhead import (
    Bulkhead,
    BulkheadRejected,
    BulkheadSlot,
    BulkheadStatistics,
)
from aiopatterns.resilience.chaos import Chaos, ChaosInjected, ChaosStatistics
from aiopatterns.resilience.circuitevents import (
    CircuitClosed,
    CircuitForced,
    CircuitHalfOpened,
    CircuitLateResult,
    CircuitOpened,
    CircuitRejected,
    CircuitStuck,
    CircuitThresholdExceeded,
)
from aiopatterns.resilience.circuitstate import CircuitState, CircuitStatistics
from aiopatterns.resilience.fallback import Degraded, Fallback, FallbackUsed
from aiopatterns.resilience.halfopen import HalfOpen
from aiopatterns.resilience.hedge import Hedge, HedgeDiscardFailed, HedgeStarted, HedgeWon
from aiopatterns.resilience.idempotency import (
    IdempotencyReplayed,
    IdempotencyUnrecorded,
    Idempotent,
)
from aiopatterns.resilience.permit import Guard, Permit
from aiopatterns.resilience.policy import Policy
from aiopatterns.resilience.ratelimit import (
    GCRA,
    Grant,
    Limiter,
    Rate,
    RateLimitRejected,
    SlidingWindow,
    TokenBucket,
)
from aiopatterns.resilience.registry import PolicyHandle, PolicyRegistry, PolicyReloaded
from aiopatterns.resilience.retry import (
    Again,
    Hint,
    Retry,
    RetryBudgetExhausted,
    RetryScheduled,
    Stop,
    Until,
)
from aiopatterns.resilience.sharedlimit import (
    RateLimitOutage,
    RateLimitRecovered,
    SharedRateLimit,
)
from aiopatterns.resilience.sharing import (
    CircuitOpenedByFleet,
    CircuitSharingInterrupted,
    CircuitSharingResumed,
    SharedCircuits,
    SharedCircuitsStatistics,
    share_circuits,
)
from aiopatterns.resilience.singleflight import SingleFlight, SingleFlightStatistics
from aiopatterns.resilience.stack import Stack, StackWarning
from aiopatterns.resilience.throttle import Throttle, ThrottleRejected
from aiopatterns.resilience.timeout import Timeout, TimeoutExpired, TimeoutScope
from aiopatterns.resilience.trip import Consecutive, Count, Seconds, Slow, Trip

__all__ = [
    "AIMD",
    "GCRA",
    "AdaptiveLimit",
    "AdaptiveLimitChanged",
    "AdaptiveLimitRejected",
    "AdaptiveStatistics",
    "Additive",
    "Again",
    "Attempt",
    "Attempts",
    "Backoff",
    "BreakInfo",
    "Budget",
    "Bulkhead",
    "BulkheadRejected",
    "BulkheadSlot",
    "BulkheadStatistics",
    "Chaos",
    "ChaosInjected",
    "ChaosStatistics",
    "CircuitBreaker",
    "CircuitClosed",
    "CircuitForced",
    "CircuitHalfOpened",
    "CircuitLateResult",
    "CircuitOpened",
    "CircuitOpenedByFleet",
    "CircuitRejected",
    "CircuitSharingInterrupted",
    "CircuitSharingResumed",
    "CircuitState",
    "CircuitStatistics",
    "CircuitStuck",
    "CircuitThresholdExceeded",
    "Consecutive",
    "Constant",
    "Count",
    "Degraded",
    "Exponential",
    "Fallback",
    "FallbackUsed",
    "Gradient",
    "Grant",
    "Guard",
    "HalfOpen",
    "Hedge",
    "HedgeDiscardFailed",
    "HedgeStarted",
    "HedgeWon",
    "Hint",
    "IdempotencyReplayed",
    "IdempotencyUnrecorded",
    "Idempotent",
    "Limiter",
    "Linear",
    "Permit",
    "Policy",
    "PolicyHandle",
    "PolicyRegistry",
    "PolicyReloaded",
    "Proportional",
    "Rate",
    "RateLimitOutage",
    "RateLimitRecovered",
    "RateLimitRejected",
    "Retry",
    "RetryBudgetExhausted",
    "RetryScheduled",
    "Seconds",
    "SharedCircuits",
    "SharedCircuitsStatistics",
    "SharedRateLimit",
    "SingleFlight",
    "SingleFlightStatistics",
    "SlidingWindow",
    "Slow",
    "Stack",
    "StackWarning",
    "Stop",
    "Throttle",
    "ThrottleRejected",
    "Timeout",
    "TimeoutExpired",
    "TimeoutScope",
    "TokenBucket",
    "Trip",
    "Until",
    "share_circuits",
]
