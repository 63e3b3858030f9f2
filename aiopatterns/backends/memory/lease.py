"""Who may act, in memory.

One space of leases for each backend. Tokens are drawn from one line for all names, which follows
the server's time in microseconds and never stands still, so the token of a new holder is above
that of every earlier one, and nothing is kept for a name that nobody holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from aiopatterns.backends.memory.expiring import Expiring
from aiopatterns.backends.names import milliseconds

if TYPE_CHECKING:
    from aiopatterns.backends.memory.home import MemoryHome

__all__ = ["Leases", "MemoryHeld", "MemoryLease"]


@final
class Leases:
    """All leases of one backend, by name.

    Args:
        home: The backend they belong to.
    """

    __slots__ = ("_home", "_token", "holders")

    def __init__(self, home: MemoryHome) -> None:
        self._home = home
        self._token = 0
        self.holders: Expiring[str, MemoryHeld] = Expiring(home)

    def require_open(self) -> None:
        """Refuse to work while the backend is closed."""
        self._home.require_open()

    def next_token(self) -> int:
        """Return a token above all before."""
        self._token = max(self._token + 1, int(self._home.time() * 1e6))
        return self._token


@final
class MemoryLease:
    """The protocol ``Lease`` in memory: a light handle on one name.

    Args:
        leases: The leases of the backend.
        name: The name.
    """

    __slots__ = ("_leases", "_name")

    def __init__(self, leases: Leases, name: str) -> None:
        self._leases = leases
        self._name = name

    async def try_acquire(self, *, ttl: float) -> MemoryHeld | None:
        """Take the lease for ``ttl`` seconds if nobody holds it."""
        life = milliseconds("ttl", ttl) / 1_000
        self._leases.require_open()
        if self._leases.holders.get(self._name) is not None:
            return None
        held = MemoryHeld(self._leases, self._name, token=self._leases.next_token(), ttl=life)
        self._leases.holders.put(self._name, held, life)
        return held


@final
class MemoryHeld:
    """A lease that was held when it was given out; made by :meth:`MemoryLease.try_acquire`."""

    __slots__ = ("_leases", "_name", "_ttl", "token")

    def __init__(self, leases: Leases, name: str, *, token: int, ttl: float) -> None:
        self._leases = leases
        self._name = name
        self._ttl = ttl
        self.token: int = token

    async def renew(self, *, ttl: float | None = None) -> bool:
        """Hold on for ``ttl`` from now; False if the lease was lost."""
        life = self._ttl if ttl is None else milliseconds("ttl", ttl) / 1_000
        self._leases.require_open()
        if self._leases.holders.get(self._name) is not self:
            return False
        self._ttl = life
        self._leases.holders.put(self._name, self, life)
        return True

    async def release(self) -> bool:
        """Give the lease back; False if it was lost before."""
        self._leases.require_open()
        if self._leases.holders.get(self._name) is not self:
            return False
        self._leases.holders.pop(self._name)
        return True
