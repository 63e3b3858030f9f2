"""Who may act, in Redis: one hash for each name, and a nonce that says whose it is.

The nonce is made by the caller, so each of the three steps may be sent again when its answer is
lost: taking a lease with the nonce that holds it returns the same token, and releasing one that
this nonce has released says yes again.

The token is the server's time in microseconds, or one more than the stored one if that is
higher. It is kept for :data:`KEEP` beyond the lease, which covers a clock that is set back a
little; after that time alone makes it grow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.names import check_name, milliseconds
from aiopatterns.backends.redis.scripts import Script
from aiopatterns.core.clock import rng

if TYPE_CHECKING:
    from aiopatterns.backends.redis.client import RedisClient

__all__ = ["KEEP", "RedisHeld", "RedisLease"]

#: Milliseconds for which the token of a lease outlives it.
KEEP: Final = 600_000

_ACQUIRE: Final = Script("lease_acquire")
_RENEW: Final = Script("lease_renew")
_RELEASE: Final = Script("lease_release")


@final
class RedisLease:
    """The protocol ``Lease`` in Redis.

    Args:
        client: The connections.
        name: The name.
    """

    __slots__ = ("_client", "_key")

    def __init__(self, client: RedisClient, name: str) -> None:
        self._client = client
        self._key = client.key("lease", check_name("name", name))

    async def try_acquire(self, *, ttl: float) -> RedisHeld | None:
        """Take the lease for ``ttl`` seconds if nobody holds it. 1 round trip.

        Cancellation: may have taken it; it then ends with its time.
        """
        life = milliseconds("ttl", ttl)
        nonce = f"{rng().getrandbits(128):032x}"
        token = await self._client.run(_ACQUIRE, [self._key], [nonce, life, KEEP], repeatable=True)
        if token is None:
            return None
        return RedisHeld(self._client, self._key, nonce, token=int(token), life=life)


@final
class RedisHeld:
    """A lease that was held when it was given out; made by :meth:`RedisLease.try_acquire`."""

    __slots__ = ("_client", "_key", "_life", "_nonce", "_released", "token")

    def __init__(self, client: RedisClient, key: str, nonce: str, *, token: int, life: int) -> None:
        self._client = client
        self._key = key
        self._nonce = nonce
        self._life = life
        self._released = False
        self.token: int = token

    async def renew(self, *, ttl: float | None = None) -> bool:
        """Hold on for ``ttl`` from now; False if the lease was lost. 1 round trip."""
        life = self._life if ttl is None else milliseconds("ttl", ttl)
        args = (self._nonce, life, KEEP)
        held = bool(await self._client.run(_RENEW, [self._key], args, repeatable=True))
        if held:
            self._life = life
        return held

    async def release(self) -> bool:
        """Give the lease back; False if it was lost before. 1 round trip."""
        args = (self._nonce, KEEP)
        held = bool(await self._client.run(_RELEASE, [self._key], args, repeatable=True))
        # The server says yes to a repeated call; whoever has had his answer is told no.
        first, self._released = held and not self._released, self._released or held
        return first
