"""An append-only log with groups, in memory.

The entries stand in ``entries.py``, the state machine of a group in ``group.py``; this is the
protocol over both. Whoever waits for something to claim is woken by an append, and by an entry
that is parked in his group; otherwise he sleeps until the next retry is due.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from anyio import move_on_after

from aiopatterns.backends.memory.entries import Entries
from aiopatterns.backends.memory.expiring import Expiring
from aiopatterns.backends.memory.group import Group, id_of
from aiopatterns.backends.names import check_name, check_names, check_payloads, parse_id
from aiopatterns.backends.records import Entry
from aiopatterns.backends.turns import DEDUP, checked
from aiopatterns.core.validate import count, instance, non_negative, optional_count
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aiopatterns.backends.memory.home import MemoryHome
    from aiopatterns.backends.records import Claimed, GroupTurn, GroupTurned, PendingEntry

__all__ = ["MemoryLog"]


@final
class MemoryLog:
    """The protocol ``Log`` in memory.

    Args:
        home: The backend it belongs to.
        name: How errors call it.
    """

    __slots__ = ("_entries", "_groups", "_home", "_name", "_tokens", "_waiters")

    def __init__(self, home: MemoryHome, name: str) -> None:
        self._home = home
        self._name = name
        self._entries = Entries()
        self._groups: dict[str, Group] = {}
        self._tokens: Expiring[str, list[str]] = Expiring(home)
        self._waiters = Waiters()

    async def append_many(
        self, payloads: Sequence[bytes], *, max_length: int | None = None, token: str | None = None
    ) -> list[str]:
        """Append ``payloads`` in order; return their ids."""
        bodies = check_payloads(payloads)
        optional_count("max_length", max_length)
        if token is not None:
            check_name("token", token)
        self._home.require_open()
        if not bodies:
            return []
        before = None if token is None else self._tokens.get(token)
        if before is not None:
            return list(before)
        now = int(self._home.time() * 1_000)
        ids = [id_of(self._entries.append(body, now)) for body in bodies]
        if max_length is not None:
            self._entries.trim(max_length)
        if token is not None:
            self._tokens.put(token, list(ids), DEDUP)
        self._waiters.wake_all()
        return ids

    async def read(self, *, after: str = "0", limit: int = 100) -> list[Entry]:
        """Return up to ``limit`` entries whose id is above ``after``, in order."""
        key = parse_id("after", after)
        count("limit", limit)
        self._home.require_open()
        found = zip(self._entries.after(key), range(limit), strict=False)
        return [Entry(id_of(each), body) for (each, body), _ in found]

    async def length(self) -> int:
        """Return the number of entries."""
        self._home.require_open()
        return len(self._entries)

    async def trim(self, *, max_length: int, keep_unread: bool = False) -> int:
        """Remove the oldest entries beyond ``max_length``; return how many."""
        count("max_length", max_length, minimum=0)
        instance("keep_unread", keep_unread, bool, "a bool")
        self._home.require_open()
        if keep_unread and self._groups:
            settled = min(each.settled() for each in self._groups.values())
            max_length = max(max_length, self._entries.count_after(settled))
        return self._entries.trim(max_length)

    async def create_group(self, group: str, *, after: str = "0") -> bool:
        """Make ``group`` start behind ``after``; False if it exists."""
        check_name("group", group)
        start = None if after == "$" else parse_id("after", after)
        self._home.require_open()
        if group in self._groups:
            return False
        self._groups[group] = Group(self._entries, self._entries.last if start is None else start)
        return True

    async def delete_group(self, group: str) -> bool:
        """Forget ``group``; False if there was none."""
        check_name("group", group)
        self._home.require_open()
        return self._groups.pop(group, None) is not None

    async def turn(self, group: str, consumer: str, turn: GroupTurn) -> GroupTurned:
        """Settle, renew and claim in one atomic step."""
        check_name("consumer", consumer)
        said = checked(turn)
        turned = self._group(group).turn(consumer, said, self._now())
        if said.releases or said.retries:
            self._waiters.wake_all()
        return turned

    async def held(self, group: str, consumer: str) -> list[Claimed]:
        """Return all that ``consumer`` holds now, oldest first."""
        check_name("consumer", consumer)
        return self._group(group).held(consumer)

    async def wait(self, group: str, *, timeout: float) -> bool:
        """Wait until there may be something to claim, at most ``timeout`` seconds."""
        deadline = non_negative("timeout", timeout) + self._home.now()
        while True:
            due = self._group(group).due_in(self._now())
            if due == 0:
                return True
            left = deadline - self._home.now()
            if left <= 0:
                return False
            self._home.on_close(self._waiters.wake_all)
            with move_on_after(left if due is None else min(left, due)):
                await self._waiters.wait()

    async def pending(self, group: str, *, limit: int = 100) -> list[PendingEntry]:
        """Return the oldest entries that are claimed or wait for a retry."""
        count("limit", limit)
        return self._group(group).pending(limit, self._now())

    async def lag(self, group: str) -> int:
        """Return how many entries the group has not claimed yet."""
        return self._group(group).lag()

    async def dead(self, group: str, *, limit: int = 100) -> list[tuple[Claimed, bytes]]:
        """Return the newest dead letters of ``group`` with their reasons."""
        count("limit", limit)
        return self._group(group).dead(limit)

    async def requeue(self, group: str, ids: Collection[str]) -> int:
        """Hand out these dead letters again; return how many there were."""
        check_names("ids", ids)
        there = self._group(group).requeue(ids, self._now())
        self._waiters.wake_all()
        return there

    def _now(self) -> int:
        return round(self._home.now() * 1e6)

    def _group(self, group: str) -> Group:
        """Return the group, if the backend is open and there is one."""
        check_name("group", group)
        self._home.require_open()
        found = self._groups.get(group)
        if found is None:
            msg = f"log {self._name!r} has no group {group!r}; make it with create_group"
            raise ValueError(msg)
        return found
