"""An append-only log with groups, in Redis: a stream, and for each group a few keys of our own.

::

    {ap:log:<name>}:s            stream  the entries: p payload, n running number
                   :meta         hash    n appended ever, hole highest deleted id, graves,
                                         oldest:<g> nothing is held for longer than since then
                   :groups       hash    group -> id of the last entry that was handed out
                   :tok:<token>  string  what an append returned, for its repetition
                   :own:<g>      hash    held id -> <deliveries>:<claimed or renewed>:<consumer>
                   :parked:<g>   hash    parked id -> <deliveries>:<since>
                   :due:<g>      zset    parked ids by the time of their retry, in us
                   :body:<g>     hash    payloads of requeued dead letters
                   :dead:<g>     hash    id -> deliveries:size of reason:reason payload
                   :graves:<g>   zset    dead ids, oldest first
                   :bell:<g>     stream  one entry; a new one says that a retry is due earlier

The groups are not those of Redis (XGROUP): theirs cannot give back an entry without counting the
delivery, cannot hold one back until a retry is due, and keep a record of every consumer that
ever was. Here an entry is in one of four places, and every turn is one script over them::

              fresh                  ack, or bury (dead letter)
    log ------------------> HELD -------------------------------->
                            ^  |
       due, or abandoned    |  | release (due at once, not counted), retry (due later)
                            |  v
                           PARKED <------------------------------- requeue of a dead letter

A turn may claim, so it is never sent twice: whoever has lost the answer asks :meth:`RedisLog.held`.
An append carries a token and is sent again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.backends.names import (
    check_name,
    check_names,
    check_payloads,
    escaped,
    parse_id,
)
from aiopatterns.backends.records import Claimed, Entry, GroupTurned, PendingEntry
from aiopatterns.backends.redis.scripts import Script
from aiopatterns.backends.turns import DEDUP, MAX_DEAD, checked
from aiopatterns.core.clock import monotonic, rng
from aiopatterns.core.validate import count, instance, non_negative, optional_count

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aiopatterns.backends.records import GroupTurn
    from aiopatterns.backends.redis.client import RedisClient
    from aiopatterns.backends.redis.line import Line

__all__ = ["RedisLog"]

# Milliseconds: a token that the caller named, one of our own (beyond the client's patience, with
# the silence before the first attempt fails and the connecting before the last), and a bell (longer
# than anybody waits in one piece).
_NAMED: Final = round(DEDUP * 1_000)
_OWN: Final = 20_000
_BELL: Final = 86_400_000
_LONGEST_BLOCK: Final = 3_600.0

_APPEND: Final = Script("log_append")
_CREATE_GROUP: Final = Script("log_create_group")
_DELETE_GROUP: Final = Script("log_delete_group")
_TURN: Final = Script("log_turn")
_HELD: Final = Script("log_held")
_LOOK: Final = Script("log_look")
_PENDING: Final = Script("log_pending")
_LAG: Final = Script("log_lag")
_DEAD: Final = Script("log_dead")
_REQUEUE: Final = Script("log_requeue")
_TRIM: Final = Script("log_trim")


@final
class RedisLog:
    """The protocol ``Log`` in Redis.

    Args:
        client: The connections.
        name: The name.
    """

    __slots__ = ("_client", "_idle", "_name", "_tag")

    def __init__(self, client: RedisClient, name: str) -> None:
        self._client = client
        self._name = name
        self._tag = client.tag("log", escaped(check_name("name", name), "}"))
        self._idle: list[Line] = []  # connections on which nobody waits now

    async def append_many(
        self, payloads: Sequence[bytes], *, max_length: int | None = None, token: str | None = None
    ) -> list[str]:
        """Append ``payloads`` in order, all or none; return their ids. 1 round trip."""
        bodies = check_payloads(payloads)
        length = optional_count("max_length", max_length)
        if token is not None:
            check_name("token", token)
        if not bodies:
            await self._client.once_each([])
            return []
        named = f"{rng().getrandbits(128):032x}" if token is None else token
        keys = [*self._keys("s", "meta"), f"{self._tag}:tok:{named}"]
        own = _OWN + round(2_000 * self._client.timeout)
        args = [own if token is None else _NAMED, "" if length is None else length, *bodies]
        reply: bytes = await self._client.run(_APPEND, keys, args, repeatable=True)
        return _ids(reply)

    async def read(self, *, after: str = "0", limit: int = 100) -> list[Entry]:
        """Return up to ``limit`` entries whose id is above ``after``. 1 round trip."""
        first, second = parse_id("after", after)
        count("limit", limit)
        stream = f"{self._tag}:s"
        found = await self._client.read("XRANGE", stream, f"({first}-{second}", "+", "COUNT", limit)
        return [Entry(each.decode(), fields[1]) for each, fields in found]

    async def length(self) -> int:
        """Return the number of entries. 1 round trip."""
        return int(await self._client.read("XLEN", f"{self._tag}:s"))

    async def trim(self, *, max_length: int, keep_unread: bool = False) -> int:
        """Remove the oldest entries beyond ``max_length``; return how many. 1 or 2 round trips."""
        count("max_length", max_length, minimum=0)
        if instance("keep_unread", keep_unread, bool, "a bool"):
            return await self._trim_settled(max_length)
        return int(await self._client.once("XTRIM", f"{self._tag}:s", "MAXLEN", "=", max_length))

    async def create_group(self, group: str, *, after: str = "0") -> bool:
        """Make ``group`` start behind ``after``; False if it exists. 1 round trip."""
        check_name("group", group)
        start = after if after == "$" else "{}-{}".format(*parse_id("after", after))
        args = [group, start]
        keys = self._keys("s", "groups")
        return bool(await self._client.run(_CREATE_GROUP, keys, args, repeatable=True))

    async def delete_group(self, group: str) -> bool:
        """Forget ``group``; False if there was none. 1 round trip."""
        check_name("group", group)
        own = self._keys("own", "parked", "due", "body", "dead", "graves", "bell", group=group)
        keys = [*self._keys("groups", "meta"), *own]
        return bool(await self._client.run(_DELETE_GROUP, keys, [group], repeatable=True))

    async def turn(self, group: str, consumer: str, turn: GroupTurn) -> GroupTurned:
        """Settle, renew and claim in one atomic step. 1 round trip, never repeated."""
        check_name("group", group)
        check_name("consumer", consumer)
        said = checked(turn)
        words: list[bytes | str | int] = [*said.acks, *said.releases]
        for each in (said.retries, said.buried):
            words += [word for pair in each.items() for word in pair]
        words += said.renews
        sizes = [*map(len, (said.acks, said.releases, said.retries, said.buried, said.renews))]
        delete = "1" if said.delete else ""
        args = [group, consumer, said.limit, said.idle, delete, MAX_DEAD, _BELL, *sizes, *words]
        fields = ("own", "parked", "due", "body", "dead", "graves", "bell")
        keys = [*self._keys("s", "meta", "groups"), *self._keys(*fields, group=group)]
        reply = self._there(group, await self._client.run(_TURN, keys, args))
        return GroupTurned(_claimed(reply[1]), [each.decode() for each in reply[0]])

    async def held(self, group: str, consumer: str) -> list[Claimed]:
        """Return all that ``consumer`` holds now, oldest first. 1 round trip."""
        check_name("group", group)
        check_name("consumer", consumer)
        keys = [*self._keys("s", "groups"), *self._keys("own", "body", group=group)]
        reply = await self._client.run(_HELD, keys, [group, consumer], repeatable=True)
        return sorted(_claimed(self._there(group, reply)), key=_place)

    async def wait(self, group: str, *, timeout: float) -> bool:
        """Wait until there may be something to claim, at most ``timeout`` seconds.

        An entry, or one given back, ends it at once. The end of the time, and a retry that is
        due, are noticed up to 0.1 s late on an idle server: it looks at its clock so often.

        Cancellation: claims nothing, so nothing is lost; the connection is dropped.
        """
        check_name("group", group)
        deadline = monotonic() + non_negative("timeout", timeout)
        line = self._idle.pop() if self._idle else self._client.line(f"log {self._name}")
        try:
            while not (ready := await self._look(line, group, deadline)):
                if monotonic() >= deadline:
                    break
        finally:
            self._idle.append(line)
        return ready

    async def pending(self, group: str, *, limit: int = 100) -> list[PendingEntry]:
        """Return the oldest entries that are claimed or wait for a retry. 1 round trip."""
        check_name("group", group)
        count("limit", limit)
        keys = [*self._keys("groups"), *self._keys("own", "parked", group=group)]
        reply = await self._client.run(_PENDING, keys, [group], repeatable=True)
        now, *both = self._there(group, reply)
        found = [
            _pending(each, noted, int(now))
            for flat in both
            for each, noted in zip(flat[::2], flat[1::2], strict=True)
        ]
        return sorted(found, key=_place)[:limit]

    async def lag(self, group: str) -> int:
        """Return how many entries the group has not claimed yet. 1 round trip."""
        check_name("group", group)
        keys = self._keys("s", "meta", "groups")
        reply = await self._client.run(_LAG, keys, [group], repeatable=True)
        return int(self._there(group, reply))

    async def dead(self, group: str, *, limit: int = 100) -> list[tuple[Claimed, bytes]]:
        """Return the newest dead letters of ``group`` with their reasons. 1 round trip."""
        check_name("group", group)
        count("limit", limit)
        keys = [*self._keys("groups"), *self._keys("dead", "graves", group=group)]
        reply = await self._client.run(_DEAD, keys, [group, limit], repeatable=True)
        found = self._there(group, reply)
        return [_letter(*pair) for pair in zip(found[::2], found[1::2], strict=True)]

    async def requeue(self, group: str, ids: Collection[str]) -> int:
        """Hand out these dead letters again; return how many there were. 1 round trip."""
        check_name("group", group)
        check_names("ids", ids)
        fields = ("parked", "due", "body", "dead", "graves", "bell")
        keys = [*self._keys("groups"), *self._keys(*fields, group=group)]
        reply = await self._client.run(_REQUEUE, keys, [group, _BELL, *ids], repeatable=True)
        return int(self._there(group, reply))

    async def _trim_settled(self, max_length: int) -> int:
        """Trim what every group has settled; again, if there are others by the time it is done."""
        removed = -1
        while removed < 0:
            named = [
                each.decode() for each in await self._client.read("HKEYS", *self._keys("groups"))
            ]
            kept = [key for each in named for key in self._keys("own", "parked", group=each)]
            keys = [*self._keys("s", "groups"), *kept]
            reply = await self._client.run(_TRIM, keys, [max_length, *named], repeatable=False)
            removed = int(reply)
        return removed

    async def _look(self, line: Line, group: str, deadline: float) -> bool:
        """Look, and if there is nothing wait until there may be, a retry is due, or time is up."""
        bell = self._keys("due", "bell", group=group)
        found = await line.run(_LOOK, [*self._keys("s", "groups"), *bell], [group])
        ready, *rest = self._there(group, found)
        left = min(deadline - monotonic(), _LONGEST_BLOCK)
        if ready or left <= 0:
            return bool(ready)
        last, rung, due = rest
        block = max(1, math.ceil(left * 1_000))
        if int(due) >= 0:
            block = min(block, max(1, int(due)))
        streams = ("STREAMS", f"{self._tag}:s", bell[1], last, rung)
        command = ("XREAD", "COUNT", 1, "BLOCK", block, *streams)
        found = await line.call(*command, timeout=block / 1_000 + 10)
        return any(name == f"{self._tag}:s".encode() for name, _ in found or ())

    def _keys(self, *fields: str, group: str | None = None) -> list[str]:
        end = "" if group is None else f":{group}"
        return [f"{self._tag}:{field}{end}" for field in fields]

    def _there(self, group: str, reply: Any) -> Any:
        """Return ``reply``, unless it says that there is no such group."""
        if reply is None:
            msg = f"log {self._name!r} has no group {group!r}; make it with create_group"
            raise ValueError(msg)
        return reply


def _ids(reply: bytes) -> list[str]:
    """Spell out ``first count``."""
    first, _, number = reply.decode().partition(" ")
    milliseconds, _, sequence = first.partition("-")
    start = int(sequence)
    return [f"{milliseconds}-{each}" for each in range(start, start + int(number))]


def _claimed(flat: list[Any]) -> list[Claimed]:
    ids = [each.decode() for each in flat[::3]]
    return [*map(Claimed, ids, flat[1::3], map(int, flat[2::3]))]


def _pending(entry_id: bytes, noted: bytes, now: int) -> PendingEntry:
    deliveries, since, *consumer = noted.decode().split(":", 2)
    who = consumer[0] if consumer else ""
    return PendingEntry(entry_id.decode(), who, (now - int(since)) / 1e6, int(deliveries))


def _letter(entry_id: bytes, record: bytes) -> tuple[Claimed, bytes]:
    deliveries, size, rest = record.split(b":", 2)
    end = int(size)
    return Claimed(entry_id.decode(), rest[end:], int(deliveries)), rest[:end]


def _place(entry: Claimed | PendingEntry) -> tuple[int, int]:
    return Entry(entry.id, b"").sort_key
