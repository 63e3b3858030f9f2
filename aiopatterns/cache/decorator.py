"""``@cached``: a function whose calls go through a cache.

The key is a template over the arguments, compiled once from the signature. A hit is one coroutine:
the key, a look into the memory, the value. For the most common function, one of one text or one
whole number, there is a short cut from the argument to the entry, which saves the making of the
key. There every step shows: of 0.2 us half is the coroutine itself, the rest are the look, the
clock and the counters.

A function in a class becomes a method: what is bound to an object has ``key``, ``fresh`` and
``invalidate`` of the arguments that are left, as the call itself::

    class Shop:                                      shop.price("x")
        @cached(prices, key="{self.name}/{item}")    shop.price.invalidate("x")
        async def price(self, item): ...             Shop.price.invalidate(shop, "x")
"""

from __future__ import annotations

from functools import partial, update_wrapper
from inspect import Parameter, signature
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
    overload,
)

from aiopatterns.cache.aside import Cache
from aiopatterns.cache.policy import MOST_USES
from aiopatterns.cache.tags import checked
from aiopatterns.core.clock import monotonic
from aiopatterns.core.template import Parameters, Template
from aiopatterns.core.validate import async_function, function, instance

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from inspect import Signature
    from types import FunctionType
    from typing import Self

    from aiopatterns.cache.memory import Entry
    from aiopatterns.cache.stock import Stock

__all__ = ["Cached", "cached"]

P = ParamSpec("P")
Q = ParamSpec("Q")
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)

Make: TypeAlias = "Callable[[Any, Any], Any]"
"""Makes the key of a call, given its positional and its keyword arguments."""

Ask: TypeAlias = "Callable[[Any, Any, Any], Awaitable[V]]"
"""Gets the value of a call, given its key and the same."""

# Short cuts of one function; when there are more, they are made anew.
_MOST_SHORT: Final = 16_384


class Cached(Protocol[P, V_co]):
    """What :func:`cached` makes of a function: the function, and the same for its key.

    In a class it is a method; what it is bound to is the first argument of all of these.
    """

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

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...
    @overload
    def __get__(
        self: Cached[Concatenate[Any, Q], V_co], instance: object, owner: type | None = None, /
    ) -> Cached[Q, V_co]: ...


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
        TypeError: By ``key``, ``fresh`` and ``invalidate``: the function cannot be called so.

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
        if isinstance(fn, (staticmethod, classmethod)):
            msg = "@cached goes below @staticmethod and @classmethod, next to the function"
            raise TypeError(msg)
        return _decorated(cache, async_function("the function", fn), key, tags)

    return decorate


def _decorated(
    cache: Cache[Any, Any],
    fn: Callable[P, Awaitable[V]],
    key: str | Callable[..., Any],
    tags: Sequence[str],
) -> Cached[P, V]:
    """Return the function behind the cache."""
    called = signature(fn)
    parameters = Parameters(called)
    make = Template("key", key, parameters).render if isinstance(key, str) else _called(key)
    names = [Template("tag", tag, parameters).render for tag in checked(tags)]
    only = _only(called) if isinstance(key, str) and not names else None
    quick = None if only is None else cache.stock.short_cut()

    load: Callable[..., Awaitable[V]] = fn

    def ask(made: Any, args: Any, kwargs: Any, *, fresh: bool = False) -> Coroutine[Any, Any, V]:
        marks = [name(args, kwargs) for name in names]
        return cache.get_or_load(made, lambda _: load(*args, **kwargs), tags=marks, fresh=fresh)

    def key_of(*args: P.args, **kwargs: P.kwargs) -> Any:
        called.bind(*args, **kwargs)  # a wrong call would name a key that nobody has
        return make(args, kwargs)

    async def anew(*args: P.args, **kwargs: P.kwargs) -> V:
        return await ask(key_of(*args, **kwargs), args, kwargs, fresh=True)

    async def invalidate(*args: P.args, **kwargs: P.kwargs) -> None:
        await cache.invalidate(key_of(*args, **kwargs))

    if only is None or quick is None:
        through = _through(cache.stock, make, ask)
    else:
        through = _named(_short(cache.stock, make, ask, quick), only)
    call = update_wrapper(through, fn)
    vars(call).update(key=key_of, fresh=anew, invalidate=invalidate)
    return cast("Cached[P, V]", _Method.of(call) if _in_class(fn) else call)


