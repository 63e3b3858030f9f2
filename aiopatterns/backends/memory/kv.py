"""Bytes under keys, in memory.

All calls do their work in one synchronous step and never wait, so each is atomic on its loop.
"""

from __future__ import annotations

import re
from heapq import nsmallest
from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.memory.expiring import Expiring
from aiopatterns.backends.names import (
    MAX_NUMBER,
    MIN_NUMBER,
    check_change,
    check_data,
    check_name,
    check_names,
    check_number,
    check_scan,
    check_ttl,
)
from aiopatterns.backends.records import Anything, Change, Delete, Scanned

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from aiopatterns.backends.memory.home import MemoryHome
    from aiopatterns.backends.memory.pubsub import MemoryPubSub

__all__ = ["MemoryKv"]

# The only spelling of a number that Redis counts on: no sign +, no space, no leading zero.
_NUMBER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")


@final
class MemoryKv:
    """The protocol ``Kv`` in memory.

    Args:
        home: The backend it belongs to.
        pubsub: Where ``compare_and_set`` publishes.
    """

    __slots__ = ("_home", "_pubsub", "_values")

    def __init__(self, home: MemoryHome, pubsub: MemoryPubSub) -> None:
        self._home = home
        self._pubsub = pubsub
        self._values: Expiring[str, bytes] = Expiring(home)

    async def get(self, key: str) -> bytes | None:
        """Return the value of ``key``, or None."""
        check_name("key", key)
        self._home.require_open()
        return self._values.get(key)

    async def get_many(self, keys: Collection[str]) -> dict[str, bytes]:
        """Return those of ``keys`` that exist, in order."""
        check_names("keys", keys)
        self._home.require_open()
        found: dict[str, bytes] = {}
        for key in keys:
            value = self._values.get(key)
            if value is not None:
                found[key] = value
        return found

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        """Write ``value`` under ``key``."""
        check_name("key", key)
        check_data("value", value)
        life = check_ttl(ttl)
        self._home.require_open()
        self._values.put(key, value, life)

    async def set_many(self, values: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        """Write all of ``values``."""
        check_names("keys of values", values)
        for value in values.values():
            check_data("values", value)
        life = check_ttl(ttl)
        self._home.require_open()
        for key, value in values.items():
            self._values.put(key, value, life)

    async def delete(self, *keys: str) -> int:
        """Remove ``keys``; return how many of them existed."""
        check_names("keys", keys)
        self._home.require_open()
        return sum(self._values.pop(key) is not None for key in keys)

    async def incr(self, key: str, by: int = 1, *, ttl: float | None = None) -> int:
        """Add ``by`` to the whole number under ``key``; return the sum."""
        check_name("key", key)
        check_number("by", by)
        life = check_ttl(ttl)
        self._home.require_open()
        stored = self._values.get(key)
        total = by if stored is None else _number(key, stored) + by
        if not MIN_NUMBER <= total <= MAX_NUMBER:
            msg = f"the number under key {key!r} would leave 64 bits"
            raise ValueError(msg)
        if stored is None:
            self._values.put(key, b"%d" % total, life)
        else:
            self._values.change(key, b"%d" % total)
        return total

    async def compare_and_set(
        self,
        key: str,
        expected: bytes | None,
        value: bytes | Delete,
        *,
        ttl: float | None = None,
        notify: str | None = None,
    ) -> bool:
        """Write ``value`` if ``key`` holds ``expected`` now; return whether it was written."""
        change = Change(key, value, expected, ttl, notify)
        check_change(change)
        self._home.require_open()
        return self._change(change)

    async def change_many(self, changes: Sequence[Change]) -> list[bool]:
        """Make each of ``changes`` if its key holds what is expected; return which were written."""
        for change in changes:
            check_change(change)
        self._home.require_open()
        return [self._change(change) for change in changes]

    async def scan(self, prefix: str, *, cursor: str | None = None, limit: int = 1_000) -> Scanned:
        """Return the next of the keys that begin with ``prefix``, in order. O(keys)."""
        check_scan(prefix, cursor, limit)
        self._home.require_open()
        # Where to go on is a key, for it has its place in the order also when it is gone.
        after = "" if cursor is None else cursor
        found = nsmallest(
            limit, (key for key in self._values.live() if key > after and key.startswith(prefix))
        )
        return Scanned(found, found[-1] if len(found) == limit else None)

    def _change(self, change: Change) -> bool:
        key, value, expected, ttl, notify, notice, before = change
        if before is not None and self._home.time() >= before:
            return False
        if not isinstance(expected, Anything) and self._values.get(key) != expected:
            return False
        if isinstance(value, Delete):
            self._values.pop(key)
        else:
            self._values.put(key, value, check_ttl(ttl))
        if notify is not None:
            self._pubsub.publish_nowait(notify, key.encode() if notice is None else notice)
        return True


def _number(key: str, stored: bytes) -> int:
    """Read a stored number; one that does not fit 64 bits is none."""
    if _NUMBER.fullmatch(stored) and MIN_NUMBER <= (number := int(stored)) <= MAX_NUMBER:
        return number
    msg = f"key {key!r} holds no whole number of at most 64 bits"
    raise ValueError(msg)
