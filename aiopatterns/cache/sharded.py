"""ShardedCache: one cache over several, each key at home in one of them.

::

    key --hash--> slot 0..16380 --rendezvous--> shard         remembered for each slot
                                                  |
         ShardedCache --+-- Cache "name/a" --- near tier --- backend A
                        +-- Cache "name/b" --- near tier --- backend B
                        '-- Cache "name/c" --- near tier --- backend C

Over several backends the shards share out memory and traffic between servers: a server that is
away concerns its own keys alone, and they are loaded meanwhile. Over a number of shards in this
process the parts are small, each with bounds and figures of its own.

Guarantees:

* A key is in one shard, the same in every process that names the shards alike.
* A shard that is added takes an even part from each of the others, and no key moves between
  those; one that is taken away leaves its keys to the others evenly.
* What :class:`Cache` guarantees holds for each key.
* :meth:`ShardedCache.sweep` does a bounded amount of work; while the cache is open, it is done in
  the background.

Not guaranteed: one call of a batch loader for keys of several shards (there is one for each
shard, at the same time); that what several shards are told is told at one instant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, final, overload

from anyio import TASK_STATUS_IGNORED, create_task_group, sleep_forever

from aiopatterns.cache.aside import Cache
from aiopatterns.cache.terms import MISSING, Bounds, CacheStatistics, LoadTimeouts, Ttl
from aiopatterns.core.clock import sleep
from aiopatterns.core.codec import JSON
from aiopatterns.core.hashing import Rendezvous, stable_hash
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.notes import note
from aiopatterns.core.telemetry import Subscription
from aiopatterns.core.validate import choice, count, text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from anyio.abc import TaskGroup, TaskStatus

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.cache.terms import Eviction, Missing
    from aiopatterns.core.codec import Codec
    from aiopatterns.core.types import Coro

__all__ = ["ShardedCache", "ShardedStatistics"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

# A prime number of slots: hashes of numbers in any usual step spread over them.
_SLOTS: Final = 16_381
# Every so many seconds the background looks at that many entries of one shard: 0.1 ms.
_PAUSE: Final = 0.25
_GLANCE: Final = 1_000
_PATIENT: Final = LoadTimeouts()


@final
@dataclass(frozen=True, slots=True)
class ShardedStatistics(CacheStatistics):
    """What a sharded cache has done since it was made: the sums, and each shard.

    Args:
        shards: The figures of each shard, by name.
    """

    shards: Mapping[str, CacheStatistics]


@final
class ShardedCache(Owner, Generic[K, V]):
    """A cache of several shards; it has the verbs of :class:`Cache`.

    Args:
        shards: A number of shards in this process; or backends (or their URLs), one for each
            shard. A mapping names them, and the names say which keys are whose; in a sequence
            they are called ``"0"``, ``"1"`` and so on, so add new ones at its end. With backends
            the cache is used inside ``async with``, and keys are texts, bytes or whole numbers.
        name: Name of the cache; shards are called ``name/shard``.
        max_size: Entries in memory at most, over all shards.
        ttl: How long values live: seconds, None for ever, or a :class:`Ttl` that says more.
        eviction: Who leaves a full shard: ``"s3fifo"`` or ``"lru"``.
        load: How long loads may take.
        codec: How values become bytes in a backend.
        type: What values are made into when they come back from there.

    Raises:
        ValueError: A value is out of its range, or there is no shard.

    Complexity: O(1) for each key: 0.2 us more than :class:`Cache`, 1 us over backends; O(shards)
    once for each of 16,381 slots.

    Example::

        sessions: ShardedCache[str, Session] = ShardedCache(
            {"a": "redis://cache-a", "b": "redis://cache-b"}, name="sessions", ttl=Ttl(900)
        )
        async with sessions:
            session = await sessions.get_or_load(token, load_session)
    """

    __slots__ = ("_hash", "_nodes", "_slots", "_turns", "shards")

    def __init__(
        self,
        shards: int | Sequence[Backend | str] | Mapping[str, Backend | str],
        *,
        name: str = "sharded",
        max_size: int = 10_000,
        ttl: Ttl | float | None,
        eviction: Eviction = "s3fifo",
        load: LoadTimeouts = _PATIENT,
        codec: Codec = JSON,
        type: Any = Any,
    ) -> None:
        super().__init__(name)
        count("max_size", max_size)
        choice("eviction", eviction, ("s3fifo", "lru"))
        homes = _named(shards)
        bounds = Bounds(-(-max_size // len(homes)), eviction=eviction)
        make = partial(
            Cache[K, V], ttl=Ttl.of(ttl), max_size=bounds, load=load, codec=codec, type=type
        )
        #: The shards, by name.
        self.shards: dict[str, Cache[K, V]] = {
            node: make(f"{name}/{node}", backend=home) for node, home in homes.items()
        }
        self._nodes = Rendezvous(list(homes))
        local = all(home is None for home in homes.values())
        self._hash = hash if local else cast("Callable[[object], int]", stable_hash)
        self._slots: list[Cache[K, V] | None] = [None] * _SLOTS
        self._turns = cycle(self.shards.values())

    def __repr__(self) -> str:
        return f"ShardedCache({self.name!r}, {len(self.shards)} shards)"

    def shard(self, key: K) -> Cache[K, V]:
        """Return the shard that ``key`` is at home in."""
        slot = self._hash(key) % _SLOTS
        return self._slots[slot] or self._assign(slot)

    def get_or_load(
        self,
        key: K,
        loader: Callable[[K], Awaitable[V]],
        *,
        tags: Sequence[str] = (),
        fresh: bool = False,
    ) -> Coro[V]:
        """Return the value of ``key``; load it if it is not there. See :meth:`Cache.get_or_load`."""
        return self.shard(key).get_or_load(key, loader, tags=tags, fresh=fresh)

    async def get_or_load_many(
        self,
        keys: Iterable[K],
        loader: Callable[[list[K]], Awaitable[Mapping[K, V | Exception]]],
        *,
        tags: Sequence[str] = (),
    ) -> dict[K, V | Exception]:
        """Return the values of ``keys``; load those that are not there.

        Args:
            keys: What is asked for; doubles are asked for once.
            loader: As for :meth:`Cache.get_or_load_many`; it is called once for each shard that
                misses keys, for several of them at the same time.
            tags: Names for :meth:`invalidate_tags` of what this call loads.

        Returns:
            Values in the order of ``keys``, without those that are absent; an exception where one
            was given for a key, or raised by a load of somebody else.

        Raises:
            Exception: What the loader raised, the first; what other shards have loaded is stored.

        Cancellation: as :meth:`Cache.get_or_load_many`.

        Complexity: O(keys).
        """
        wanted = list(dict.fromkeys(keys))
        found: dict[K, V | Exception] = {}

        async def ask(cache: Cache[K, V], part: list[K]) -> None:
            found.update(await cache.get_or_load_many(part, loader, tags=tags))

        await _together([partial(ask, *each) for each in self._grouped(wanted)])
        return {key: found[key] for key in wanted if key in found}

    @overload
    def get(self, key: K) -> Coro[V | Missing]: ...
    @overload
    def get(self, key: K, default: D) -> Coro[V | D]: ...
    def get(self, key: K, default: Any = MISSING) -> Any:
        """Return the value of ``key`` if it is there, else ``default``; nothing is loaded."""
        return self.shard(key).get(key, default)

    @overload
    def get_nowait(self, key: K) -> V | Missing: ...
    @overload
    def get_nowait(self, key: K, default: D) -> V | D: ...
    def get_nowait(self, key: K, default: Any = MISSING) -> Any:
        """Return the value of ``key`` if it is in the memory of this process, else ``default``."""
        return self.shard(key).get_nowait(key, default)

    def set(
        self,
        key: K,
        value: V,
        *,
        ttl: Ttl | float | Missing | None = MISSING,
        tags: Sequence[str] = (),
    ) -> Coro[None]:
        """Store a value. See :meth:`Cache.set`."""
        return self.shard(key).set(key, value, ttl=ttl, tags=tags)

    async def invalidate(self, *keys: K, strict: bool = False) -> None:
        """Forget ``keys``; who asks from now on gets what was loaded after this.

        Args:
            keys: What has changed.
            strict: Whether to raise when a backend could not be told.

        Raises:
            BackendError: Only if ``strict``; the shards that could be told have forgotten.

        Cancellation: this process has forgotten them already; the others may not have heard.
        """
        await _together(
            [partial(cache.invalidate, *part, strict=strict) for cache, part in self._grouped(keys)]
        )

    async def invalidate_tags(self, *tags: str) -> None:
        """Forget everything that was stored under one of ``tags``, in all shards at a time."""
        await _together([partial(each.invalidate_tags, *tags) for each in self._caches()])

    async def invalidate_matching(self, pattern: str) -> None:
        """Forget the keys that fit a glob. Slow on purpose: it looks at every key."""
        await _together([partial(each.invalidate_matching, pattern) for each in self._caches()])

    async def clear(self) -> None:
        """Forget everything, in all shards at a time."""
        await _together([each.clear for each in self._caches()])

    def on_invalidate(self, callback: Callable[..., object]) -> Subscription:
        """Call ``callback(*keys)`` after keys were invalidated: once for each shard concerned.

        Without keys it means that more has gone than can be named.

        Returns:
            The subscription; close it to stop.
        """
        open_ones = [each.on_invalidate(callback) for each in self._caches()]

        def close() -> None:
            for each in open_ones:
                each.close()

        return Subscription(close)

    def sweep(self, limit: int = _GLANCE) -> int:
        """Look at the next ``limit`` entries of the next shard; those that are over go.

        A cache that is in use does a little of this with every ``set`` and load, and while it is
        open one does it in the background. This is for a cache that is not opened and stands
        still, and for tests.

        Returns:
            How many were over.

        Complexity: O(limit), 0.1 us for each.
        """
        return next(self._turns).stock.sweep(count("limit", limit))

    def statistics(self) -> ShardedStatistics:
        """Return what this cache has done since it was made, and each of its shards."""
        shards = {node: cache.statistics() for node, cache in self.shards.items()}
        names = [each.name for each in fields(CacheStatistics)]
        sums = {each: sum(getattr(one, each) for one in shards.values()) for each in names}
        return ShardedStatistics(**sums, shards=shards)

    async def _start(self, tasks: TaskGroup) -> None:
        for cache in self._caches():
            await tasks.start(self._keep, cache)
        tasks.start_soon(self._maintain)

    async def _keep(
        self, cache: Cache[K, V], *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED
    ) -> None:
        """Hold a shard open; in a task of its own, for each has a group of tasks."""
        async with cache:
            task_status.started()
            await sleep_forever()

    async def _maintain(self) -> None:
        """Sweep one shard after the other."""
        while True:
            await sleep(_PAUSE)
            self.sweep()

    def _caches(self) -> Iterable[Cache[K, V]]:
        return self.shards.values()

    def _assign(self, slot: int) -> Cache[K, V]:
        """Find out whose a slot is."""
        cache = self._slots[slot] = self.shards[self._nodes.owner(slot)]
        return cache

    def _grouped(self, keys: Iterable[K]) -> list[tuple[Cache[K, V], list[K]]]:
        parts: dict[Cache[K, V], list[K]] = {}
        for key in keys:
            parts.setdefault(self.shard(key), []).append(key)
        return list(parts.items())


def _named(
    shards: int | Sequence[Backend | str] | Mapping[str, Backend | str],
) -> dict[str, Backend | str | None]:
    """Return the shards by name; None is one without a backend."""
    if isinstance(shards, int):
        return {str(each): None for each in range(count("shards", shards))}
    if isinstance(shards, (str, bytes)) or not isinstance(shards, (Mapping, Sequence)):
        raise TypeError(f"shards must be a number or several backends, not {shards!r}")
    given = (
        shards if isinstance(shards, Mapping) else {str(at): home for at, home in enumerate(shards)}
    )
    if not given:
        raise ValueError(f"shards must be at least one backend, not {shards!r}")
    return {text("shard", node): home for node, home in given.items()}


async def _together(calls: list[Callable[[], Awaitable[None]]]) -> None:
    """Make several calls at a time and wait for all of them; the first error leaves bare.

    Each is begun even if this is cancelled at once, for a group lets every task have its first
    step: what a call does before it waits is done in any case.
    """
    if len(calls) == 1:
        await calls[0]()
        return
    errors: list[Exception] = []

    async def make(call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
        except Exception as error:
            errors.append(error)

    async with create_task_group() as group:
        for call in calls:
            group.start_soon(make, call)
    if errors:
        for other in errors[1:]:
            note(errors[0], f"another shard failed as well: {other!r}")
        raise errors[0]
