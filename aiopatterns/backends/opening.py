"""From a URL to a backend.

Nothing is imported that the URL does not ask for, and nothing is opened: a backend may be made at
module level, and ``async with`` opens it.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from aiopatterns.backends.url import parse
from aiopatterns.core.validate import instance, positive, text

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend

__all__ = ["open_backend", "resolve"]

# Braces would take over the cluster's hash tag, `* ? [ \` the patterns of channels.
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")


def open_backend(url: str, *, namespace: str = "ap", timeout: float = 5.0) -> Backend:
    """Return the backend at ``url``; does no I/O, ``async with`` opens it.

    Args:
        url: ``memory://``, ``redis://host:port/db``, ``rediss://`` (TLS), ``unix:///path``,
            ``redis+sentinel://host:port,.../service/db``, ``redis+cluster://host:port,...`` or
            ``embedded://`` (a private Redis; ``embedded:///path`` keeps its data there). See
            :mod:`aiopatterns.backends.url`.
        namespace: First part of every key, so that several applications share a server: up to
            100 letters, digits and ``_ . : / -``.
        timeout: Seconds above 0 that connecting may take, and that a server may be silent while
            it owes an answer.

    Returns:
        A backend. Each call makes one; whoever shares state in memory shares the object.

    Raises:
        ValueError: The URL is wrong; the message names it, its password masked, and what is
            allowed.
        ImportError: The extra ``redis`` is not installed; the message has the command.

    Example::

        backend = open_backend("redis://:secret@localhost:6379/0", namespace="shop")
        async with backend:
            await backend.kv.set("greeting", b"hello")
    """
    target = parse(url)
    if not _NAMESPACE.fullmatch(text("namespace", namespace)):
        raise ValueError(
            f"namespace must be up to 100 letters, digits and _ . : / -, not {namespace!r}"
        )
    positive("timeout", timeout)
    if target.scheme == "memory":
        from aiopatterns.backends.memory.backend import MemoryBackend

        return MemoryBackend(namespace)
    if missing := [name for name in ("redis", "hiredis") if find_spec(name) is None]:
        raise ImportError(
            f"{target.scheme}:// needs {' and '.join(missing)}: pip install 'aiopatterns[redis]'",
            name=missing[0],
        )
    from aiopatterns.backends.redis.backend import RedisBackend

    return RedisBackend(target, namespace=namespace, timeout=timeout)


def resolve(backend: Backend | str) -> Backend:
    """Return the backend that a ``backend=`` parameter means.

    An object is itself; a URL is given to :func:`open_backend`. Either way whoever took the
    parameter enters what this returns with ``async with``, and leaves it: backends count their
    users, so an object that somebody else has open stays open.

    Raises:
        TypeError: It is neither.
        ValueError: The URL is wrong.
    """
    if isinstance(backend, str):
        return open_backend(backend)
    if not hasattr(backend, "kv"):
        instance("backend", backend, (), "a backend or a URL such as 'redis://localhost:6379'")
    return backend
