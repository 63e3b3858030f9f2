"""What may happen to one call: policies, and stacks of them."""

from __future__ import annotations

from aiopatterns.resilience.attempts import Attempt, Attempts
from aiopatterns.resilience.backoff import (
    Additive,
    Backoff,
    Constant,
    Exponential,
    Linear,
    Proportional,
)
from aiopatterns.resilience.budget import Budget
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
from aiopatterns.resilience.retry import (
    Again,
    Hint,
    Retry,
    RetryBudgetExhausted,
    RetryScheduled,
    Stop,
    Until,
)
from aiopatterns.resilience.stack import Stack, StackWarning
from aiopatterns.resilience.timeout import Timeout, TimeoutExpired, TimeoutScope

__all__ = [
    "GCRA",
    "Additive",
    "Again",
    "Attempt",
    "Attempts",
    "Backoff",
    "Budget",
    "Constant",
    "Exponential",
    "Grant",
    "Hint",
    "Limiter",
    "Linear",
    "Policy",
    "Proportional",
    "Rate",
    "RateLimitRejected",
    "Retry",
    "RetryBudgetExhausted",
    "RetryScheduled",
    "SlidingWindow",
    "Stack",
    "StackWarning",
    "Stop",
    "Timeout",
    "TimeoutExpired",
    "TimeoutScope",
    "TokenBucket",
    "Until",
]
