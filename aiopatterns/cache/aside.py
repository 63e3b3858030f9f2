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

import logging
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final, overload

from anyio import sleep_forever

from aiopatterns.cache.batch import Batch
from aiopatterns.cache.loads import Loads
from aiopatterns.cache.stock import NO_TAGS, Stock
from aiopatterns.cache.tags import checked
from aiopatterns.cache.terms import MISSING, Bounds, LoadTimeouts, Missing, Ttl
from aiopatterns.core.clock import monotonic
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.telemetry import Subscription
from aiopatterns.core.validate import (
    async_function,
    instance,
    optional_function,
    plain_function,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from anyio.abc import TaskGroup

    from aiopatterns.cache.memory import Entry
    from aiopatterns.cache.terms import CacheStatistics

__all__ = ["Cache"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


@final
class Cache(Owner, Generic[K, V]):
    """A cache of values by key.

    Args:
        name: Name of the cache; processes that share a backend share what has one name.
        ttl: How long values live: seconds, None for ever, or a :class:`Ttl` that says more.
        max_size: Entries in memory at most, or :class:`Bounds` that say more.
        load: How long loads may take.
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

    __slots__ = ("_callbacks", "_loads", "stock")

    def __init__(
        self,
        name: str,
        *,
        ttl: Ttl | float | None,
        max_size: Bounds | int = 10_000,
        load: LoadTimeouts = LoadTimeouts(),  # noqa: B008 - frozen
        copy: Callable[[V], V] | None = None,
    ) -> None:
        super().__init__(name)
        instance("load", load, LoadTimeouts, "LoadTimeouts")
        optional_function("copy", copy)
        self.stock: Stock[K, V] = Stock(Bounds.of(max_size), Ttl.of(ttl), copy)
        self._loads: Loads[K, V] = Loads(name, self.stock, load)
        self._callbacks: tuple[Callable[..., object], ...] = ()

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
        loaded = await self._loads.obtain(key, loader, tags=checked(tags), forced=fresh)
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
        return self.get_nowait(key, default)

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
        self._loads.detach((key,))
        stamp = self.stock.tags.stamp(names) if names else NO_TAGS
        self.stock.put(key, self.stock.given(value), terms.life(value, monotonic()), stamp=stamp)

    async def invalidate(self, *keys: K) -> None:
        """Forget ``keys``; who asks from now on gets what was loaded after this.

        Commit the change to the source first, then invalidate.
        """
        self._forget(keys)
        self._tell(*keys)

    async def invalidate_tags(self, *tags: str) -> None:
        """Forget everything that was stored under one of ``tags``.

        Complexity: O(tags + keys that are being loaded), however many entries there are.
        """
        names = checked(tags)
        self.stock.drop_tags(names)
        self._loads.detach_tags(names)
        self._tell()

    async def invalidate_matching(self, pattern: str) -> None:
        """Forget the keys that fit a glob, as text: ``*`` is any run, ``?`` one character.

        Slow on purpose: it looks at every key of this cache. Tags are the fast way.
        """
        text("pattern", pattern)
        self._forget([key for key in self.stock.keys() if fnmatchcase(str(key), pattern)])
        self._loads.detach_matching(lambda key: fnmatchcase(str(key), pattern))
        self._tell()

    async def clear(self) -> None:
        """Forget everything. O(1) and the keys that are being loaded."""
        self._forget_all()
        self._tell()

    def on_invalidate(self, callback: Callable[..., object]) -> Subscription:
        """Call ``callback(*keys)`` after keys were invalidated, here or in another process.

        Without keys it means that more has gone than can be named: tags, a pattern, everything.

        Args:
            callback: A plain function; an error in it is logged and dropped.

        Returns:
            The subscription; close it to stop.
        """
        plain_function("callback", callback)
        self._callbacks = (*self._callbacks, callback)

        def cancel() -> None:
            at = next(at for at, each in enumerate(self._callbacks) if each is callback)
            self._callbacks = (*self._callbacks[:at], *self._callbacks[at + 1 :])

        return Subscription(cancel)

    def statistics(self) -> CacheStatistics:
        """Return what this cache has done since it was made."""
        return self.stock.statistics()

    async def _start(self, tasks: TaskGroup) -> None:
        tasks.start_soon(self._keep)

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
        entry = self._loads.at_hand(key)
        if entry is None:
            return None
        self.stock.hits += 1
        if monotonic() >= entry.fresh_until:
            self.stock.stale += 1
        if loader is not None and self.stock.due(entry) and self._loads.find(key) is None:
            self._loads.refresh((key,), self._loads.one(key, loader), tags=checked(tags))
        return entry

    def _forget(self, keys: Sequence[K]) -> None:
        self.stock.drop(keys)
        self._loads.detach(keys)

    def _forget_all(self) -> None:
        self.stock.clear()
        self._loads.detach_all()

    def _tell(self, *keys: K) -> None:
        """Call the callbacks; their errors are theirs."""
        for callback in self._callbacks:
            try:
                callback(*keys)
            except Exception:
                logging.getLogger("aiopatterns").exception("a callback of %r failed", self)
