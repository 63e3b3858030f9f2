"""Values kept near: cache-aside with one load for all who ask, in memory or in two tiers."""

from aiopatterns.cache.aside import Cache
from aiopatterns.cache.decorator import Cached, cached
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

__all__ = [
    "MISSING",
    "Bounds",
    "Cache",
    "CacheStatistics",
    "Cached",
    "LoadFailed",
    "LoadTimeouts",
    "Missing",
    "ShardedCache",
    "ShardedStatistics",
    "Ttl",
    "cached",
]
