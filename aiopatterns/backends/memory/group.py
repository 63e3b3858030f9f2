"""One group of a memory log: who has which entry, what waits for a retry, what is dead.

::

              fresh                  ack, or bury (dead letter)
    log ------------------> HELD -------------------------------->
                            ^  |
       due, or abandoned    |  | release (due at once, not counted), retry (due later)
                            |  v
                           PARKED <------------------------------- requeue of a dead letter

Everything is in whole microseconds. ``held`` is in the order of the last claim or renewal, so
what is abandoned stands in front; ``parked`` has a heap by due time, and an entry leaves both
together. All steps are synchronous.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple, final

from aiopatterns.backends.records import Claimed, GroupTurned, PendingEntry
from aiopatterns.backends.turns import MAX_DEAD

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from aiopatterns.backends.memory.entries import Entries, Key
    from aiopatterns.backends.turns import Turn

__all__ = ["Group", "id_of", "key_of"]


class _Held(NamedTuple):
    consumer: str
    deliveries: int
    since: int


class _Parked(NamedTuple):
    deliveries: int
    since: int


def id_of(key: Key) -> str:
    """Write a key as the id that users see."""
    return f"{key[0]}-{key[1]}"


def key_of(entry_id: str) -> Key:
    """Read an id that :func:`id_of` has written."""
    first, _, second = entry_id.partition("-")
    return int(first), int(second)


@final
class Group:
    """The state of one group.

    Args:
        entries: The log.
        last: The key behind which fresh entries begin.
    """

    __slots__ = ("_bodies", "_dead", "_entries", "_heap", "_held", "_last", "_number", "_parked")

    def __init__(self, entries: Entries, last: Key) -> None:
        self._entries = entries
        self._last = last
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._parked: dict[str, _Parked] = {}
        self._heap: list[tuple[int, int, str]] = []
        self._number = 0
        self._bodies: dict[str, bytes] = {}  # of requeued dead letters: the log may have none
        self._dead: OrderedDict[str, tuple[Claimed, bytes]] = OrderedDict()

    def turn(self, consumer: str, turn: Turn, now: int) -> GroupTurned:
        """Settle, renew and claim."""
        lost: list[str] = []
        for each in turn.acks:
            if self._take(each, consumer, lost):
                self._forget(each, delete=turn.delete)
        self._give_back(consumer, turn, now, lost)
        for each, reason in turn.buried.items():
            if held := self._take(each, consumer, lost):
                self._bury(each, held.deliveries, reason)
                self._forget(each, delete=turn.delete)
        for each in turn.renews:
            if held := self._take(each, consumer, lost):
                self._held[each] = held._replace(since=now)
        return GroupTurned(self._claim(consumer, turn, now), lost)

    def held(self, consumer: str) -> list[Claimed]:
        """Return what ``consumer`` holds, oldest first."""
        found: list[Claimed] = []
        for entry_id, held in self._held.items():
            body = self._body(entry_id) if held.consumer == consumer else None
            if body is not None:
                found.append(Claimed(entry_id, body, held.deliveries))
        return sorted(found, key=lambda each: key_of(each.id))

    def pending(self, limit: int, now: int) -> list[PendingEntry]:
        """Return the oldest entries that are held or parked."""
        found = [
            PendingEntry(entry_id, each.consumer, (now - each.since) / 1e6, each.deliveries)
            for entry_id, each in self._held.items()
        ]
        found += [
            PendingEntry(entry_id, "", (now - each.since) / 1e6, each.deliveries)
            for entry_id, each in self._parked.items()
        ]
        return sorted(found, key=lambda each: key_of(each.id))[:limit]

    def lag(self) -> int:
        """Return how many entries were never claimed."""
        return self._entries.count_after(self._last)

    def settled(self) -> Key:
        """Return a key up to which every entry is settled: below all that are held or parked."""
        open_keys = [key_of(each) for each in (*self._held, *self._parked)]
        milliseconds, sequence = min(open_keys, default=(self._last[0], self._last[1] + 1))
        return min(self._last, (milliseconds, sequence - 1))

    def dead(self, limit: int) -> list[tuple[Claimed, bytes]]:
        """Return the newest dead letters, newest first."""
        newest = reversed(self._dead.values())
        return [each for each, _ in zip(newest, range(limit), strict=False)]

    def requeue(self, ids: Collection[str], now: int) -> int:
        """Hand out dead letters again; return how many there were."""
        count = 0
        for each in ids:
            letter = self._dead.pop(each, None)
            if letter is not None:
                count += 1
                self._bodies[each] = letter[0].payload
                self._park(each, 0, now, now)
        return count

    def due_in(self, now: int) -> float | None:
        """Return the seconds until there is something to claim, 0 if there is, None if unknown."""
        if next(self._entries.after(self._last), None) is not None:
            return 0.0
        return max(0, self._heap[0][0] - now) / 1e6 if self._heap else None

    def _give_back(self, consumer: str, turn: Turn, now: int, lost: list[str]) -> None:
        """Park what is released, its delivery not counted, and what has failed."""
        for each in turn.releases:
            if held := self._take(each, consumer, lost):
                self._park(each, held.deliveries - 1, now, now)
        for each, delay in turn.retries.items():
            if held := self._take(each, consumer, lost):
                self._park(each, held.deliveries, now, now + delay)

    def _take(self, entry_id: str, consumer: str, lost: list[str]) -> _Held | None:
        """Take an entry out of the hands of ``consumer``, or note that it is not in them."""
        held = self._held.get(entry_id)
        if held is None or held.consumer != consumer:
            lost.append(entry_id)
            return None
        return self._held.pop(entry_id)

    def _forget(self, entry_id: str, *, delete: bool) -> None:
        """Keep nothing of an entry that is settled."""
        self._bodies.pop(entry_id, None)
        if delete:
            self._entries.remove(key_of(entry_id))

    def _park(self, entry_id: str, deliveries: int, now: int, due: int) -> None:
        """Let an entry wait until it is due; equal ones come back in the order of parking."""
        self._number += 1
        self._parked[entry_id] = _Parked(deliveries, now)
        heappush(self._heap, (due, self._number, entry_id))

    def _bury(self, entry_id: str, deliveries: int, reason: bytes) -> None:
        body = self._body(entry_id)
        if body is None:  # trimmed while it was held
            body = b""
        self._dead[entry_id] = Claimed(entry_id, body, deliveries), reason
        while len(self._dead) > MAX_DEAD:
            self._dead.popitem(last=False)

    def _body(self, entry_id: str) -> bytes | None:
        """Return the payload of an entry, or None if it was trimmed."""
        body = self._bodies.get(entry_id)
        return self._entries.get(key_of(entry_id)) if body is None else body

    def _claim(self, consumer: str, turn: Turn, now: int) -> list[Claimed]:
        """Hand out up to ``limit`` entries: failed ones, abandoned ones, fresh ones."""
        claimed: list[Claimed] = []
        for entry_id, deliveries in self._come_back(turn, now):
            body = self._body(entry_id)
            if body is not None:  # else it was trimmed: nothing of it is left
                claimed.append(Claimed(entry_id, body, deliveries + 1))
        if len(claimed) < turn.limit:
            for key, body in self._entries.after(self._last):
                self._last = key
                claimed.append(Claimed(id_of(key), body, 1))
                if len(claimed) >= turn.limit:
                    break
        for each in claimed:
            self._held[each.id] = _Held(consumer, each.deliveries, now)
        return claimed

    def _come_back(self, turn: Turn, now: int) -> Iterator[tuple[str, int]]:
        """Take out up to ``limit`` entries that are due or abandoned, with their deliveries."""
        taken = 0
        while taken < turn.limit and self._heap and self._heap[0][0] <= now:
            taken += 1
            entry_id = heappop(self._heap)[2]
            yield entry_id, self._parked.pop(entry_id).deliveries
        abandoned = self._abandoned(turn.limit - taken, now - turn.idle)
        for entry_id in sorted(abandoned, key=key_of):
            yield entry_id, self._held.pop(entry_id).deliveries

    def _abandoned(self, limit: int, till: int) -> list[str]:
        """Return up to ``limit`` entries that nobody has touched since ``till``."""
        found: list[str] = []
        for entry_id, held in self._held.items():
            if held.since > till or len(found) >= limit:
                break
            found.append(entry_id)
        return found
