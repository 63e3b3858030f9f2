"""How often, in Redis: the arithmetic of ``gcra.py`` as one script, by the server's time.

One short string for each key that is in use, which expires at the instant it is at rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.gcra import Spacing
from aiopatterns.backends.names import check_name, escaped
from aiopatterns.backends.redis.scripts import Script

if TYPE_CHECKING:
    from aiopatterns.backends.redis.client import RedisClient
    from aiopatterns.core.rate import Grant, Rate

__all__ = ["RedisLimiter"]

_ACQUIRE: Final = Script("limiter_acquire")


@final
class RedisLimiter:
    """The protocol ``Limiter`` in Redis.

    Args:
        client: The connections.
        name: The name.
    """

    __slots__ = ("_client", "_name")

    def __init__(self, client: RedisClient, name: str) -> None:
        self._client = client
        self._name = escaped(check_name("name", name), ":")

    async def acquire(
        self, key: str, rate: Rate, *, cost: float = 1.0, burst: float | None = None
    ) -> Grant:
        """Take ``cost`` now if it is there; never waits. 1 round trip.

        Cancellation: may have taken it.
        """
        name = self._client.key("lim", self._name, check_name("key", key))
        spacing = Spacing.of(rate, burst, cost)
        args = [repr(float(each)) for each in (spacing.interval, spacing.burst, cost)]
        allowed, owed = await self._client.run(_ACQUIRE, [name], args)
        return spacing.grant(float(owed), cost, allowed=bool(allowed))
