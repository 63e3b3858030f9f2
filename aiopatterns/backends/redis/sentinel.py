"""Where the master is, by the word of the Sentinels that watch it.

They are asked anew for every connection that is made. After a failover the old master is gone, or
comes back as a replica and refuses writes; either ends the connection, and the next one goes where
the Sentinels say. redis-py's own client asks them: it skips those that do not answer, and those
that believe the master to be down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from aiopatterns.backends.redis.errors import UnsentError
from aiopatterns.backends.url import Address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiopatterns.backends.url import Target

__all__ = ["finder"]


def finder(target: Target, patience: float) -> Callable[[], Awaitable[Address]]:
    """Return the function that asks the Sentinels of ``target`` for its master.

    Args:
        target: Its addresses are the Sentinels.
        patience: Seconds that one of them may take.
    """
    options = {
        "protocol": 2,
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        "password": target.option("sentinel_password") or None,
        "ssl": target.tls,
        "ssl_ca_certs": target.option("ca") or None,
        "ssl_certfile": target.option("cert") or None,
        "ssl_keyfile": target.option("key") or None,
        "retry": Retry(NoBackoff(), 0),
    }
    if not target.tls:
        options = {name: value for name, value in options.items() if not name.startswith("ssl")}

    make: Callable[..., Any] = Sentinel  # its own constructor has no annotations

    async def find() -> Address:
        sentinels = make(list(target.addresses), sentinel_kwargs=options)
        try:
            found = cast("tuple[str, int]", await sentinels.discover_master(target.service))
        except (RedisError, OSError) as error:
            raise UnsentError(
                f"the Sentinels know no master {target.service!r}: {error}"
            ) from error
        finally:
            for each in sentinels.sentinels:
                await each.aclose()
        return Address(*found)

    return find
