from __future__ import annotations

from aiopatterns.backends import open_backend
from aiopatterns.backends.protocols import (
    Backend,
    Directory,
    Kv,
    Lease,
    Limiter,
    Log,
    PubSub,
)


def test_what_is_opened_speaks_the_protocols():
    """What the type checker reads here is the test; nothing is connected."""
    for url in ("memory://", "redis://localhost"):
        backend: Backend = open_backend(url)
        kv: Kv = backend.kv
        pubsub: PubSub = backend.pubsub
        log: Log = backend.log("x")
        lease: Lease = backend.lease("x")
        limiter: Limiter = backend.limiter("x")
        directory: Directory = backend.directory("x")
        assert all((kv, pubsub, log, lease, limiter, directory))
