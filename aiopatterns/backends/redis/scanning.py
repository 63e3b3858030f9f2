"""Scanning: all keys with a prefix, a page at a time, from one server or all of a cluster.

::

    page 1   SCAN 0      server A      cursor "0/1840/<stamp>"
    page 2   SCAN 1840   server A      cursor "1/0/<stamp>"
    page 3   SCAN 0      server B      cursor None: that was all

A cursor of Redis is a place in the hash table of *one* process: after a restart or a failover the
same number is another place, and keys would be missed without a sign. So a cursor of ours carries a
stamp of what it is good for, the servers and how often a connection was lost, and when that has
changed the scan is refused. Nothing is kept between pages, neither here nor at the server.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, cast
from zlib import crc32

from aiopatterns.backends.records import Scanned
from aiopatterns.backends.redis.errors import FAILURES, translated
from aiopatterns.core.errors import BackendUnavailableError

if TYPE_CHECKING:
    from aiopatterns.backends.redis.client import RedisClient

__all__ = ["page"]

# What a glob of Redis gives a meaning to.
_SPECIAL: Final = re.compile(r"([\\*?\[\]])")
_CURSOR: Final = re.compile(r"([0-9]{1,9})/([0-9]{1,20})/([0-9a-f]{8})")


async def page(client: RedisClient, prefix: str, *, cursor: str | None, limit: int) -> Scanned:
    """Return the whole names of some keys that begin with ``prefix``; see ``Kv.scan``.

    A page is not asked for again when it is lost: then the scan is lost.

    Args:
        client: An open one.
        prefix: With the namespace.
        cursor: That of the page before.
        limit: How many keys the server looks at.
    """
    route, stamp = client.route(), _stamp(client)
    index, at = (0, "0") if cursor is None else _place(client, cursor, stamp)
    pattern = _SPECIAL.sub(r"\\\1", prefix) + "*"
    reply = await route.send_to(
        route.servers[index], ("SCAN", at, "MATCH", pattern, "COUNT", limit)
    )
    if type(reply) in FAILURES:
        raise translated(reply, client.url)
    if _stamp(client) != stamp:
        raise _cut_short(client)
    following, names = cast("tuple[bytes, list[bytes]]", reply)
    # What is no UTF-8 is no key of ours, wherever it comes from.
    keys = [key for name in names if (key := _text(name)) is not None]
    if int(following):
        return Scanned(keys, f"{index}/{int(following)}/{stamp}")
    last = index + 1 == len(route.servers)
    return Scanned(keys, None if last else f"{index + 1}/0/{stamp}")


def _text(name: bytes) -> str | None:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None


def _stamp(client: RedisClient) -> str:
    """Return a text that changes when the cursors of the servers may mean something else."""
    state = (client.tally.reconnects, client.route().servers)
    return f"{crc32(repr(state).encode()):08x}"


def _place(client: RedisClient, cursor: str, stamp: str) -> tuple[int, str]:
    """Return the number of the server and its cursor."""
    parts = _CURSOR.fullmatch(cursor)
    if parts is None:
        msg = f"cursor must be that of the page before, not {cursor[:40]!r}"
        raise ValueError(msg)
    if parts[3] != stamp:
        raise _cut_short(client)
    return int(parts[1]), parts[2]


def _cut_short(client: RedisClient) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"a scan of {client.url} was cut short, for a connection was lost or the servers are"
        " others; begin it again"
    )
