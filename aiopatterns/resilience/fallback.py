"""Fallback: answer something else when the call has failed.

Some answers are better than none: yesterday's price, an empty list of recommendations, the copy in
the cache. A fallback takes the place of an error, and of a result that is as bad as one::

    call --> [ fn ] --result--> caller
                |
              error --one of on?--no--> the same error
                            |
                           yes --> value, or fn_of_error(error) --> caller

A caller cannot tell such an answer from a real one, which is the point of it and its danger. So it
is told aside: each is an event, and :class:`Degraded` collects those of a block of code.

Guarantees:

* Only an ``Exception`` is ever replaced. Cancellation passes and no user code sees it.
* Refusals (``RejectedError``) are errors like others here: ``on=Exception`` covers the open
  breaker, the full bulkhead and the used-up rate.
* If the fallback's own function fails, its error leaves, with the first one as its context.

Not guaranteed: a bound on the time of the fallback's function. A timeout inside the fallback does
not reach it; one outside does, and then nothing is answered.

A fallback belongs outside of what it stands in for, or the retries and breakers around it never
see a failure.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from inspect import isawaitable
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar, cast, final

from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.types import as_async_iterator
from aiopatterns.core.validate import plain_function
from aiopatterns.resilience.matching import Matcher
from aiopatterns.resilience.policy import Policy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
    from contextvars import Token
    from types import TracebackType
    from typing import Self

    from aiopatterns.core.types import Source
    from aiopatterns.resilience.matching import On

__all__ = ["Degraded", "Fallback", "FallbackUsed"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FallbackUsed(Event):
    """A fallback takes the place of an error or of a result.

    Args:
        error: What the call raised; None if its result was not wanted.
    """

    name: ClassVar[str] = "aiopatterns.fallback.used"
    level: ClassVar[str] = "warning"

    error: Exception | None


@final
class Degraded:
    """Collects the fallbacks that answer inside a ``with`` block, true if there were any.

    It sees those of the tasks that are started inside, too, and of blocks inside this one.

    Example::

        with Degraded() as degraded:
            page = await render()
        if degraded:
            headers["Cache-Control"] = "no-store"
    """

    __slots__ = ("_errors", "_outer", "_token")

    def __init__(self) -> None:
        self._errors: list[Exception | None] = []
        self._outer: Degraded | None = None
        self._token: Token[Degraded | None] | None = None

    @property
    def errors(self) -> tuple[Exception | None, ...]:
        """What was replaced, in order: the error, or None for a result that was not wanted."""
        return tuple(self._errors)

    def __bool__(self) -> bool:
        return bool(self._errors)

    def __enter__(self) -> Self:
        """Begin to collect.

        Raises:
            RuntimeError: Entered a second time.
        """
        if self._token is not None:
            msg = "this Degraded has been entered before; make one for each block"
            raise RuntimeError(msg)
        self._outer = _degraded.get()
        self._token = _degraded.set(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the block; what was collected stays."""
        if self._token is not None:
            _degraded.reset(self._token)

    def note(self, error: Exception | None) -> None:
        """Add what a fallback replaces, here and in the blocks around."""
        self._errors.append(error)
        if self._outer is not None:
            self._outer.note(error)


_degraded: ContextVar[Degraded | None] = ContextVar("aiopatterns_degraded", default=None)


@final
class Fallback(Policy):
    """Answer something else when a call fails.

    Args:
        value_or_fn: What to answer; or a function, plain or async, of the error that returns it.
            The function gets None if the result was not wanted. To answer with a function, wrap
            it in one.
        on: For what: an exception type, a tuple of them, or a predicate of the error.
        on_result: Predicate of a result: True if it is as bad as an error.

    A stream is replaced if it fails before its first item: by the items of what would be the
    answer, an iterable or async iterable, and so also by an async generator function. An error
    after that passes, since the reader has the first half already; ``on_result`` is not asked.

    Example::

        @Fallback([], on=(OSError, RejectedError))
        async def recommendations(user: int) -> list[str]: ...


        @Fallback(lambda error: cached_price(), on=Exception)
        async def price(item: str) -> float: ...
    """

    __slots__ = ("_answer", "_matcher", "_on", "_on_result")

    kind = "fallback"

    def __init__(
        self,
        value_or_fn: object,
        *,
        on: On,
        on_result: Callable[[Any], bool] | None = None,
    ) -> None:
        self._answer = value_or_fn
        self._on = on
        self._matcher = Matcher(on, refusals=True)
        self._on_result = on_result if on_result is None else plain_function("on_result", on_result)

    def __repr__(self) -> str:
        return f"Fallback({self._answer!r})"

    def matches(self, error: Exception) -> bool:
        """Whether ``error`` is one of ``on``; of a group, whether all that it holds are."""
        return self._matcher.matches(error)

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Return a function that calls ``fn`` and answers in its place if it fails."""
        on_result = self._on_result

        async def answered(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                result = await fn(*args, **kwargs)
            except Exception as error:
                if not self.matches(error):
                    raise
                # In here, so that an error of the fallback's function has this one as context.
                return cast("T", await self._stand_in(error))
            if on_result is None or not on_result(result):
                return result
            return cast("T", await self._stand_in(None))

        return answered

    def wrap_stream(
        self, fn: Callable[P, AsyncGenerator[T, Any]]
    ) -> Callable[P, AsyncGenerator[T]]:
        """Return a stream function that gives other items if the stream fails before its first."""

        async def instead(
            error: Exception | None,
        ) -> tuple[AsyncGenerator[object], tuple[object, ...]]:
            stream = _items(cast("Source[object]", await self._ask(error)))
            # Opened in here, so that an error of it has the first one as context.
            async for item in stream:
                return stream, (item,)
            return stream, ()

        # What the opening of a stream returns, as the base class has it, is what is replaced.
        return Policy.wrap_stream(Fallback(instead, on=self._on), fn)

    async def _stand_in(self, error: Exception | None) -> object:
        """Tell that a fallback answers, and let it."""
        if (degraded := _degraded.get()) is not None:
            degraded.note(error)
        if listening():
            emit(FallbackUsed(error))
        return await self._ask(error)

    async def _ask(self, error: Exception | None) -> object:
        answer = self._answer
        if not callable(answer):
            return answer
        found = answer(error)
        return await found if isawaitable(found) else found


async def _items(answer: Source[T]) -> AsyncGenerator[T]:
    """Iterate over the answer to a stream; close it only if it was made for this stream."""
    items = as_async_iterator("the answer of a fallback for a stream", answer)
    try:
        async for item in items:
            yield item
    finally:
        if isinstance(items, AsyncGeneratorType):
            await items.aclose()
