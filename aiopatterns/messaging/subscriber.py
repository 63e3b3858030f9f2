"""Subscriber: one handler of an event bus, and the way in which it is called.

A handler that is an async function without conditions, which is what most are, is called directly.
Everything else goes through one function that asks the condition, gives up the place of a handler
that is called once, arms the timeout, and awaits what a synchronous handler returns if that is
something to await.

Guarantee: a handler that is called once is called once, also by publishers at the same time: its
place is given up before it is called, in one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeAlias, cast, final

from aiopatterns.core.notes import in_words
from aiopatterns.core.validate import (
    async_function,
    function,
    instance,
    is_async,
    plain_function,
    positive,
)
from aiopatterns.resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiopatterns.core.telemetry import Subscription

__all__ = ["Subscriber", "SubscriberStatistics"]

Handler: TypeAlias = "Callable[[Any], object]"


@final
@dataclass(frozen=True, slots=True)
class SubscriberStatistics:
    """What one handler of a bus has done so far.

    Attributes:
        handler: Its name.
        on: The name of the type, or the pattern, that it is subscribed to.
        priority: Its priority.
        calls: Calls that began.
        errors: Calls that raised, or took too long.
        last_error: The last of these in words, or None.
    """

    handler: str
    on: str
    priority: int
    calls: int
    errors: int
    last_error: str | None


@final
class Subscriber:
    """One handler and its terms.

    Args:
        on: The type or the pattern of its events.
        handler: A function of one event, async or not.
        once: Whether its first call is its last.
        priority: Handlers of a higher one are called first.
        timeout: Seconds for each call, above 0, or None.
        where: Whether an event is for it; None for all.

    Raises:
        ValueError: A value is out of its range.
        TypeError: A value is of another type, or a plain function has a timeout.
    """

    __slots__ = (
        "_handler",
        "_on",
        "_once",
        "_timeout",
        "_where",
        "call",
        "errors",
        "last_error",
        "name",
        "open",
        "passed_over",
        "place",
        "priority",
        "taken",
    )

    def __init__(
        self,
        on: type | str,
        handler: Handler,
        *,
        once: bool,
        priority: int,
        timeout: float | None,
        where: Callable[[Any], object] | None,
    ) -> None:
        self._handler = (function if timeout is None else async_function)("handler", handler)
        self._on: str = on if isinstance(on, str) else on.__qualname__
        self._once = instance("once", once, bool, "True or False")
        self._timeout = None if timeout is None else Timeout(positive("timeout", timeout))
        self._where = None if where is None else plain_function("where", where)
        self.name: str = getattr(handler, "__qualname__", None) or repr(handler)
        self.priority: int = instance("priority", priority, int, "a whole number")
        self.place: Subscription  # set by the bus, which knows what giving it up takes
        self.open: bool = True
        self.taken: int = 0
        self.passed_over: int = 0  # of these, those that were not for it
        self.errors: int = 0
        self.last_error: str | None = None
        bare = is_async(handler) and not once and timeout is None and where is None
        #: Gives it one event. May raise whatever the handler, or ``where``, raises.
        self.call: Callable[[Any], Awaitable[object]] = (
            cast("Callable[[Any], Awaitable[object]]", handler) if bare else self._call
        )

    def failed(self, error: Exception) -> None:
        """Note that a call has raised."""
        self.errors += 1
        self.last_error = in_words(error)

    def statistics(self) -> SubscriberStatistics:
        """Return what it has done so far."""
        return SubscriberStatistics(
            self.name,
            self._on,
            self.priority,
            self.taken - self.passed_over,
            self.errors,
            self.last_error,
        )

    async def _call(self, event: object) -> None:
        if self._where is not None and not self._where(event):
            self.passed_over += 1
            return
        if self._once:
            self.place.close()
        if self._timeout is not None:
            with self._timeout.scope():
                await self._answer(event)
        else:
            await self._answer(event)

    async def _answer(self, event: object) -> None:
        result = self._handler(event)
        if result is not None and isawaitable(result):
            await result
