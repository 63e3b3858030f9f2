"""Bytes under keys, in Redis: one string key each, with its own expiry.

Reads of one turn of the loop travel together and are sent again if the answer is lost. A write
is sent once: repeated late it could undo what another one has written since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast, final

from aiopatterns.backends.names import (
    check_change,
    check_data,
    check_name,
    check_names,
    check_number,
    check_scan,
    milliseconds,
)
from aiopatterns.backends.records import Anything, Change, Delete
from aiopatterns.backends.redis.errors import FAILURES
from aiopatterns.backends.redis.scanning import page
from aiopatterns.backends.redis.scripts import Script

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from aiopatterns.backends.records import Scanned
    from aiopatterns.backends.redis.client import RedisClient
    from aiopatterns.backends.redis.connection import Word

__all__ = ["RedisKv"]

_INCR: Final = Script("kv_incr")
_COMPARE_AND_SET: Final = Script("kv_compare_and_set")


@final
class RedisKv:
    """The protocol ``Kv`` in Redis.

    Args:
        client: The connections.
    """

    __slots__ = ("_client", "_prefix")

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._prefix = client.key("kv", "")

    async def get(self, key: str) -> bytes | None:
        """Return the value of ``key``, or None. 1 round trip."""
        # The hottest of all calls, so it does what `client.read` does without a coroutine between.
        name = self._prefix + check_name("key", key)
        reply = await self._client.get(name)
        if type(reply) in FAILURES:
            reply = await self._client.again(("GET", name), reply, repeatable=True)
        return cast("bytes | None", reply)

    async def get_many(self, keys: Collection[str]) -> dict[str, bytes]:
        """Return those of ``keys`` that exist, in order. 1 round trip for each server."""
        check_names("keys", keys)
        names = [self._client.key("kv", key) for key in keys]
        if self._client.cluster or not names:
            values = await self._client.read_each([("GET", name) for name in names])
        else:
            values = await self._client.read("MGET", *names)
        return {key: value for key, value in zip(keys, values, strict=True) if value is not None}

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        """Write ``value`` under ``key``. 1 round trip."""
        name = self._key(key)
        check_data("value", value)
        await self._client.once("SET", name, value, *_life(ttl))

    async def set_many(self, values: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        """Write all of ``values``. 1 round trip for each server."""
        check_names("keys of values", values)
        for value in values.values():
            check_data("values", value)
        life = _life(ttl)
        await self._client.once_each(
            [("SET", self._client.key("kv", key), value, *life) for key, value in values.items()]
        )

    async def delete(self, *keys: str) -> int:
        """Remove ``keys``; return how many of them existed. 1 round trip for each server."""
        check_names("keys", keys)
        names = [self._client.key("kv", key) for key in keys]
        if self._client.cluster or not names:
            replies = await self._client.once_each([("DEL", name) for name in names])
            return sum(replies)
        return int(await self._client.once("DEL", *names))

    async def incr(self, key: str, by: int = 1, *, ttl: float | None = None) -> int:
        """Add ``by`` to the whole number under ``key``; return the sum. 1 round trip."""
        name = self._key(key)
        check_number("by", by)
        life = "" if ttl is None else milliseconds("ttl", ttl)
        total = await self._client.run(_INCR, [name], [by, life])
        if total is None:
            msg = (
                f"key {key!r} holds no whole number of at most 64 bits, or would not with {by} more"
            )
            raise ValueError(msg)
        return int(total)

    async def compare_and_set(
        self,
        key: str,
        expected: bytes | None,
        value: bytes | Delete,
        *,
        ttl: float | None = None,
        notify: str | None = None,
    ) -> bool:
        """Write ``value`` if ``key`` holds ``expected`` now. 1 round trip."""
        change = Change(key, value, expected, ttl, notify)
        return bool(await self._client.run(_COMPARE_AND_SET, *self._call(change)))

    async def change_many(self, changes: Sequence[Change]) -> list[bool]:
        """Make each of ``changes`` if its key holds what is expected. 1 round trip for a server."""
        calls = [self._call(change) for change in changes]
        return list(map(bool, await self._client.run_each(_COMPARE_AND_SET, calls)))

    async def scan(self, prefix: str, *, cursor: str | None = None, limit: int = 1_000) -> Scanned:
        """Return some of the keys that begin with ``prefix``. 1 round trip."""
        check_scan(prefix, cursor, limit)
        found = await page(self._client, self._prefix + prefix, cursor=cursor, limit=limit)
        skip = len(self._prefix)
        return found._replace(keys=[key[skip:] for key in found.keys])

    def _call(self, change: Change) -> tuple[list[str], tuple[Word, ...]]:
        """Return the key and the arguments of the script."""
        check_change(change)
        key, value, expected, ttl, notify, notice, before = change
        if isinstance(expected, Anything):
            was = ("any", b"")
        else:
            was = ("absent", b"") if expected is None else ("equal", expected)
        to = ("delete", b"") if isinstance(value, Delete) else ("set", value)
        life = "" if ttl is None else milliseconds("ttl", ttl)
        channel = "" if notify is None else self._client.key("ch", notify)
        until = "" if before is None else int(before * 1_000)
        told = key if notice is None else notice
        return [self._prefix + key], (*was, *to, life, channel, told, until)

    def _key(self, key: str) -> str:
        return self._prefix + check_name("key", key)


def _life(ttl: float | None) -> tuple[str, int] | tuple[()]:
    return () if ttl is None else ("PX", milliseconds("ttl", ttl))
