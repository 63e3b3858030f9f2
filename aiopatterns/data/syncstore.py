"""SyncStore: records that know their history well enough to be synchronised.

A store is a table of records with a change log over it. Each write gives its record the next
number, so reading on from a number gives what has changed since, each record once, in its newest
version; an old version leaves no trace in the log::

    seq     1     2     3     4     5     6        put a, put b, put a, put c, delete b, put d
                        a     c     b(x)  d        what the log is: a record's latest place
    changes(since=4) -> b (a tombstone), d

Two stores that are synchronised need no lock and no common clock. All that is asked of a store is
in this file; where its rows are is what :class:`~aiopatterns.data.MemorySyncStore` and
:class:`~aiopatterns.data.SqlSyncStore` say.

Guarantees:

* A write is one transaction: the record, its place in the log, and what the store knows of itself.
* Whoever has read the log up to a number misses nothing of what is written later: numbers become
  visible in their order, also where several processes write.
* Tombstones stay until all known peers have them; what was purged is not brought back by a peer
  that slept.

Not guaranteed: every version of a record. What is overwritten before a peer reads it is never seen
by that peer. And an edit that a peer made while it was forgotten comes back with it, for nobody
has deleted that.

Source: the log is CouchDB's changes feed; numbering events per store and remembering what was seen
of each: Wuu and Bernstein, "Efficient Solutions to the Replicated Log", PODC 1984.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiopatterns.core.clock import wall
from aiopatterns.core.validate import instance, non_negative, text
from aiopatterns.core.waiters import Waiters
from aiopatterns.data.clock import MAX_DRIFT, HybridClock
from aiopatterns.data.draft import Draft
from aiopatterns.data.record import unpacked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence
    from types import TracebackType
    from typing import Self

    from aiopatterns.data.draft import Held, State
    from aiopatterns.data.record import Head, Record, Row
    from aiopatterns.data.version import Versioned

__all__ = ["MAX_KEY", "PAGE", "SyncStore", "checked_key"]

T = TypeVar("T")

#: Characters of a key at most: an index of PostgreSQL takes no longer ones.
MAX_KEY: Final = 500
#: Records that are read at once where all are read.
PAGE: Final = 500


class SyncStore(ABC):
    """Records by key, with a change log.

    A subclass keeps rows, and finds them; all rules are here.

    Args:
        name: Names this store among all that it is synchronised with, and is the node in stamps.
        max_drift: Seconds that the clock of another store may be ahead.

    Raises:
        TypeError: A value is of another type.
        ValueError: ``name`` is empty, or ``max_drift`` is not above 0.
    """

    __slots__ = ("_waiting", "_writes", "clock", "name")

    def __init__(self, name: str, *, max_drift: float = MAX_DRIFT) -> None:
        self.name: Final[str] = text("name", name)
        self.clock: Final[HybridClock] = HybridClock(name, max_drift=max_drift)
        self._writes = 0
        self._waiting = Waiters()

    # -------------------------------------------------------------------- for the application

    async def put(self, key: str, value: Any) -> Versioned:
        """Write a record. It knows of all versions that are here, and ends their conflict.

        Args:
            key: At most 500 characters.
            value: Plain data: numbers, text, bytes, None, lists, and mappings whose keys are text.

        Returns:
            The version that was written.

        Raises:
            CodecError: ``value`` is none that can be written.
            TypeError: ``key`` is no text.
            ValueError: ``key`` is empty or too long.
            BackendError: The store failed.

        Cancellation: the record is written or not.

        Complexity: one transaction.
        """
        checked_key(key)
        return await self.transact((key,), lambda draft: draft.put(key, value))

    async def put_many(self, values: Mapping[str, Any]) -> None:
        """Write many records, as :meth:`put` does, :data:`PAGE` in each transaction.

        Args:
            values: What to write, by key.

        Raises:
            CodecError: A value is none that can be written. Of its page nothing is, of those
                before it everything.
            TypeError: ``values`` is no mapping, or a key no text.
            ValueError: A key is empty or too long; nothing is written.
            BackendError: The store failed.

        Cancellation: a number of whole pages is written.
        """
        instance("values", values, Mapping, "a mapping of keys to values")
        waiting = iter([(checked_key(key), value) for key, value in values.items()])
        while page := dict(islice(waiting, PAGE)):
            await self.transact(page, partial(_put_all, values=page))

    async def get(self, key: str) -> Versioned | None:
        """Return the version in force, or None if there is no record, or it was deleted.

        Of versions in conflict it is the same on every node: one that is not deleted, if there is
        one, and of those the latest.
        """
        row = (await self.fetch((checked_key(key),))).get(key)
        return None if row is None or row.deleted else unpacked(row).leaves[0]

    async def delete(self, key: str) -> Versioned | None:
        """Delete a record, if there is one; a tombstone takes its place.

        Returns:
            The tombstone, or None if there was nothing to delete.

        Cancellation: the record is deleted or not.

        Complexity: one transaction.
        """

        def plan(draft: Draft) -> Versioned | None:
            row = draft.row(key)
            return None if row is None or row.deleted else draft.put(key, None, deleted=True)

        return await self.transact((checked_key(key),), plan)

    async def records(self, *, tombstones: bool = False) -> AsyncIterator[Versioned]:
        """Iterate over the versions in force, in the order of keys, each as it is when it is read.

        Args:
            tombstones: Whether to return those of deleted records as well.

        Complexity: O(records), in pages.
        """
        async for record in self._all():
            if tombstones or not record.deleted:
                yield record.leaves[0]

    async def conflicts(self) -> AsyncIterator[tuple[Versioned, ...]]:
        """Iterate over the records that are in conflict: all versions of each, that in force first.

        :meth:`put` and :meth:`delete` end a conflict.

        Complexity: O(records), in pages.
        """
        async for record in self._all():
            if len(record.leaves) > 1:
                yield record.leaves

    async def quarantined(self) -> AsyncIterator[Held]:
        """Iterate over what has come from other stores and could not be taken, by key.

        Each synchronisation tries again. So it comes in when the clock has come that far, when the
        function of a merge is mended, or when its record is written anew where it came from.
        """
        after = ""
        while page := await self.held(after, PAGE):
            after = page[-1].key
            for each in page:
                yield each

    async def purge(self, *, older_than: float = 0) -> int:
        """Forget tombstones that all known peers have.

        Peers are the stores that have got changes of this one, and the consumers of its change
        log. One that will not come back is forgotten by :meth:`forget`; if it does come back, it
        is synchronised anew by comparison, and what was purged does not come back with it.

        For that, a tombstone stays until this store has seen all that its authors had written
        before: until a synchronisation has come to its end, with nothing left in quarantine.

        Args:
            older_than: Seconds, 0 or more: how old a tombstone must be. Days, where there may be
                peers that have not been seen yet.

        Returns:
            How many were forgotten.

        Cancellation: some are forgotten, or none.
        """
        before, since, purged = wall() - non_negative("older_than", older_than), 0, 0
        while True:
            passed = _passed(await self.state())
            found = await self._tombstones(before, since, passed)
            keys = [each.key for each in found]
            purged += await self.transact(keys, partial(_purge, keys=keys, before=before))
            if len(found) < PAGE:
                return purged
            since = found[-1].seq

    async def forget(self, peer: str) -> bool:
        """Wait for a peer no longer: purge what it has not seen.

        Args:
            peer: Name of a store or of a consumer.

        Returns:
            Whether it was known.
        """

        def plan(draft: Draft) -> bool:
            peers = dict(draft.state.peers)
            known = peers.pop(peer, None) is not None
            draft.change(peers=peers)
            return known

        return await self.transact((), plan)

    async def renew(self) -> None:
        """Give the store a fresh epoch, after it was put back to an older copy of itself.

        The numbers that the copy has not got come again, for other changes, and other stores
        would take those for known. With another epoch the store is another node; it is compared
        with each of its peers once, and gets back what it has given them.

        Call it before anything is written. A store that is not told finds out when it meets what
        it does not know it has written; what was written before that may be lost.
        """
        await self.transact((), Draft.renew)

    # --------------------------------------------------------------------- for synchronisation

    @property
    def writes(self) -> int:
        """How many transactions of this object have changed a record."""
        return self._writes

    async def written(self, seen: int) -> int:
        """Wait until this object has changed a record.

        What other processes write to the same place goes unnoticed.

        Args:
            seen: What :attr:`writes` was when it was looked at last.

        Returns:
            What it is now.
        """
        while self._writes == seen:
            await self._waiting.wait()
        return self._writes

    @abstractmethod
    async def state(self) -> State:
        """Return what this store knows of itself."""

    @abstractmethod
    async def changes(self, since: int, limit: int) -> Sequence[Head]:
        """Return the records with the lowest numbers above ``since``, in order."""

    @abstractmethod
    async def scan(self, bucket: int | None, after: str, limit: int) -> Sequence[Head]:
        """Return the records of a bucket, or of all, with the first keys after ``after``.

        Keys are in the order of their code points, in every store.
        """

    @abstractmethod
    async def digests(self) -> Mapping[int, int]:
        """Return for each bucket that is not empty a number that its records make."""

    @abstractmethod
    async def heads(self, keys: Collection[str]) -> Mapping[str, Head]:
        """Return the heads of those of ``keys`` that there are."""

    @abstractmethod
    async def fetch(self, keys: Collection[str]) -> Mapping[str, Row]:
        """Return the records of those of ``keys`` that there are, packed."""

    @abstractmethod
    async def held(self, after: str, limit: int) -> Sequence[Held]:
        """Return what is in quarantine, with the first keys after ``after``."""

    @abstractmethod
    async def load(self, name: str) -> bytes | None:
        """Return a note, or None."""

    @abstractmethod
    async def transact(
        self, keys: Collection[str], plan: Callable[[Draft], T], *, dry_run: bool = False
    ) -> T:
        """Lock, read, plan and write.

        Args:
            keys: The records that ``plan`` sees.
            plan: Decides what is written; it does not wait.
            dry_run: Whether to write nothing.

        Returns:
            What ``plan`` returns, when all is durable.

        Raises:
            BackendUnavailableError: The store is out of reach.
            BackendError: It has failed. Nothing was written, unless the answer was lost.
            Exception: What ``plan`` raises; nothing was written.

        Cancellation: all was written, or nothing.
        """

    @abstractmethod
    async def _tombstones(self, before: float, since: int, passed: int) -> Sequence[Head]:
        """Return up to a page of tombstones in the order of their numbers.

        Args:
            before: When they must have been written, in seconds since 1970.
            since: Number that theirs are above.
            passed: Number that theirs are not above.
        """

    async def _all(self) -> AsyncIterator[Record]:
        after = ""
        while keys := [each.key for each in await self.scan(None, after, PAGE)]:
            after = keys[-1]
            found = await self.fetch(keys)
            for key in keys:
                if key in found:
                    yield unpacked(found[key])

    def _announce(self, draft: Draft) -> None:
        """Tell those who wait for a change that there was one."""
        if draft.written:
            self._writes += 1
            self._waiting.wake_all()

    async def __aenter__(self) -> Self:
        """Keep what is dear to open, open until the block ends; it may be entered several times."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close what the last one has kept open."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"


def checked_key(key: str) -> str:
    """Return ``key`` if it is one that all stores can keep.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty, too long, or has a character that databases refuse.
    """
    if len(text("key", key)) > MAX_KEY or "\0" in key or not _is_unicode(key):
        msg = (
            f"key must have at most {MAX_KEY} characters, none of them NUL or half a pair: {key!r}"
        )
        raise ValueError(msg)
    return key


def _is_unicode(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _put_all(draft: Draft, *, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        draft.put(key, value)


def _passed(state: State) -> int:
    """Return up to which change all known peers have everything."""
    return min(state.peers.values(), default=state.seq)


def _purge(draft: Draft, *, keys: Sequence[str], before: float) -> int:
    """Forget those that still are what they were when they were looked for."""
    passed, seen, purged = _passed(draft.state), draft.state.seen, 0
    for key in keys:
        row = draft.row(key)
        if row is None or not row.deleted or row.seq > passed or row.changed_at > before:
            continue
        if all(seen.dominates(each) for each in row.head().vectors):
            draft.remove(key)
            purged += 1
    return purged
