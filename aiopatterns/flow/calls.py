"""One call of a user's function: by whom it may be cancelled, what it may change, what is to blame.

Everything that runs user functions in long-lived workers has the same four questions, and they
are answered here once: is it an async function at all; has a call set context variables, so that
the next must be kept apart; is a cancellation one that somebody asked for; and which item is an
error about.
"""

from __future__ import annotations

import math
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

from anyio import current_effective_deadline, get_cancelled_exc_class

from aiopatterns.core.errors import JobCancelledError
from aiopatterns.core.notes import note

if TYPE_CHECKING:
    from contextvars import Context

    from aiopatterns.core.types import AsyncFn

__all__ = [
    "NotAsyncError",
    "as_failure",
    "blame",
    "blame_source",
    "called",
    "given_up",
    "own_cancellation",
    "own_error",
    "untouched",
]

T = TypeVar("T")
R = TypeVar("R")


class NotAsyncError(TypeError):
    """The function is not async: that is not for one item alone."""


async def called(fn: AsyncFn[T, R], item: T, name: str = "fn") -> R:
    """Call ``fn``, and see that it is an async function; ``name`` is the caller's parameter."""
    work = fn(item)
    if not hasattr(type(work), "__await__"):
        found = getattr(fn, "__qualname__", repr(fn))
        msg = f"{name} must be an async function, but {found} returned {work!r:.80}"
        raise NotAsyncError(msg)
    return await work


def untouched(variables: Context) -> bool:
    """Whether the context of this task still is ``variables``; O(1) if nobody has set any."""
    try:
        return copy_context() == variables
    except Exception:  # of a value that cannot be compared: then it has been set
        return False


def own_cancellation(error: BaseException) -> bool:
    """Whether ``error`` is a cancellation that nobody has asked this task for."""
    return isinstance(error, get_cancelled_exc_class()) and not given_up()


def given_up() -> bool:
    """Whether the scope in which this task runs is cancelled, as all that is owned ends."""
    return current_effective_deadline() == -math.inf


def own_error(what: str, cause: BaseException) -> JobCancelledError:
    """Make the error of a call that has cancelled itself."""
    error = JobCancelledError(f"{what} cancelled itself")
    error.__cause__ = cause
    return error


def as_failure(error: BaseException, what: str) -> Exception:
    """Return the failure of ``what`` that ``error`` is; what is none is raised again."""
    if isinstance(error, Exception):
        return error
    if own_cancellation(error):
        return own_error(what, error)
    raise error


def blame(error: Exception, index: int) -> Exception:
    """Note on ``error`` which item it is about."""
    note(error, f"raised by the call for item {index}")
    return error


def blame_source(error: Exception, taken: int) -> Exception:
    """Note on ``error`` that it is the source's."""
    note(error, f"raised by the source of the items, after {taken} items")
    return error
