"""What can be said of a backend's server: for ``aiopatterns doctor``, and for checks at start-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend

__all__ = ["Diagnosis", "acl_rule", "diagnose"]


@final
@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A server as it was when somebody looked.

    Args:
        url: Where it is, passwords masked.
        version: Its version, such as ``"7.0.15"``.
        mode: ``"standalone"``, ``"cluster"`` or ``"sentinel"``.
        role: ``"master"`` or ``"slave"``.
        appendonly: Whether writes go to an append-only file.
        fsync: When that file is forced to the disk; None if we may not ask.
        policy: What it does when its memory is full, such as ``"noeviction"``.
        memory: Bytes in use.
        max_memory: Bytes it may use; 0: no limit of its own.
        clients: Connections now.
        max_clients: Connections it allows.
        latency_p50: Seconds that half of the round trips took at most.
        latency_p99: Seconds that 99 of 100 round trips took at most.
        skew: Seconds that its clock is ahead of ours.
        missing: Commands that the library needs and our user may not use; None if that cannot be
            told.
    """

    url: str
    version: str
    mode: str
    role: str
    appendonly: bool
    fsync: str | None
    policy: str
    memory: int
    max_memory: int
    clients: int
    max_clients: int
    latency_p50: float
    latency_p99: float
    skew: float
    missing: tuple[str, ...] | None


async def diagnose(backend: Backend) -> Diagnosis | None:
    """Look at the server behind an open backend; None if there is none.

    Raises:
        BackendUnavailableError: Nobody answers.
        BackendError: The server refuses to say anything.
        ClosedError: The backend is not open.

    Cancellation: leaves nothing behind.
    """
    if backend.scheme != "redis":
        return None
    from aiopatterns.backends.redis.backend import RedisBackend
    from aiopatterns.backends.redis.probe import probe

    assert isinstance(backend, RedisBackend)
    return await probe(backend.client)


def acl_rule(user: str = "aiopatterns", *, namespace: str = "ap") -> str:
    """Return the ``ACL SETUSER`` line of a Redis user with exactly the rights that are needed.

    Args:
        user: Its name.
        namespace: First part of all keys, as given to ``open_backend``.

    Raises:
        ImportError: The extra ``redis`` is not installed.
    """
    from aiopatterns.backends.redis.rights import acl_rule as rule

    return rule(user, namespace=namespace)
