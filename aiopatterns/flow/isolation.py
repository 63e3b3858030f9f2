"""Context variables of one item stay with that item, without a task for each.

A long-lived task that runs a user's function for one item after another is a single context: what
the function sets for one item, the next would see. A copy of the context for every item prevents
that and costs 0.5 us. Most functions set nothing, so the price is paid only by those that do:
contexts are immutable maps underneath, so comparing with a clean copy takes 0.05 us, and the first
function that leaves a trace moves all later calls into copies of the clean context.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar, final

from aiopatterns.core.context import run_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

__all__ = ["Isolation"]

A = TypeVar("A")
T = TypeVar("T")


@final
class Isolation:
    """What one task knows about its context; make it in the task, before the first call.

    The context of that moment is what all calls see::

        if isolation.spoiled():
            await isolation.call(fn, item)
        else:
            await fn(item)
    """

    __slots__ = ("_clean",)

    def __init__(self) -> None:
        self._clean = copy_context()

    def spoiled(self) -> bool:
        """Whether something is set in the task's context; ask before each call."""
        try:
            return copy_context() != self._clean
        except Exception:  # values that refuse to be compared: so there are new ones
            return True

    def call(self, fn: Callable[[A], Coroutine[Any, Any, T]], argument: A) -> Awaitable[T]:
        """Return an awaitable of ``fn(argument)`` that runs in a copy of the clean context.

        Args:
            fn: Async function.
            argument: Its argument.

        Cancellation: reaches ``fn``.

        Complexity: 0.5 us.
        """
        return run_in(self._clean.copy(), fn(argument))
