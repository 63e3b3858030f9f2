"""``@cached``: a function whose calls go through a cache.

The key is a template over the arguments, compiled once from the signature. A hit is one coroutine:
the key, a look into the memory, the value.
"""

from __future__ import annotations

from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from aiopatterns.cache.aside import Cache
from aiopatterns.cache.tags import checked
from aiopatterns.core.template import Parameters, Template
from aiopatterns.core.validate import async_function, function, instance

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

__all__ = ["Cached", "cached"]

P = ParamSpec("P")
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


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


def cached(
    cache: Cache[Any, V], *, key: str | Callable[P, Any], tags: Sequence[str] = ()
) -> Callable[[Callable[P, Awaitable[V]]], Cached[P, V]]:
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
    cache: Cache[Any, V],
    fn: Callable[P, Awaitable[V]],
    key: str | Callable[P, Any],
    tags: Sequence[str],
) -> Cached[P, V]:
    """Return the function behind the cache."""
    parameters = Parameters(signature(fn))
    make = Template("key", key, parameters).render if isinstance(key, str) else _called(key)
    names = [Template("tag", tag, parameters).render for tag in checked(tags)]
    calm, copy = cache.stock.calm, cache.stock.copy

    def ask(args: Any, kwargs: Any, *, fresh: bool) -> Coroutine[Any, Any, V]:
        return cache.get_or_load(
            make(args, kwargs),
            lambda _: fn(*args, **kwargs),
            tags=[name(args, kwargs) for name in names],
            fresh=fresh,
        )

    @wraps(fn)
    async def call(*args: P.args, **kwargs: P.kwargs) -> V:
        entry = calm(make(args, kwargs))
        if entry is None:
            return await ask(args, kwargs, fresh=False)
        value: V = entry.value
        return value if copy is None else copy(value)

    async def anew(*args: P.args, **kwargs: P.kwargs) -> V:
        return await ask(args, kwargs, fresh=True)

    async def invalidate(*args: P.args, **kwargs: P.kwargs) -> None:
        await cache.invalidate(make(args, kwargs))

    def key_of(*args: P.args, **kwargs: P.kwargs) -> Any:
        return make(args, kwargs)

    vars(call).update(key=key_of, fresh=anew, invalidate=invalidate)
    return cast("Cached[P, V]", call)


def _called(key: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    return lambda args, kwargs: key(*args, **kwargs)
