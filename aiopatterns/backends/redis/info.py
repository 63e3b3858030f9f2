"""What a server tells about itself, and whether it throws away what it was given to keep.

A Redis with a bound on its memory and any policy but ``noeviction`` makes room by removing keys:
jobs and logs under ``allkeys-*``; results, leases and what tells a repeated call from a new one,
which all have a TTL, under ``volatile-*`` too. No error says so. That is right for a cache, so
nobody is told who keeps only keys and values there; whoever uses a queue, a log or a lease is,
once for each backend: by the event if anybody listens, else by the standard logger ``aiopatterns``.
It is no error, for what memory there is may suffice.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar, final

from aiopatterns.core.telemetry import Event, emit, listening

__all__ = ["EvictionRisk", "facts", "tell", "version_of"]


@final
@dataclass(frozen=True, slots=True)
class EvictionRisk(Event):
    """A server that may throw away jobs, log entries or leases has been given some to keep.

    Args:
        url: Where it is, passwords masked; of a cluster the node that was asked may be any.
        policy: What it does when its memory is full, such as ``"allkeys-lru"``.
        max_memory: The bound in bytes.
    """

    name: ClassVar[str] = "aiopatterns.backend.eviction_risk"
    level: ClassVar[str] = "warning"

    url: str
    policy: str
    max_memory: int

    @classmethod
    def of(cls, url: str, told: dict[str, str]) -> EvictionRisk | None:
        """Return the risk that the :func:`facts` of a server show, or None."""
        bound, policy = told.get("maxmemory", ""), told.get("maxmemory_policy", "noeviction")
        if policy == "noeviction" or not bound.isdecimal() or int(bound) == 0:
            return None
        return cls(url, policy, int(bound))


def tell(risk: EvictionRisk) -> None:
    """Say it once where it is heard: to the listeners, or else to the log."""
    if listening():
        emit(risk)
        return
    logging.getLogger("aiopatterns").warning(
        "Redis at %s removes keys when it has %d bytes (%s), jobs and leases among them; "
        "set maxmemory-policy noeviction",
        risk.url,
        risk.max_memory,
        risk.policy,
    )


def facts(info: bytes) -> dict[str, str]:
    """Return the lines of a reply to ``INFO`` by their names."""
    lines = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def version_of(told: dict[str, str]) -> tuple[int, int, int]:
    """Return the version of the server, zeros if it tells none."""
    numbers = [int(each) for each in told.get("redis_version", "").split(".") if each.isdecimal()]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return major, minor, patch
