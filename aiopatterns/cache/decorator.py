"""``@cached``: a function whose calls go through a cache.

The key is a template over the arguments, compiled once from the signature. A hit is one coroutine:
the key, a look into the memory, the value. For the most common call, one text or one whole number,
there is a short cut from the argument to the entry, which saves the making of the key.
"""

from __future__ import annotations

from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeAlias, TypeVar, cast

from aiopatterns.cache.aside import Cache
from aiopatterns.cache.policy import MOST_USES
from aiopatterns.cache.tags import checked
from aiopatterns.core.clock import monotonic
from aiopatterns.core.template import Parameters, Template
from aiopatterns.core.validate import async_function, function, instance

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from aiopatterns.cache.memory import Entry
    from aiopatterns.cache.stock import Stock

__all__ = ["Cached", "cached"]

P = ParamSpec("P")
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)

Make: TypeAlias = "Callable[[Any, Any], Any]"
"""Makes the key of a call, given its positional and its keyword arguments."""

# Short cuts of one function; when there are more, they are made anew.
_MOST_SHORT: Final = 16_384


class Cached(Protocol[P, V_co]):
    """What :func:`cached` makes of a function: the function, and the same for its key."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, V_co]:
        """Return the value of this call, from the cache or from the function."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Return the key of this call."""
        ...

    async def fresh(self, *args: P.args, **kwargs: P.kwargs) -> V_co:
        """Call the function in any case, and store what it returns."""
        ...

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the value of this call."""
        ...


class Decorator(Protocol):
    """What :func:`cached` returns: it keeps the types of the function."""

    def __call__(self, fn: Callable[P, Awaitable[V]], /) -> Cached[P, V]:
        """Put an async function behind the cache."""
        ...


def cached(
    cache: Cache[Any, Any], *, key: str | Callable[..., Any], tags: Sequence[str] = ()
) -> Decorator:
    """Keep what an async function returns in ``cache``.

    Args:
        cache: Where values are kept; several functions may share one if their keys differ.
        key: A template over the function's parameters, such as ``"user:{user_id}"``, or a plain
            function of the arguments.
        tags: Templates of tags, such as ``"org:{org_id}"``.

    Returns:
        The decorator. What it makes has ``key``, ``fresh`` and ``invalidate`` of the same
        arguments.

    Raises:
        ValueError: A template does not fit the function; raised when it is decorated.

    Example::

        @cached(users, key="user:{user_id}")
        async def load_user(user_id: int) -> User: ...


        await load_user(7)
        await load_user.invalidate(7)
    """
    instance("cache", cache, Cache, "a Cache")
    if not isinstance(key, str):
        function("key", key)

    def decorate(fn: Callable[P, Awaitable[V]]) -> Cached[P, V]:
        return _decorated(cache, async_function("the function", fn), key, tags)

    return decorate


def _decorated(
    cache: Cache[Any, Any],
    fn: Callable[P, Awaitable[V]],
    key: str | Callable[..., Any],
    tags: Sequence[str],
) -> Cached[P, V]:
    """Return the function behind the cache."""
    parameters = Parameters(signature(fn))
    make = Template("key", key, parameters).render if isinstance(key, str) else _called(key)
    names = [Template("tag", tag, parameters).render for tag in checked(tags)]
    quick = cache.stock.short_cut() if isinstance(key, str) else None

    load: Callable[..., Awaitable[V]] = fn

    def ask(args: Any, kwargs: Any, *, fresh: bool = False) -> Coroutine[Any, Any, V]:
        found = make(args, kwargs)
        marks = [name(args, kwargs) for name in names]
        return cache.get_or_load(found, lambda _: load(*args, **kwargs), tags=marks, fresh=fresh)

    async def anew(*args: P.args, **kwargs: P.kwargs) -> V:
        return await ask(args, kwargs, fresh=True)

    async def invalidate(*args: P.args, **kwargs: P.kwargs) -> None:
        await cache.invalidate(make(args, kwargs))

    def key_of(*args: P.args, **kwargs: P.kwargs) -> Any:
        return make(args, kwargs)

    through = (
        _through(cache.stock, make, ask) if quick is None else _short(cache.stock, make, ask, quick)
    )
    call = wraps(fn)(through)
    vars(call).update(key=key_of, fresh=anew, invalidate=invalidate)
    return cast("Cached[P, V]", call)


def _through(
    stock: Stock[Any, V], make: Make, ask: Callable[[Any, Any], Awaitable[V]]
) -> Callable[..., Coroutine[Any, Any, V]]:
    """Return the function that looks under its key."""
    calm, given = stock.calm, stock.given

    async def call(*args: Any, **kwargs: Any) -> V:
        entry = calm(make(args, kwargs))
        return await ask(args, kwargs) if entry is None else given(entry.value)

    return call


def _short(
    stock: Stock[Any, V],
    make: Make,
    ask: Callable[[Any, Any], Awaitable[V]],
    quick: dict[object, Entry[Any, V]],
) -> Callable[..., Coroutine[Any, Any, V]]:
    """Return the function that takes the short cut where it can."""
    calm, copy, given = stock.calm, stock.copy, stock.given

    async def call(*args: Any, **kwargs: Any) -> V:
        first = args[0] if len(args) == 1 and not kwargs else None
        kind = first.__class__
        short = kind is int or kind is str  # not bool: True is equal to 1, but another text
        if short and (entry := quick.get(first)) is not None and monotonic() < entry.calm_until:
            stock.hits += 1
            entry.uses = MOST_USES  # to count costs as much as all the rest; often is often
            return entry.value if copy is None else copy(entry.value)
        entry = calm(make(args, kwargs))
        if entry is None:
            return await ask(args, kwargs)
        if short and not entry.tags:
            if len(quick) >= _MOST_SHORT:
                quick.clear()
            quick[first] = entry
        return given(entry.value)

    return call


def _called(key: Callable[..., Any]) -> Make:
    return lambda args, kwargs: key(*args, **kwargs)
