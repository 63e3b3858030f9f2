"""The attempts of one step of a saga, and what is known after them.

::

    an attempt   returned                                       it is done
                 raised, and no attempt one of UNKNOWN          it is not done
                 raised, and it or an earlier one of UNKNOWN    it may be done

What may be done is undone, or, where nothing can undo it, asked again until it is known.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, final

from aiopatterns.core.context import forget_deadline, run_in
from aiopatterns.core.errors import BackendUnavailableError, OutcomeUnknownError
from aiopatterns.resilience.backoff import Exponential
from aiopatterns.resilience.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextvars import Context

    from aiopatterns.data.sagaplan import Action
    from aiopatterns.resilience.timeout import Timeout

__all__ = ["UNKNOWN", "UNTIL_KNOWN", "Attempts", "is_unknown", "unbounded"]

C = TypeVar("C")
T = TypeVar("T")

#: Errors that say nothing about whether it happened; also one of them in a group.
UNKNOWN: Final = (TimeoutError, ConnectionError, BackendUnavailableError, OutcomeUnknownError)


@final
class Attempts:
    """What is known about the attempts of one step.

    Args:
        timeout: Budget of each; None is without bound.

    Attributes:
        number: How many there were.
        unknown: Whether one of them may have done it, though it raised.
    """

    __slots__ = ("_timeout", "number", "unknown")

    def __init__(self, timeout: Timeout | None) -> None:
        self._timeout = timeout
        self.number: int = 0
        self.unknown: bool = False

    async def make(self, action: Action[C], context: C) -> None:
        """Call ``action`` once more; raises what it raises."""
        self.number += 1
        try:
            if self._timeout is None:
                await action(context)
            else:
                with self._timeout.scope():
                    await action(context)
        except Exception as error:
            self.unknown = self.unknown or is_unknown(error)
            raise


def is_unknown(error: Exception) -> bool:
    """Whether ``error`` says nothing about whether it happened."""
    if isinstance(error, ExceptionGroup):
        return any(map(is_unknown, cast("ExceptionGroup[Exception]", error).exceptions))
    return isinstance(error, UNKNOWN)


#: A pivot that cannot be undone is asked again while nobody knows what has become of it.
UNTIL_KNOWN: Final = Retry(on=is_unknown, attempts=8, backoff=Exponential(initial=0.2, cap=30.0))


def unbounded(work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """Run ``work`` without the deadline of whoever waits for it."""
    variables = copy_context()
    variables.run(forget_deadline)
    return _stepped(variables, work)


async def _stepped(variables: Context, work: Coroutine[Any, Any, T]) -> T:
    return await run_in(variables, work)
