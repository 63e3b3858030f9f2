"""RedisParticipant: keys of a backend that take part in two-phase commits.

Redis has no promise, so one is made of single atomic steps on single keys. Each value stands in a
cell that can hold, beside what is committed, what a transaction wants to put there::

    cell    [value, -, -]  -- lock -->  [value, g17, new]  -- outcome -->  [new, -, -] or [value, -, -]
    record  t:g17  preparing -> PREPARED -> COMMITTED, or ABORTED          each step compare-and-set

A promise is the record in PREPARED with all cells locked. That record is also the one that decides
here: cells follow it, and one that a dead process has left locked is set right by the next who
needs it.

Guarantees:

* At the vote, what was read or written must be as it was seen, and nobody else's lock is on it.
* A PREPARE that arrives after its rollback finds the record taken, and is refused.

Not guaranteed: more than Redis keeps. With ``appendfsync everysec`` the last second's promises may
be lost with the server, and a failover loses what the replica had not got; recovery reports a
promise that is gone. A promise is kept for :data:`PROMISED_FOR` seconds. Other programs must not
write these keys but through a participant of the same name.

Source: Peng and Dabek, "Large-scale incremental processing using distributed transactions and
notifications" (2010), Percolator, for locks in the cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

import msgspec

from aiopatterns.backends.names import check_data, check_name
from aiopatterns.backends.opening import resolve
from aiopatterns.backends.records import DELETE, Change
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import ConflictError
from aiopatterns.data.participants import Fate, Prepared, Vote, participant_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from aiopatterns.backends.protocols import Backend, Directory

__all__ = ["PROMISED_FOR", "RedisBranch", "RedisParticipant"]

#: Seconds that a promise, and the memory of a commit, are kept.
PROMISED_FOR: Final = 30 * 24 * 3600.0
#: Seconds that a rollback without a promise is remembered, for a PREPARE that is late.
REFUSED_FOR: Final = 3600.0

_State: TypeAlias = Literal["preparing", "prepared", "committed", "aborted"]


@final
class Cell(msgspec.Struct, frozen=True, array_like=True):
    """What is under one key; new fields go to the end.

    Attributes:
        value: What is committed; None if nothing is.
        gid: Who has locked it; empty if nobody has.
        new: What is there after a commit; None if nothing is.
    """

    value: bytes | None = None
    gid: str = ""
    new: bytes | None = None


@final
class TransactionRecord(msgspec.Struct, frozen=True, array_like=True):
    """What becomes of one transaction here; new fields go to the end.

    Attributes:
        state: How far it is.
        keys: Those that it has locked, or will.
        since: When it began to promise, by the server's clock.
    """

    state: _State
    keys: list[str]
    since: float


_cell_of = MSGPACK.decoder(Cell)
_record_of = MSGPACK.decoder(TransactionRecord)


@final
class RedisBranch:
    """The work of one transaction; made by ``tx[participant]``.

    Args:
        participant: Where it is done.
    """

    __slots__ = ("_participant", "asked", "seen", "writes")

    def __init__(self, participant: RedisParticipant) -> None:
        self._participant = participant
        self.seen: dict[str, bytes | None] = {}  # the committed values that it has read
        self.writes: dict[str, bytes | None] = {}
        self.asked: bool = False  # whether it may have been promised

    async def execute(self, key: str, value: bytes | None) -> None:
        """Write ``value`` under ``key`` when the transaction commits; None removes it.

        Raises:
            TypeError: ``value`` is neither bytes nor None, or ``key`` is no text.
            ValueError: ``key`` is empty or too long.
        """
        check_name("key", key)
        self.writes[key] = None if value is None else check_data("value", value)

    async def get(self, key: str) -> bytes | None:
        """Return what is under ``key``, with the transaction's own writes; None if nothing is.

        Raises:
            BackendError: The backend does not answer.
        """
        check_name("key", key)
        if key in self.writes:
            return self.writes[key]
        if key not in self.seen:
            self.seen[key] = await self._participant.get(key)
        return self.seen[key]


@final
class RedisParticipant:
    """Keys of a backend.

    Args:
        name: Its name: up to 40 letters, digits, ``_`` and ``-``. It begins its keys as well.
        backend: Where they are, or its URL; opened for each step if nobody has it open. One in
            memory is a participant too.

    Raises:
        TypeError: A value is of another type.
        ValueError: ``name`` is none.

    Complexity: 4 round trips to promise, 4 to commit, beside those of the reads.
    """

    __slots__ = ("_backend", "_branches", "name")

    def __init__(self, name: str, backend: Backend | str) -> None:
        self.name: Final[str] = participant_name(name)
        self._backend = resolve(backend)
        self._branches: dict[str, RedisBranch] = {}

    def __repr__(self) -> str:
        return f"RedisParticipant({self.name!r}, {self._backend.url!r})"

    async def get(self, key: str) -> bytes | None:
        """Return what is committed under ``key``; None if nothing is.

        Raises:
            BackendError: The backend does not answer.

        Complexity: 1 round trip; more if a transaction has locked it.
        """
        async with self._backend as backend:
            raw = await backend.kv.get(self._cell(key))
            if raw is None:
                return None
            cell = _cell_of(raw)
            if cell.gid and (await self._state(cell.gid)) == "committed":
                return cell.new
            return cell.value

    def branch(self, gid: str) -> RedisBranch:
        """Begin work under ``gid``; no I/O."""
        branch = self._branches[gid] = RedisBranch(self)
        return branch

    async def prepare(self, gid: str) -> Vote:
        """Promise the work of ``gid``.

        Raises:
            ConflictError: What it has seen was changed, or is locked by another.
        """
        branch = self._branches[gid]
        async with self._backend as backend:
            if not branch.writes:
                await self._check_seen(branch)
                return Vote.READ_ONLY
            branch.asked = True
            await self._index.put(gid, b"", ttl=PROMISED_FOR)
            record = TransactionRecord("preparing", [*branch.writes], await backend.time())
            if not await self._step(gid, None, record):
                raise ConflictError(f"transaction {gid} was rolled back before it was promised")
            await self._lock(gid, branch)
            await self._check_seen(branch)
            if not await self._step(gid, record, _in_state(record, "prepared")):
                raise ConflictError(f"transaction {gid} was rolled back while it was promised")
            return Vote.YES

    async def commit(self, gid: str) -> bool:
        """Commit what was promised; False if there is no such promise."""
        self._branches.pop(gid, None)
        async with self._backend:
            record = await self._record(gid)
            if record is None or record.state not in {"prepared", "committed"}:
                return False
            done = _in_state(record, "committed")
            first = record.state == "prepared" and await self._step(gid, record, done)
            await self._unlock(gid, done)
            return first

    async def commit_alone(self, gid: str) -> bool:
        """Promise and commit; the record of it is removed.

        Raises:
            ConflictError: What it has seen was changed, or is locked by another.
        """
        if await self.prepare(gid) is Vote.READ_ONLY:
            del self._branches[gid]
            return True
        committed = await self.commit(gid)
        await self.forget((gid,))
        return committed

    async def rollback(self, gid: str) -> bool:
        """Undo the work, promised or not; False if there is none."""
        branch = self._branches.pop(gid, None)
        if branch is not None and not branch.asked:
            return True
        async with self._backend as backend:
            record = await self._record(gid)
            if record is None:
                refused = TransactionRecord("aborted", [], await backend.time())
                await self._step(gid, None, refused, ttl=REFUSED_FOR)
                await self._index.remove(gid)
                return False
            if record.state == "committed":
                return False
            undone = _in_state(record, "aborted")
            if record != undone and not await self._step(gid, record, undone):
                return await self.rollback(gid)  # somebody was faster: see what is there now
            await self._unlock(gid, undone)
            return record != undone

    async def in_doubt(self) -> Sequence[Prepared]:
        """Return what was promised, or has begun to be, and is not resolved."""
        async with self._backend as backend:
            gids = [*(await self._index.snapshot()).members]
            found = await backend.kv.get_many([self._key(gid) for gid in gids])
            now = await backend.time()
            records = [(gid, found.get(self._key(gid))) for gid in gids]
            return [
                Prepared(gid, now - (now if raw is None else _record_of(raw).since))
                for gid, raw in records
            ]

    async def outcome(self, gid: str) -> Fate:
        """Return what is known of ``gid``."""
        async with self._backend:
            state = await self._state(gid)
        if state == "committed":
            return Fate.COMMITTED
        return Fate.PREPARED if state in {"prepared", "preparing"} else Fate.UNKNOWN

    async def forget(self, gids: Collection[str]) -> None:
        """Remove the records of ``gids``."""
        async with self._backend as backend:
            await backend.kv.delete(*(self._key(gid) for gid in gids))

    # --------------------------------------------------------------------------- private core

    @property
    def _index(self) -> Directory:
        return self._backend.directory(f"2pc:{self.name}")

    def _key(self, gid: str) -> str:
        return f"2pc:{self.name}:t:{gid}"

    def _cell(self, key: str) -> str:
        return f"2pc:{self.name}:v:{key}"

    async def _record(self, gid: str) -> TransactionRecord | None:
        raw = await self._backend.kv.get(self._key(gid))
        return None if raw is None else _record_of(raw)

    async def _state(self, gid: str) -> _State | None:
        record = await self._record(gid)
        return None if record is None else record.state

    async def _step(
        self,
        gid: str,
        old: TransactionRecord | None,
        new: TransactionRecord,
        *,
        ttl: float = PROMISED_FOR,
    ) -> bool:
        """Bring a record from ``old`` to ``new``; False if it is another by now."""
        expected = None if old is None else MSGPACK.encode(old)
        return await self._backend.kv.compare_and_set(
            self._key(gid), expected, MSGPACK.encode(new), ttl=ttl
        )

    async def _cells(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """Return the bytes of cells by key; locks of transactions that are over are gone then.

        Raises:
            ConflictError: One is locked by a transaction that is not.
        """
        names = {key: self._cell(key) for key in keys}
        found = await self._backend.kv.get_many([*names.values()])
        return {key: await self._freed(key, found.get(name)) for key, name in names.items()}

    async def _freed(self, key: str, raw: bytes | None) -> bytes | None:
        while raw is not None and (gid := _cell_of(raw).gid):
            record = await self._record(gid)
            if record is not None and record.state in {"preparing", "prepared"}:
                raise ConflictError(f"{key!r} is locked by transaction {gid}", key=key)
            state = "aborted" if record is None else record.state
            await self._release(gid, [key], state)
            raw = await self._backend.kv.get(self._cell(key))
        return raw

    async def _lock(self, gid: str, branch: RedisBranch) -> None:
        """Lock what is written, as it was seen.

        Raises:
            ConflictError: It was changed; what is locked is freed by the rollback.
        """
        cells = await self._cells(branch.writes)
        changes: list[Change] = []
        for key, raw in cells.items():
            value = None if raw is None else _cell_of(raw).value
            if branch.seen.pop(key, value) != value:
                raise ConflictError(f"{key!r} was changed by another transaction", key=key)
            locked = MSGPACK.encode(Cell(value, gid, branch.writes[key]))
            changes.append(Change(self._cell(key), locked, raw))
        if not all(await self._backend.kv.change_many(changes)):
            raise ConflictError(f"transaction {gid}: a key was locked by another one meanwhile")

    async def _check_seen(self, branch: RedisBranch) -> None:
        """See whether what was only read is as it was; behind the locks, or two could miss both.

        Raises:
            ConflictError: It is not.
        """
        for key, raw in (await self._cells(branch.seen)).items():
            value = None if raw is None else _cell_of(raw).value
            if branch.seen[key] != value:
                raise ConflictError(f"{key!r} was changed by another transaction", key=key)

    async def _unlock(self, gid: str, record: TransactionRecord) -> None:
        """Let all cells follow the record, then take it from the index."""
        await self._release(gid, record.keys, record.state)
        await self._index.remove(gid)

    async def _release(self, gid: str, keys: Sequence[str], state: _State) -> None:
        names = [self._cell(key) for key in keys]
        changes: list[Change] = []
        for name, raw in (await self._backend.kv.get_many(names)).items():
            cell = _cell_of(raw)
            if cell.gid == gid:
                value = cell.new if state == "committed" else cell.value
                after = DELETE if value is None else MSGPACK.encode(Cell(value))
                changes.append(Change(name, after, raw))
        if changes:
            await self._backend.kv.change_many(changes)


def _in_state(record: TransactionRecord, state: _State) -> TransactionRecord:
    return msgspec.structs.replace(record, state=state)
