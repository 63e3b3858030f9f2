"""Sagas in a backend: Redis, or memory.

The record of a saga is one value under one key, changed by ``compare_and_set`` alone; a directory
holds the ids of those that have not ended, so that recovery need not look at all keys::

    create:   directory.put(id)     then  compare_and_set(key, absent, record)
    save:     get(key), check owner and fence, compare_and_set(key, what was read, record)
    end:      save with the life of ended sagas, then  directory.remove(id)

Whoever dies in between leaves an id without a record, or one whose saga has ended; recovery
tidies both up.

Durability is that of the server. With ``appendfsync everysec``, the default of Redis, the last
second may be lost when the machine crashes, and with it the knowledge that a step was started:
use ``appendfsync always``, or a database, where that is not good enough. After a failover to a
replica the same holds.

No key lives for ever: an unfinished saga for :data:`LIFE` after its last change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import msgspec

from aiopatterns.backends.names import escaped
from aiopatterns.backends.opening import resolve
from aiopatterns.core.clock import monotonic
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.validate import positive
from aiopatterns.data.sagajournal import ENDED, SagaState
from aiopatterns.data.sagastore import KEEP, Filed, Listed

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.protocols import Backend

__all__ = ["LIFE", "RedisSagaStore"]

#: Seconds for which a saga is kept that nobody brings to its end.
LIFE: Final = 365 * 86_400.0
# Seconds after which the server is asked for its time again.
_CLOCK_LIFE: Final = 60.0
# Seconds after which an id without a record is no saga that is just being created.
_ORPHANED: Final = 3_600.0
# Records read in one round trip.
_PAGE: Final = 200


# The value of a key: the record, and until when it is held.
_record_of = MSGPACK.decoder(tuple[Filed, float])
# What the directory says about an id: when it was put there last.
_noted_at = MSGPACK.decoder(float)


@final
class RedisSagaStore:
    """Sagas in a backend.

    Args:
        backend: An open backend, or a URL; one made of a URL is opened by ``async with store:``.
        keep: Seconds for which a saga that has ended is remembered.

    Raises:
        TypeError: A value is of another type.
        ValueError: A value is out of its range.
    """

    __slots__ = ("_ahead", "_asked", "_backend", "_keep")

    def __init__(self, backend: Backend | str, *, keep: float = KEEP) -> None:
        self._backend = resolve(backend)
        self._keep = positive("keep", keep)
        self._ahead = 0.0  # of our monotonic clock is the server's
        self._asked: float | None = None

    def __repr__(self) -> str:
        return f"RedisSagaStore({self._backend.url!r})"

    @property
    def backend(self) -> Backend:
        """Where sagas are kept."""
        return self._backend

    async def create(self, filed: Filed, *, lease: float) -> bool:
        """File a saga. 2 round trips."""
        now = await self._now()
        entry = MSGPACK.encode(now)
        await self._backend.directory(_index(filed.saga)).put(filed.id, entry, ttl=LIFE)
        key, record = _key(filed.saga, filed.id), MSGPACK.encode((filed, now + lease))
        if await self._backend.kv.compare_and_set(key, None, record, ttl=LIFE):
            return True
        found = await self.read(filed.saga, filed.id)
        return found is not None and found.owner == filed.owner

    async def read(self, saga: str, id: str) -> Filed | None:
        """Return the record, or None. 1 round trip."""
        data = await self._backend.kv.get(_key(saga, id))
        return None if data is None else _record_of(data)[0]

    async def save(self, filed: Filed, *, lease: float) -> bool:
        """Write a record that its owner holds. 2 round trips, 3 at the end."""
        now = await self._now()
        ended = filed.state in ENDED
        record = MSGPACK.encode((filed, now + lease))
        if not await self._replace(filed, record, ttl=self._keep if ended else LIFE):
            return False
        if ended:
            await self._backend.directory(_index(filed.saga)).remove(filed.id)
        return True

    async def claim(self, saga: str, id: str, *, owner: str, lease: float) -> Filed | None:
        """Take a saga that nobody holds. 2 round trips."""
        now, key = await self._now(), _key(saga, id)
        data = await self._backend.kv.get(key)
        if data is None:
            return None
        old, held_until = _record_of(data)
        if old.state in ENDED or held_until > now:
            return None
        filed = msgspec.structs.replace(
            old, owner=owner, fence=old.fence + 1, revision=old.revision + 1
        )
        record = MSGPACK.encode((filed, now + lease))
        taken = await self._backend.kv.compare_and_set(key, data, record, ttl=LIFE)
        return filed if taken else None

    async def due(self, saga: str, definition: str, *, limit: int) -> list[str]:
        """Return ids of sagas that nobody holds. O(open sagas), 1 round trip for 200 of them."""
        now = await self._now()
        return [
            filed.id
            for filed, held_until in await self._open(saga)
            if held_until <= now
            and filed.definition == definition
            and filed.state is not SagaState.STUCK
        ][:limit]

    async def unfinished(self, saga: str, *, limit: int) -> list[Listed]:
        """Return sagas that have not ended. O(open sagas), 1 round trip for 200 of them."""
        found = [filed for filed, _ in await self._open(saga)]
        return [Listed(each.id, each.definition, each.state) for each in found[:limit]]

    async def purge(self) -> int:
        """Do nothing: the backend forgets by itself."""
        return 0

    async def __aenter__(self) -> Self:
        """Open the backend, or count one more user of it."""
        await self._backend.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Count one user of the backend less; the last one closes."""
        await self._backend.__aexit__(exc_type, exc, traceback)

    # --------------------------------------------------------------------------- private core

    async def _replace(self, filed: Filed, record: bytes, *, ttl: float) -> bool:
        """Put ``record`` in the place of an older one of the same holder."""
        key = _key(filed.saga, filed.id)
        while True:
            data = await self._backend.kv.get(key)
            if data is None:
                return False
            old, _ = _record_of(data)
            if old.supersedes(filed):
                return True
            if old.state in ENDED or not old.is_held_by(filed):
                return False
            if await self._backend.kv.compare_and_set(key, data, record, ttl=ttl):
                return True

    async def _open(self, saga: str) -> list[tuple[Filed, float]]:
        """Return the records of sagas that have not ended."""
        index = self._backend.directory(_index(saga))
        members = (await index.snapshot()).members
        wanted = list(members)
        found: list[tuple[Filed, float]] = []
        for at in range(0, len(wanted), _PAGE):
            keys = {_key(saga, name): name for name in wanted[at : at + _PAGE]}
            values = await self._backend.kv.get_many(list(keys))
            for key, name in keys.items():
                record = _record_of(values[key]) if key in values else None
                if record is not None and record[0].state not in ENDED:
                    found.append(record)
                elif record is not None or await self._is_orphaned(members[name]):
                    await index.remove(name)
        return found

    async def _is_orphaned(self, entry: bytes) -> bool:
        return await self._now() - _noted_at(entry) > _ORPHANED

    async def _now(self) -> float:
        """Return the server's time, as it is told once a minute."""
        here = monotonic()
        if self._asked is None or here - self._asked > _CLOCK_LIFE:
            self._ahead = await self._backend.time() - here
            self._asked = here
        return here + self._ahead


def _key(saga: str, id: str) -> str:
    return f"saga:{escaped(saga, ':')}:{id}"


def _index(saga: str) -> str:
    return f"saga:{saga}"
