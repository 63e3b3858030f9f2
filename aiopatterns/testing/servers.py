"""Real servers for tests, started in milliseconds and never left behind.

* :class:`RedisServer`: one private server; kill it, pause it, restart it over the same data.
* :class:`RedisCluster`, :class:`RedisSentinel`: several of them as one.
* :class:`PostgresServer`: a private PostgreSQL.

None of them is installed by this: see each for where it is looked for.
"""

from __future__ import annotations

from aiopatterns.backends.redis.binaries import Binary, installed_binaries
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.testing.clusters import RedisCluster, RedisSentinel
from aiopatterns.testing.postgres import PostgresServer

__all__ = [
    "Binary",
    "PostgresServer",
    "RedisCluster",
    "RedisSentinel",
    "RedisServer",
    "installed_binaries",
]
