"""One attempt of a job: its arguments made, middleware around, the function called.

::

    middleware 1( ctx, call_next ) --> middleware 2( ctx, call_next ) --> function
         outermost, registered first                                    async: on this loop
                                                                         sync: in a thread
"""

from __future__ import annotations

from functools import partial
from inspect import isasyncgenfunction, isgeneratorfunction
from typing import TYPE_CHECKING, Any, TypeAlias, cast, final

from aiopatterns.core.errors import JobError
from aiopatterns.core.threads import call_in_thread
from aiopatterns.core.validate import is_async
from aiopatterns.jobs.context import enter_hops, leave_hops

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from aiopatterns.jobs.context import Context
    from aiopatterns.jobs.signature import Signature

__all__ = ["CallNext", "Invocation", "Middleware"]

CallNext: TypeAlias = "Callable[[Context], Awaitable[Any]]"
"""What middleware awaits for the rest: the next middleware, or the function."""
Middleware: TypeAlias = "Callable[[Context, CallNext], Awaitable[Any]]"
"""``async def middleware(ctx, call_next)``; returns the result, its own or that of the rest."""


@final
class Invocation:
    """How the function of one job is called.

    Args:
        signature: Its parameters.
        fn: The function.
        batch: Whether it takes a list of items.

    Raises:
        TypeError: ``fn`` is a generator, which returns no result.
    """

    __slots__ = ("_async", "_batch", "_fn", "_signature")

    def __init__(self, signature: Signature, fn: Callable[..., Any], *, batch: bool) -> None:
        if isgeneratorfunction(fn) or isasyncgenfunction(fn):
            msg = f"fn must be a function that returns its result, not the generator {fn!r}"
            raise TypeError(msg)
        self._signature = signature
        self._fn = fn
        self._batch = batch
        self._async = is_async(fn)

    def convert(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments as the annotations say; of a batch, those of each item.

        Raises:
            CodecError: They do not fit.
        """
        if not self._batch:
            return self._signature.convert(args, kwargs)
        items = cast("Sequence[Any]", args[0])
        return [[self._signature.convert([item], kwargs)[0][0] for item in items]], {}

    async def run(
        self,
        ctx: Context,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        middlewares: Sequence[Middleware],
    ) -> Any:
        """Run the function within its middleware; raises what they raise.

        A call of ``sys.exit`` ends neither the worker nor, from its thread, the whole process.

        Raises:
            JobError: One of them raised SystemExit.

        Cancellation: reaches an asynchronous function; a synchronous one is awaited.
        """
        token = enter_hops(ctx.hops)
        try:
            if middlewares:
                value = await self._around(args, kwargs, middlewares)(ctx)
            else:
                value = await self._call(args, kwargs, ctx)
        except SystemExit as error:
            raise JobError(f"job {ctx.name!r} called sys.exit({error.code!r})") from error
        finally:
            leave_hops(token)
        return _each(value, len(args[0])) if self._batch else value

    def _around(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], middlewares: Sequence[Middleware]
    ) -> CallNext:
        """Return the function within its middleware."""
        call: CallNext = partial(self._call, args, kwargs)
        for middleware in reversed(middlewares):
            call = _Layer(middleware, call)
        return call

    async def _call(self, args: Sequence[Any], kwargs: Mapping[str, Any], ctx: Context) -> Any:
        if self._signature.takes_context:
            args = (ctx, *args)
        if self._async:
            return await self._fn(*args, **kwargs)
        return await call_in_thread(self._fn, *args, **kwargs)


@final
class _Layer:
    """A middleware with all that is inside it."""

    __slots__ = ("_inner", "_middleware")

    def __init__(self, middleware: Middleware, inner: CallNext) -> None:
        self._middleware = middleware
        self._inner = inner

    def __call__(self, ctx: Context) -> Awaitable[Any]:
        return self._middleware(ctx, self._inner)


def _each(value: Any, count: int) -> list[Any]:
    """Return the results of a batch, one for each item.

    Raises:
        ValueError: The function returned a list of another length.
        TypeError: It returned neither a list nor None.
    """
    if value is None:
        return [None] * count
    if not isinstance(value, list):
        msg = f"a batch returns None or a list with a result for each item, not {value!r:.80}"
        raise TypeError(msg)
    results = list(cast("Sequence[Any]", value))
    if len(results) != count:
        msg = f"a batch of {count} items returned {len(results)} results"
        raise ValueError(msg)
    return results
