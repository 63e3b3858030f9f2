"""Where state lives: seven protocols, in memory or in Redis, behind one URL."""

from __future__ import annotations

from aiopatterns.backends.opening import open_backend, resolve
from aiopatterns.backends.protocols import (
    Backend,
    Directory,
    Held,
    Kv,
    Lease,
    Limiter,
    Log,
    PubSub,
    Subscribed,
    Watching,
)
from aiopatterns.backends.queue import Queue
from aiopatterns.backends.records import (
    ANYTHING,
    DELETE,
    Anything,
    Change,
    Claimed,
    Delete,
    Entry,
    GroupTurn,
    GroupTurned,
    Members,
    Notice,
    PendingEntry,
    Scanned,
)
from aiopatterns.backends.statistics import BackendStatistics

__all__ = [
    "ANYTHING",
    "DELETE",
    "Anything",
    "Backend",
    "BackendStatistics",
    "Change",
    "Claimed",
    "Delete",
    "Directory",
    "Entry",
    "GroupTurn",
    "GroupTurned",
    "Held",
    "Kv",
    "Lease",
    "Limiter",
    "Log",
    "Members",
    "Notice",
    "PendingEntry",
    "PubSub",
    "Queue",
    "Scanned",
    "Subscribed",
    "Watching",
    "open_backend",
    "resolve",
]
