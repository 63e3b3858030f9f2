"""The queues that a dashboard knows: those it was told of, and those that workers work for.

The name of a queue is all that is known at first; in how many parts it is kept is asked of the
backend, once: its workers are alive in each of the parts, and nowhere else. A queue that was seen
stays known, for one without workers is what somebody wants to see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.names import check_name
from aiopatterns.core.codec import JSON, MSGPACK
from aiopatterns.flow.mapping import amap
from aiopatterns.jobs.envelope import Envelopes
from aiopatterns.jobs.queue import JobQueue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.backends.queue import Counts, Queue

__all__ = ["MAX_QUEUES", "KnownQueue", "Queues"]

#: Queues that are shown at most; others are passed over.
MAX_QUEUES: Final = 200
# Parts of one queue that are looked for at most.
_MAX_PARTITIONS: Final = 64


@final
class KnownQueue:
    """A queue of the backend, as far as a stranger needs to know it.

    Args:
        name: Its name.
        stores: Its parts.
        envelopes: Reads its jobs; what is signed, or of another codec, stays closed.
    """

    __slots__ = ("envelopes", "name", "stores")

    def __init__(self, name: str, stores: tuple[Queue, ...], envelopes: Envelopes) -> None:
        self.name: str = name
        self.stores: tuple[Queue, ...] = stores
        self.envelopes: Envelopes = envelopes

    async def counts(self) -> list[Counts]:
        """Return how many jobs are where, for each part. 1 round trip for each."""
        return await amap(_counts, self.stores, limit=8)


@final
class Queues:
    """All queues that are known.

    Args:
        backend: Where they are.
        given: Names, or queues of jobs, whose keys and codecs are known then.

    Raises:
        TypeError: One is neither.
        ValueError: One can be no name.
    """

    __slots__ = ("_backend", "_known", "_told")

    def __init__(self, backend: Backend, given: Iterable[JobQueue | str] = ()) -> None:
        self._backend = backend
        self._known: dict[str, KnownQueue] = {}
        self._told: dict[str, JobQueue | None] = {}
        for each in given:
            if isinstance(each, JobQueue):
                self._told[each.name] = each
            else:
                self._told[check_name("queues", each)] = None

    def get(self, name: str) -> KnownQueue | None:
        """Return a queue that is known."""
        return self._known.get(name)

    async def meet(self, named: Mapping[str, int]) -> list[KnownQueue]:
        """Take note of queues, and return all that are known, by their names.

        Args:
            named: In how many parts each is kept; 0 where that has to be found out.

        Complexity: O(queues); some round trips for each that is new.
        """
        others = (each for each in named if _is_name(each))
        for name in {*self._told, *others} - self._known.keys():
            if len(self._known) >= MAX_QUEUES:
                break
            self._known[name] = await self._introduced(name, named.get(name, 0))
        return [self._known[name] for name in sorted(self._known)]

    async def _introduced(self, name: str, parts: int) -> KnownQueue:
        """Find out how a queue is kept."""
        told = self._told.get(name)
        if told is not None:
            stores = tuple(self._backend.queue(each.name) for each in told.stores)
            return KnownQueue(name, stores, told.envelopes)
        envelopes = Envelopes((JSON, MSGPACK))
        if parts > 1:
            names = [f"{name}:{each}" for each in range(min(parts, _MAX_PARTITIONS))]
            return KnownQueue(name, tuple(map(self._backend.queue, names)), envelopes)
        whole = self._backend.queue(name)
        stores = (whole,) if (await whole.counts()).alive else await self._parts(name) or (whole,)
        return KnownQueue(name, stores, envelopes)

    async def _parts(self, name: str) -> tuple[Queue, ...]:
        found: list[Queue] = []
        for number in range(_MAX_PARTITIONS):
            part = self._backend.queue(f"{name}:{number}")
            if not (await part.counts()).alive:
                break
            found.append(part)
        return tuple(found)


def _is_name(name: str) -> bool:
    """Whether a queue, and its parts, can be called so; names are what others have written."""
    try:
        check_name("name", f"{name}:{_MAX_PARTITIONS}")
        check_name("name", name)
    except ValueError:
        return False
    return True


async def _counts(store: Queue) -> Counts:
    return await store.counts()
