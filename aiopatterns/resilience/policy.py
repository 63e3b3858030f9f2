"""The one algebra: a policy takes an async function and gives an async function.

Whatever may happen to a call (retried, bounded in time, refused, slowed down) is a *policy*, and
all policies are used in the same three ways::

    @policy  # decorate, once
    async def fetch(url: str) -> bytes: ...


    body = await policy.call(fetch, url)  # this call only
    Stack(outer, inner)  # several, outermost first

A policy is written once, in :meth:`Policy.wrap` for async functions and, where it matters,
:meth:`Policy.wrap_stream` for async generator functions. Both return a closure, so a stack of
policies is compiled, when it is built, into closures that call each other directly: no list of
policies is walked during a call.

Guarantees:

* A policy object holds no per-call state. It may be made at module level, shared by any number
  of tasks, and used on one event loop after another.
* The decorated function keeps its signature and name. A plain ``def`` is refused when it is
  decorated, because nothing async can be done for it.
* Cancellation is never an outcome: no policy counts it, retries it, or shows it to user code.

Streams. An async generator function stays one. The stream is guarded step by step, never by
something held open across a ``yield``; each policy says in :meth:`Policy.wrap_stream` what it
means for a stream. A decorated stream is for iterating: ``asend`` does not reach the inside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import update_wrapper
from inspect import CO_COROUTINE, isasyncgenfunction, isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from aiopatterns.core.validate import async_function, function

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine

__all__ = ["Policy"]

P = ParamSpec("P")
T = TypeVar("T")


class Policy(ABC):
    """Base of everything that may happen to one call.

    A subclass sets :attr:`kind` and writes :meth:`wrap`; it writes :meth:`wrap_stream` as well if
    it has to do with more of a stream than its opening, and :meth:`calls` and :meth:`bound` if it
    multiplies calls or bounds time, which ``Stack.explain`` adds up.
    """

    __slots__ = ("__weakref__",)

    #: What this policy is to the lints of a stack: ``retry``, ``timeout``, ``ratelimit``,
    #: ``breaker``, ``bulkhead``, ``hedge``, ``fallback``, ``throttle``, ``chaos``; any other word
    #: has no lints.
    kind: str = "policy"

    @abstractmethod
    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return the closure that runs ``fn`` under this policy; no checks, no renaming."""

    def wrap_stream(
        self, fn: Callable[P, AsyncGenerator[T, Any]]
    ) -> Callable[P, AsyncGenerator[T]]:
        """Return the async generator function that runs the stream of ``fn`` under this policy.

        As written here, the policy applies to the opening of the stream, from the call to its
        first item; what follows passes untouched. Policies that have to do with the whole of a
        stream write their own.
        """
        opened = self.wrap(_opening(fn))

        async def streamed(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
            stream, first = await opened(*args, **kwargs)
            try:
                for item in first:
                    yield item
                async for item in stream:
                    yield item
            finally:
                await stream.aclose()

        return streamed

    def calls(self) -> float:
        """Return how often one call may run what is inside, at most."""
        return 1.0

    def bound(self, inner: float) -> float:
        """Return the most seconds a call may take if what is inside takes ``inner`` at most."""
        return inner

    def adopt(self, previous: Policy) -> bool:
        """Go on with the state of ``previous``, in whose place this policy is put.

        As written here, there is no state to go on with. A policy that has some takes it over
        from one of its own kind if both count the same thing.

        Returns:
            Whether it did.
        """
        del previous
        return False

    @overload
    def __call__(
        self, fn: Callable[P, AsyncGenerator[T, Any]], /
    ) -> Callable[P, AsyncGenerator[T]]: ...

    @overload
    def __call__(self, fn: Callable[P, AsyncIterator[T]], /) -> Callable[P, AsyncIterator[T]]: ...

    @overload
    def __call__(self, fn: Callable[P, Awaitable[T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __call__(self, fn: Callable[..., Any], /) -> Callable[..., Any]:
        """Decorate an async function or an async generator function.

        Args:
            fn: The function; also a method, a partial or an object with an async ``__call__``.

        Returns:
            A function with the signature and name of ``fn``.

        Raises:
            TypeError: ``fn`` is a plain function.
        """
        wrapped: Callable[..., Any]
        if _is(isasyncgenfunction, fn):
            wrapped = self.wrap_stream(fn)
        else:
            wrapped = self.wrap(_async(fn, strict=True))
        # A policy that has nothing to do may give the function back as it is.
        return wrapped if wrapped is fn else update_wrapper(wrapped, fn)

    def call(
        self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """Run ``fn(*args, **kwargs)`` once under this policy: ``await policy.call(fn, x)``.

        Args:
            fn: An async function; a lambda that returns an awaitable will do.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            A coroutine of what ``fn`` returns.

        Raises:
            TypeError: ``fn`` is no function, or an async generator function, which has to be
                decorated, or, when awaited, what it returned cannot be awaited.

        Complexity: builds the closure anew, about 0.2 us; decorate what is called often.
        """
        code = getattr(fn, "__code__", None)
        if code is None or not code.co_flags & CO_COROUTINE:  # else it is what it should be
            if _is(isasyncgenfunction, fn):
                msg = f"{_name(fn)} is an async generator function; decorate it, do not call it"
                raise TypeError(msg)
            fn = _async(fn, strict=False)
        return self.wrap(fn)(*args, **kwargs)


def _opening(
    fn: Callable[P, AsyncGenerator[T, Any]],
) -> Callable[P, Coroutine[Any, Any, tuple[AsyncGenerator[T, Any], tuple[T, ...]]]]:
    """Make the opening of a stream an async function, so that a policy can be applied to it.

    It returns the stream and a tuple of its first item, an empty one if there is none. If it
    raises, the generator has ended.
    """

    async def opened(
        *args: P.args, **kwargs: P.kwargs
    ) -> tuple[AsyncGenerator[T, Any], tuple[T, ...]]:
        stream = fn(*args, **kwargs)
        async for item in stream:
            return stream, (item,)
        return stream, ()

    return opened


def _is(kind: Callable[[object], bool], fn: object) -> bool:
    """Whether ``fn``, or its ``__call__`` if it is an object, is a function of ``kind``."""
    called = None if isinstance(fn, type) else getattr(fn, "__call__", None)  # noqa: B004 - read
    return kind(fn) or kind(called)


def _async(fn: Callable[P, Awaitable[T]], *, strict: bool) -> Callable[P, Awaitable[T]]:
    """Return ``fn`` if it is an async function, else one that checks what ``fn`` returns."""
    if _is(iscoroutinefunction, fn):
        return fn
    return _checked(async_function("fn", fn) if strict else function("fn", fn))


def _checked(fn: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    async def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        result = fn(*args, **kwargs)
        if not isawaitable(result):
            msg = f"fn must be an async function, but {_name(fn)} returned {result!r}"
            raise TypeError(msg)
        return await result

    return checked


def _name(fn: object) -> str:
    return getattr(fn, "__qualname__", None) or repr(fn)