class _Method(partial["Coroutine[Any, Any, Any]"]):
    """A cached function in a class, or what it is when it is bound: the object is given already.

    A partial, so that calling it costs little and who asks is told that it is an async function.
    """

    @classmethod
    def of(cls, call: Callable[..., Any]) -> _Method:
        """Return the method that ``call`` is in its class."""
        made = cls(call)
        update_wrapper(made, call)
        return made

    def __get__(self, instance: object, owner: type | None = None) -> _Method:
        if instance is None or self.args:
            return self
        bound = _Method(self.func, instance)
        bound.__doc__, bound.__module__ = self.func.__doc__, self.func.__module__
        return bound

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Method) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __reduce__(self) -> Any:
        """Be pickled by name, as functions and methods are."""
        return (getattr, (*self.args, self.__name__)) if self.args else self.__qualname__

    def __getattr__(self, name: str) -> Any:
        # With more of these it would be taken for a function of another signature.
        if name.startswith("__") and name not in {"__name__", "__qualname__"}:
            raise AttributeError(name)
        return getattr(self.func, name)

    @property
    def __signature__(self) -> Signature:
        """What it is called with, without what is bound."""
        called = signature(self.func)
        return called.replace(parameters=[*called.parameters.values()][len(self.args) :])

    def key(self, *args: Any, **kwargs: Any) -> Any:
        """Return the key of this call."""
        return self._function.key(*self.args, *args, **kwargs)

    async def fresh(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function in any case, and store what it returns."""
        return await self._function.fresh(*self.args, *args, **kwargs)

    async def invalidate(self, *args: Any, **kwargs: Any) -> None:
        """Forget the value of this call."""
        await self._function.invalidate(*self.args, *args, **kwargs)

    @property
    def _identity(self) -> tuple[object, ...]:
        """The function and the very object that it is bound to."""
        return (self.func, *map(id, self.args))

    @property
    def _function(self) -> Cached[..., Any]:
        return cast("Cached[..., Any]", self.func)


def _in_class(fn: Callable[..., Any]) -> bool:
    """Whether a function is written in the body of a class."""
    around = getattr(fn, "__qualname__", "").rpartition(".")[0]
    return bool(around) and not around.endswith("<locals>")


def _only(called: Signature) -> Parameter | None:
    """Return the only parameter of a function, or None if it has another number of them."""
    if len(called.parameters) != 1:
        return None
    (only,) = called.parameters.values()
    positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return only if only.kind in positional else None


def _named(
    call: Callable[[Any], Coroutine[Any, Any, V]], only: Parameter
) -> Callable[..., Coroutine[Any, Any, V]]:
    """Give a function of one parameter the name and the default of another's.

    So it can be called by keyword. To take ``*args, **kwargs`` for that would cost more than to
    find the entry.
    """
    made = cast("FunctionType", call)
    code = made.__code__
    made.__code__ = code.replace(co_varnames=(only.name, *code.co_varnames[1:]))
    if only.default is not Parameter.empty:
        made.__defaults__ = (only.default,)
    return call


def _through(
    stock: Stock[Any, V], make: Make, ask: Ask[V]
) -> Callable[..., Coroutine[Any, Any, V]]:
    """Return the function that looks under its key."""
    calm, given = stock.calm, stock.given

    async def call(*args: Any, **kwargs: Any) -> V:
        made = make(args, kwargs)
        entry = calm(made)
        return await ask(made, args, kwargs) if entry is None else given(entry.value)

    return call


def _short(
    stock: Stock[Any, V],
    make: Make,
    ask: Ask[V],
    quick: dict[object, Entry[Any, V]],
) -> Callable[[Any], Coroutine[Any, Any, V]]:
    """Return the function of one parameter that takes the short cut where it can."""
    calm = stock.calm

    async def slowly(only: object) -> V:
        made = make((only,), {})
        entry = calm(made)
        if entry is None:
            return await ask(made, (only,), {})
        if (type(only) is int or type(only) is str) and not entry.tags:
            if len(quick) >= _MOST_SHORT:
                quick.clear()
            quick[only] = entry
        return entry.value

    async def call(only: object) -> V:
        # Not bool: True is equal to 1, but another text.
        if type(only) is int or type(only) is str:
            try:
                entry = quick[only]
            except KeyError:
                pass
            else:
                if monotonic() < entry.calm_until:
                    stock.hits += 1
                    entry.uses = MOST_USES  # to count costs as much as all the rest; often is often
                    return entry.value
        return await slowly(only)

    return call


def _called(key: Callable[..., Any]) -> Make:
    return lambda args, kwargs: key(*args, **kwargs)
