"""Which errors a policy is about.

Retries, hedges and fallbacks are told by ``on`` which errors they are for: a type, a tuple of
types, or a predicate of the error. A :class:`Matcher` answers for them:

* A group of errors is meant if every error in it is. A type of ``on`` that is itself one of groups
  is asked about the group as a whole.
* A ``RejectedError``, the refusal of another policy of ours, is not meant by one of its bases,
  such as ``Exception``, where it would make no sense: to ask the open breaker five times makes
  five noes. Where it does, as for a fallback, it is an error like others.
* A predicate is asked about each ``Exception`` and never about a cancellation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeGuard, cast, final

from aiopatterns.core.errors import RejectedError
from aiopatterns.core.validate import plain_function

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Matcher", "On"]

On: TypeAlias = "type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]"


@final
class Matcher:
    """Says of an error whether it is one of ``on``.

    Args:
        on: An exception type, a tuple of them, or a predicate of the error.
        refusals: Whether a base of ``RejectedError`` in ``on`` means those, too.

    Raises:
        TypeError: ``on`` is something else, or an async function.

    Complexity: O(1); for a group, O(errors in it).
    """

    __slots__ = ("_groups", "_predicate", "_refusals", "_types")

    def __init__(self, on: On, *, refusals: bool) -> None:
        self._types, self._predicate = _parse_on(on)
        self._refusals = (
            self._types
            if refusals
            else tuple(each for each in self._types if issubclass(each, RejectedError))
        )
        self._groups = tuple(each for each in self._types if issubclass(each, BaseExceptionGroup))

    def matches(self, error: Exception) -> bool:
        """Whether ``error`` is meant; of a group, whether all that it holds are."""
        if isinstance(error, ExceptionGroup) and not isinstance(error, self._groups):
            group = cast("ExceptionGroup[Exception]", error)
            return all(map(self.matches, group.exceptions))
        if self._predicate is not None:
            return bool(self._predicate(error))
        return isinstance(
            error, self._refusals if isinstance(error, RejectedError) else self._types
        )


def _parse_on(on: On) -> tuple[tuple[type[Exception], ...], Callable[[Exception], bool] | None]:
    """Return the types that ``on`` names, or the predicate that it is."""
    named = (on,) if isinstance(on, type) else on
    if _are_error_types(named):
        return named, None
    if callable(named):
        return (), plain_function("on", named)
    msg = f"on must be an Exception type, a tuple of them, or a predicate, not {on!r}"
    raise TypeError(msg)


def _are_error_types(value: object) -> TypeGuard[tuple[type[Exception], ...]]:
    if not isinstance(value, tuple) or not value:
        return False
    each = cast("tuple[object, ...]", value)
    return all(isinstance(t, type) and issubclass(t, Exception) for t in each)
