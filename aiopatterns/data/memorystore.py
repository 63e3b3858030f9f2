"""MemorySyncStore: records in this process, for tests, caches and work offline.

It keeps what a database would, bytes, so nobody changes a record by changing the value that was
read or written.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import islice
from typing import TYPE_CHECKING, TypeVar, final

from aiopatterns.core.clock import yield_now
from aiopatterns.data.clock import MAX_DRIFT
from aiopatterns.data.draft import Draft, fresh_state
from aiopatterns.data.syncstore import PAGE, SyncStore

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from aiopatterns.data.draft import Held, State
    from aiopatterns.data.record import Head, Row

__all__ = ["MemorySyncStore"]

T = TypeVar("T")


@final
class MemorySyncStore(SyncStore):
    """A store in memory.

    Args:
        name: Names this store among all that it is synchronised with.
        max_drift: Seconds that the clock of another store may be ahead.

    Raises:
        TypeError: A value is of another type.
        ValueError: ``name`` is empty, or ``max_drift`` is not above 0.

    Complexity: O(1) for a record; O(records) for digests and the scan of a bucket.

    Example::

        store = MemorySyncStore("phone")
        await store.put("note", {"text": "milk"})
    """

    __slots__ = ("_held", "_keys", "_log", "_notes", "_rows", "_state")

    def __init__(self, name: str, *, max_drift: float = MAX_DRIFT) -> None:
        super().__init__(name, max_drift=max_drift)
        self._rows: dict[str, Row] = {}
        self._keys: list[str] = []  # in order; empty until somebody asks
        self._log: list[tuple[int, str]] = []  # by number; old places of a record are skipped
        self._held: dict[str, Held] = {}
        self._notes: dict[str, bytes] = {}
        self._state: State = fresh_state(name)

    async def state(self) -> State:
        """Return what this store knows of itself."""
        await yield_now()
        return self._state

    async def changes(self, since: int, limit: int) -> Sequence[Head]:
        """Return the records with the lowest numbers above ``since``, in order."""
        await yield_now()
        found: list[Head] = []
        at = bisect_right(self._log, since, key=_number)
        while at < len(self._log) and len(found) < limit:
            number, key = self._log[at]
            if self._is_at(key, number):
                found.append(self._rows[key].head())
            at += 1
        return found

    async def scan(self, bucket: int | None, after: str, limit: int) -> Sequence[Head]:
        """Return the records of a bucket, or of all, with the first keys after ``after``."""
        await yield_now()
        if not self._keys:
            self._keys = sorted(self._rows)
        rows = (
            self._rows[key] for key in islice(self._keys, bisect_right(self._keys, after), None)
        )
        there = rows if bucket is None else (row for row in rows if row.bucket == bucket)
        return [row.head() for row in islice(there, limit)]

    async def digests(self) -> Mapping[int, int]:
        """Return for each bucket that is not empty a number that its records make."""
        await yield_now()
        sums: dict[int, int] = {}
        for row in self._rows.values():
            sums[row.bucket] = sums.get(row.bucket, 0) + row.digest
        return sums

    async def heads(self, keys: Collection[str]) -> Mapping[str, Head]:
        """Return the heads of those of ``keys`` that there are."""
        await yield_now()
        return {key: row.head() for key in keys if (row := self._rows.get(key)) is not None}

    async def fetch(self, keys: Collection[str]) -> Mapping[str, Row]:
        """Return the records of those of ``keys`` that there are, packed."""
        await yield_now()
        return self._read(keys)

    async def held(self, after: str, limit: int) -> Sequence[Held]:
        """Return what is in quarantine, with the first keys after ``after``."""
        await yield_now()
        keys = sorted(key for key in self._held if key > after)
        return [self._held[key] for key in keys[:limit]]

    async def load(self, name: str) -> bytes | None:
        """Return a note, or None."""
        await yield_now()
        return self._notes.get(name)

    async def transact(
        self, keys: Collection[str], plan: Callable[[Draft], T], *, dry_run: bool = False
    ) -> T:
        """Read, plan and write in one step."""
        await yield_now()
        held = {key: self._held[key] for key in keys if key in self._held}
        draft = Draft(self.clock, self._state, self._read(keys), held)
        planned = plan(draft)
        if not dry_run:
            self._keep(draft)
            self._announce(draft)
        return planned

    def __len__(self) -> int:
        return sum(not row.deleted for row in self._rows.values())

    # --------------------------------------------------------------------------- private core

    async def _tombstones(self, before: float, since: int, passed: int) -> Sequence[Head]:
        await yield_now()
        found = sorted(
            (row.seq, row)
            for row in self._rows.values()
            if row.deleted and row.changed_at <= before and since < row.seq <= passed
        )
        return [row.head() for _, row in found[:PAGE]]

    def _read(self, keys: Collection[str]) -> dict[str, Row]:
        return {key: row for key in keys if (row := self._rows.get(key)) is not None}

    def _keep(self, draft: Draft) -> None:
        self._state = draft.state
        self._notes.update(draft.notes)
        for key, held in draft.holds.items():
            if held is None:
                self._held.pop(key, None)
            else:
                self._held[key] = held
        for key in draft.removals:
            self._keys.clear()
            self._rows.pop(key, None)
        for key, row in draft.writes.items():
            if key not in self._rows:
                self._keys.clear()
            self._rows[key] = row
            self._log.append((row.seq, key))
        if len(self._log) > 2 * len(self._rows) + PAGE:
            self._log = [each for each in self._log if self._is_at(each[1], each[0])]

    def _is_at(self, key: str, number: int) -> bool:
        row = self._rows.get(key)
        return row is not None and row.seq == number


def _number(entry: tuple[int, str]) -> int:
    return entry[0]
