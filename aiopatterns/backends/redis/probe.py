"""A look at a Redis server: what it is, how it keeps data, how fast it answers, what we may do.

Everything is read, nothing is changed; what a user lacks the right to ask is left out. Latency is
that of ``TIME`` on a connection that is open already; the clock's skew is taken from the quickest
answer, so it is off by half of that at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiopatterns.backends.diagnosis import Diagnosis
from aiopatterns.backends.redis.info import facts
from aiopatterns.backends.redis.rights import missing_rights
from aiopatterns.core.clock import monotonic, wall
from aiopatterns.core.errors import BackendError

if TYPE_CHECKING:
    from aiopatterns.backends.redis.client import RedisClient

__all__ = ["probe"]

SAMPLES: Final = 200


async def probe(client: RedisClient) -> Diagnosis:
    """Look at the server of an open client; takes about 200 round trips.

    Raises:
        BackendUnavailableError: Nobody answers.
        BackendError: The server refuses even ``INFO`` or ``TIME``.

    Cancellation: leaves nothing behind.
    """
    info = facts(await client.read("INFO"))
    samples = sorted([await _sample(client) for _ in range(SAMPLES)])
    return Diagnosis(
        url=client.url,
        version=info.get("redis_version", ""),
        mode=info.get("redis_mode", ""),
        role=info.get("role", ""),
        appendonly=info.get("aof_enabled") == "1",
        fsync=await _setting(client, "appendfsync"),
        policy=info.get("maxmemory_policy", ""),
        memory=int(info.get("used_memory", 0)),
        max_memory=int(info.get("maxmemory", 0)),
        clients=int(info.get("connected_clients", 0)),
        max_clients=int(info.get("maxclients", 0)),
        latency_p50=samples[len(samples) // 2][0],
        latency_p99=samples[len(samples) * 99 // 100][0],
        skew=samples[0][1],
        missing=await missing_rights(client),
    )


async def _sample(client: RedisClient) -> tuple[float, float]:
    """Return how long an answer took, and how far the server's clock is ahead of ours."""
    began, at = monotonic(), wall()
    seconds, micros = await client.read("TIME")
    took = monotonic() - began
    return took, int(seconds) + int(micros) / 1e6 - (at + took / 2)


async def _setting(client: RedisClient, name: str) -> str | None:
    """Return a setting of the server, or None if we may not ask."""
    try:
        reply = await client.read("CONFIG", "GET", name)
    except BackendError:
        return None
    return reply[1].decode() if len(reply) > 1 else None
