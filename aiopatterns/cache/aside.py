"""Cache: values kept near the code that needs them, loaded once for all who ask.

Cache-aside, with the loader given at the question::

    get_or_load(key, loader)
        |  in memory and fresh ----------------------------> answer, 0.2 us, no task, no lock
        |  in memory and stale -------> answer at once; a load begins in the background
        '- not there --> join the load of this key, or begin it ---> answer, stored on the way

Guarantees:

* One load for each key at a time, whoever asks, alone or in a batch.
* A cancelled caller never cancels another, and nothing runs on behalf of nobody.
* What was being loaded when its key, its tag or everything was invalidated is never stored; who
  asks after the invalidation gets what was loaded after it.
* None is a value. Errors are never stored.
* Bounded always, by count and if wanted by weight.
* One object serves one event loop after another; it may be made at module level. Without a
  backend it works unopened; ``async with`` then only bounds the life of background loads.

Not guaranteed: a copy for each caller (give ``copy=`` for that); anything for use in several
threads at once; that a loader which asks for its own key ever ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final, overload

from anyio import sleep_forever

from aiopatterns.backends.opening import resolve
from aiopatterns.cache.batch import Batch
from aiopatterns.cache.forgetting import Forgetting
from aiopatterns.cache.load import ANY, NEW
from aiopatterns.cache.loads import Loads
from aiopatterns.cache.rules import shown
from aiopatterns.cache.stock import NO_TAGS, Stock
from aiopatterns.cache.tags import checked
from aiopatterns.cache.terms import MISSING, Bounds, LoadTimeouts, Missing, Ttl
from aiopatterns.cache.tiers import Far
from aiopatterns.core.clock import monotonic
from aiopatterns.core.codec import JSON, checked_codec
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.validate import (
    async_function,
    instance,
    optional_function,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from anyio.abc import TaskGroup

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.cache.memory import Entry
    from aiopatterns.cache.terms import CacheStatistics
    from aiopatterns.core.codec import Codec
    from aiopatterns.core.telemetry import Subscription

__all__ = ["Cache"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

_NO_TIMEOUTS: Final = LoadTimeouts()


@final
class Cache(Owner, Generic[K, V]):
    """A cache of values by key.

    Args:
        name: Name of the cache; processes that share a backend share what has one name.
        ttl: How long values live: seconds, None for ever, or a :class:`Ttl` that says more.
        max_size: Entries in memory at most, or :class:`Bounds` that say more.
        load: How long loads may take.
        backend: A backend or its URL for a second tier that processes share. The cache is then
            used inside ``async with``, which opens the backend too. Keys are texts, bytes or
            whole numbers.
        codec: How values become bytes there.
        type: What values are made into when they come back from there; by default as the codec
            gives them.
        copy: A plain function that copies a value: the cache then keeps one of its own, and every
            caller gets one. By default all share one object, which must not be changed.

    Raises:
        ValueError: A value is out of its range.

    Example::

        users: Cache[int, User] = Cache("users", ttl=Ttl(60, stale=300, jitter=0.1))

        user = await users.get_or_load(7, load_user)
        several = await users.get_or_load_many([7, 8, 9], load_users)
        await users.invalidate(7)
    """

    __slots__ = ("_far", "_forgetting", "_loads", "stock")

    def __init__(
        self,
        name: str,
        *,
        ttl: Ttl | float | None,
        max_size: Bounds | int = 10_000,
        load: LoadTimeouts = _NO_TIMEOUTS,
        backend: Backend | str | None = None,
        codec: Codec = JSON,
        type: Any = Any,
        copy: Callable[[V], V] | None = None,
    ) -> None:
        super().__init__(name)
        instance("load", load, LoadTimeouts, "LoadTimeouts")
        optional_function("copy", copy)
        checked_codec(codec)
        self.stock: Stock[K, V] = Stock(Bounds.of(max_size), Ttl.of(ttl), copy)
        self._forgetting: Forgetting[K, V] = Forgetting(name, self.stock)
        self._far: Far[Any, V] | None = None
        if backend is not None:
            source = resolve(backend)
            self._far = Far(name, source, self._forgetting, codec=codec, type=type)
            self.stock.cap = self._far.near
        self._loads: Loads[K, V] = Loads(name, self.stock, load, self._far)
        self._forgetting.loads = self._loads

    def __repr__(self) -> str:
        return f"Cache({self.name!r}, {self.stock.statistics().size} entries)"

    async def get_or_load(
        self,
        key: K,
        loader: Callable[[K], Awaitable[V]],
        *,
        tags: Sequence[str] = (),
        fresh: bool = False,
    ) -> V:
        """Return the value of ``key``; load it if it is not there.

        Args:
            key: What is asked for; hashable.
            loader: Async function of the key. It runs in a task that belongs to all who wait, in
                the context variables of the first of them and without their deadlines.
            tags: Names by which :meth:`invalidate_tags` finds the value when this call loads it.
            fresh: Whether to load it anew in any case (or to join a load that is under way).

        Returns:
            The value; in its stale part the old one, while a new one is loaded in the background.

        Raises:
            Exception: What the loader raised, for each caller an own one.
            TimeoutExceededError: The load took longer than its hard time.
            LoadAbortedError: The loader cancelled itself.
            TypeError: The loader returned MISSING, which stands for no value.

        Cancellation: leaves the load to the others; the last one out cancels it and waits for its
            end (or lets it finish, see :class:`LoadTimeouts`).

        Complexity: O(1).
        """
        if not fresh:
            entry = self.stock.calm(key)
            if entry is None:
                entry = self._answer(key, loader, tags)
            if entry is not None:
                return self.stock.given(entry.value)
        async_function("loader", loader)
        self._check()
        floor = NEW if fresh else ANY
        loaded = await self._loads.obtain(key, loader, tags=checked(tags), floor=floor)
        return self.stock.given(loaded)

    async def get_or_load_many(
        self,
        keys: Iterable[K],
        loader: Callable[[list[K]], Awaitable[Mapping[K, V | Exception]]],
        *,
        tags: Sequence[str] = (),
    ) -> dict[K, V | Exception]:
        """Return the values of ``keys``; load those that are not there by one call.

        Args:
            keys: What is asked for; doubles are asked for once.
            loader: Async function of the list of keys that are neither here nor being loaded; it
                returns a mapping. A key that it leaves out is absent, and remembered so for
                ``Ttl.negative``. An exception as a value concerns its key alone.
            tags: Names for :meth:`invalidate_tags` of what this call loads.

        Returns:
            Values in the order of ``keys``, without those that are absent; an exception where one
            was given for a key, or raised by a load of somebody else.

        Raises:
            Exception: What this call's own loader raised.

        Cancellation: leaves all loads to the others who wait for them, as :meth:`get_or_load`.

        Complexity: O(keys), one call of the loader.
        """
        async_function("loader", loader)
        self._check()
        batch = Batch(self._loads, self.stock, loader, tags=checked(tags))
        found = await batch.run(keys)
        given = self.stock.given
        return {k: v if isinstance(v, Exception) else given(v) for k, v in found.items()}

    @overload
    async def get(self, key: K) -> V | Missing: ...
    @overload
    async def get(self, key: K, default: D) -> V | D: ...
    async def get(self, key: K, default: Any = MISSING) -> Any:
        """Return the value of ``key`` if it is there, else ``default``; nothing is loaded.

        Complexity: O(1).
        """
        found = self.get_nowait(key)
        if found is MISSING and self._far is not None:
            self._check()
            found = await self._loads.work.peek(self._far, key)
        return default if found is MISSING else found

    @overload
    def get_nowait(self, key: K) -> V | Missing: ...
    @overload
    def get_nowait(self, key: K, default: D) -> V | D: ...
    def get_nowait(self, key: K, default: Any = MISSING) -> Any:
        """Return the value of ``key`` if it is in the memory of this process, else ``default``.

        A stale value counts. Complexity: O(1).
        """
        entry = self.stock.calm(key)
        if entry is None:
            entry = self._answer(key, None, ())
        if entry is None:
            self.stock.misses += 1
            return default
        return self.stock.given(entry.value)

    async def set(
        self,
        key: K,
        value: V,
        *,
        ttl: Ttl | float | Missing | None = MISSING,
        tags: Sequence[str] = (),
    ) -> None:
        """Store a value; a load of the key that is under way stores nothing.

        Args:
            key: The key.
            value: The value.
            ttl: How long it lives, if not as others do.
            tags: Names for :meth:`invalidate_tags`.
        """
        terms = self.stock.ttl if isinstance(ttl, Missing) else Ttl.of(ttl)
        names = checked(tags)
        kept, life = self.stock.given(value), terms.life(value, monotonic())
        self._check()
        self._loads.detach((key,))
        stamp = self.stock.tags.stamp(names) if names else NO_TAGS
        if not self.stock.put(key, kept, life, stamp=stamp):
            self.stock.drop((key,))  # a get that has read an older one elsewhere stores nothing
        if self._far is None:
            return
        if life is None:
            await self._far.invalidate((key,))
        else:
            await self._far.put({key: kept}, life, tags=names)

    async def invalidate(self, *keys: K, strict: bool = False) -> None:
        """Forget ``keys``; who asks from now on gets what was loaded after this.

        Commit the change to the source first, then invalidate.

        Args:
            keys: What has changed.
            strict: Whether to raise when the backend could not be told; else it is told as soon
                as it answers again.

        Raises:
            BackendError: Only if ``strict``.

        Cancellation: this process has forgotten them; the backend is told in the background.

        Complexity: O(keys), 1 round trip.
        """
        self._check()
        self._forgetting.forget(keys)
        if self._far is not None:
            await self._far.invalidate(keys, strict=strict)

    async def invalidate_tags(self, *tags: str) -> None:
        """Forget everything that was stored under one of ``tags``.

        Complexity: O(tags + keys that are being loaded), however many entries there are; 1 round
        trip.
        """
        names = checked(tags)
        self._check()
        self._forgetting.forget_tags(names)
        if self._far is not None:
            await self._far.invalidate_tags(names)

    async def invalidate_matching(self, pattern: str) -> None:
        """Forget the keys that fit a glob, as text: ``*`` is any run, ``?`` one character.

        Slow on purpose: every process looks at each key that it has in memory, and with a backend
        this call at every key of the server, though it holds nobody up for long. Nothing that fits
        is given out from the moment when the server was told, which comes first. Tags are the fast
        way.

        Cancellation: this process has forgotten them; if the backend was not told of the pattern
            yet, it is told in the background that everything of this cache is invalid.
        """
        pattern = shown(text("pattern", pattern))
        self._check()
        self._forgetting.forget_matching(pattern)
        if self._far is not None:
            await self._far.invalidate_matching(pattern)

    async def clear(self) -> None:
        """Forget everything: a new generation of keys. O(keys that are being loaded)."""
        self._check()
        self._forgetting.forget_all()
        if self._far is not None:
            await self._far.clear()

    def on_invalidate(self, callback: Callable[..., object]) -> Subscription:
        """Call ``callback(*keys)`` after keys were invalidated, here or in another process.

        Without keys it means that more has gone than can be named: tags, a pattern, everything.

        Args:
            callback: A plain function; an error in it is logged and dropped.

        Returns:
            The subscription; close it to stop.
        """
        return self._forgetting.subscribe(callback)

    def statistics(self) -> CacheStatistics:
        """Return what this cache has done since it was made."""
        return self.stock.statistics()

    async def _start(self, tasks: TaskGroup) -> None:
        tasks.start_soon(self._keep)
        if self._far is not None:
            self._forgetting.drop_all()  # nobody has heard of changes until now
            await tasks.start(self._far.run)

    def _settle(self) -> None:
        """What a closed cache with a backend holds, nobody keeps true."""
        self._loads.reopen()
        if self._far is not None:
            self._forgetting.drop_all()

    async def _keep(self) -> None:
        """Answer for loads in the background as long as the cache is open."""
        try:
            await sleep_forever()
        finally:
            await self._loads.dismiss()

    def _answer(
        self, key: K, loader: Callable[[K], Awaitable[V]] | None, tags: Sequence[str]
    ) -> Entry[K, V] | None:
        """Return an entry that needs a second look and may be given out; load it anew if due."""
        entry = self.stock.answer(key)
        if entry is None or loader is None:
            return entry
        if self.stock.due(entry) and self._loads.find(key) is None:
            self._loads.refresh([entry], self._loads.one(key, loader), checked(tags))
        return entry

    def _check(self) -> None:
        """Refuse to go on if there is a backend and this cache is not open.

        Raises:
            ClosedError: It is so.
        """
        if self._far is not None:
            self._open_group()
