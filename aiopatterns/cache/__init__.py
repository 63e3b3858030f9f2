"""Values kept near: cache-aside with one load for all who ask, in memory or in two tiers."""

from aiopatterns.cache.aside import Cache
from aiopatterns.cache.decorator import Cached, cached
from aiopatterns.cache.gate import TierBack, TierLost, TierRefused
from aiopatterns.cache.sharded import ShardedCache, ShardedStatistics
from aiopatterns.cache.terms import (
    MISSING,
    Bounds,
    CacheStatistics,
    LoadFailed,
    LoadTimeouts,
    Missing,
    Ttl,
)
from aiopatterns.cache.tiers import NotEncoded

__all__ = [
    "MISSING",
    "Bounds",
    "Cache",
    "CacheStatistics",
    "Cached",
    "LoadFailed",
    "LoadTimeouts",
    "Missing",
    "NotEncoded",
    "ShardedCache",
    "ShardedStatistics",
    "TierBack",
    "TierLost",
    "TierRefused",
    "Ttl",
    "cached",
]
