"""Where state lives: seven protocols, in memory or in Redis, behind one URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiopatterns.backends.url import parse

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend

__all__ = ["open_backend", "resolve"]


def open_backend(url: str, *, namespace: str = "ap") -> Backend:
    """Return the backend at ``url``; does no I/O, ``async with`` opens it."""
    target = parse(url)
    if target.scheme == "memory":
        from aiopatterns.backends.memory.backend import MemoryBackend

        return MemoryBackend(namespace)
    from aiopatterns.backends.redis.backend import RedisBackend

    return RedisBackend(target, namespace=namespace)


def resolve(backend: Backend | str) -> Backend:
    """Return ``backend``; a string is a URL for :func:`open_backend`."""
    return open_backend(backend) if isinstance(backend, str) else backend
