"""One wording for every refused argument.

Constructors call these functions first, so that bad input gives one line which names the
parameter, shows the value and says what is allowed, and nothing has been started yet. A value
of a wrong type is a ``TypeError``, a wrong value a ``ValueError``. ``bool`` is never taken for a
number, and NaN is refused everywhere.
"""

from __future__ import annotations

import math
import sys
from inspect import (
    CO_ASYNC_GENERATOR,
    CO_COROUTINE,
    CO_ITERABLE_COROUTINE,
    iscoroutinefunction,
)
from types import FunctionType
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = [
    "async_function",
    "at_least",
    "choice",
    "count",
    "error_type",
    "function",
    "in_range",
    "instance",
    "is_async",
    "non_negative",
    "number",
    "optional_count",
    "optional_function",
    "optional_positive",
    "plain_function",
    "positive",
    "text",
]

T = TypeVar("T")

# The greatest float; a greater int is as endless as infinity.
_GREATEST: Final = sys.float_info.max
# A ``def`` with one of these is not plain: ``async def``, or decorated with ``types.coroutine``.
_ASYNC: Final = CO_COROUTINE | CO_ASYNC_GENERATOR | CO_ITERABLE_COROUTINE


def number(name: str, value: float, allowed: str = "a number") -> float:
    """Return ``value`` if it is a real number; NaN, bool and everything else is refused."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        msg = f"{name} must be {allowed}, not {value!r}"
        raise TypeError(msg)
    if isinstance(value, float) and math.isnan(value):
        msg = f"{name} must be {allowed}, not nan"
        raise ValueError(msg)
    return value


def positive(name: str, value: float, *, finite: bool = True) -> float:
    """Return ``value`` if it is a number above 0 (and finite, unless told otherwise)."""
    allowed = "a number > 0" if not finite else "a finite number > 0"
    number(name, value, allowed)
    if value <= 0 or (finite and value > _GREATEST):
        msg = f"{name} must be {allowed}, not {value!r}"
        raise ValueError(msg)
    return math.inf if value > _GREATEST else value


def non_negative(name: str, value: float, *, finite: bool = True) -> float:
    """Return ``value`` if it is a number >= 0 (and finite, unless told otherwise)."""
    allowed = "a number >= 0" if not finite else "a finite number >= 0"
    number(name, value, allowed)
    if value < 0 or (finite and value > _GREATEST):
        msg = f"{name} must be {allowed}, not {value!r}"
        raise ValueError(msg)
    return math.inf if value > _GREATEST else value


def in_range(name: str, value: float, low: float, high: float) -> float:
    """Return ``value`` if ``low <= value <= high``."""
    allowed = f"between {low} and {high}"
    number(name, value, allowed)
    if not low <= value <= high:
        msg = f"{name} must be {allowed}, not {value!r}"
        raise ValueError(msg)
    return value


def at_least(name: str, value: float, low: float) -> float:
    """Return ``value`` if ``value >= low``."""
    allowed = f"at least {low}"
    number(name, value, allowed)
    if value < low:
        msg = f"{name} must be {allowed}, not {value!r}"
        raise ValueError(msg)
    return value


def count(name: str, value: int, *, minimum: int = 1) -> int:
    """Return ``value`` if it is an int of at least ``minimum``."""
    allowed = f"a whole number >= {minimum}"
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"{name} must be {allowed}, not {value!r}"
        raise TypeError(msg)
    if value < minimum:
        msg = f"{name} must be {allowed}, not {value!r}"
        raise ValueError(msg)
    return value


def optional_positive(name: str, value: float | None) -> float | None:
    """Return ``value`` if it is None or a finite number above 0."""
    return None if value is None else positive(name, value)


def optional_count(name: str, value: int | None, *, minimum: int = 1) -> int | None:
    """Return ``value`` if it is None or an int of at least ``minimum``."""
    return None if value is None else count(name, value, minimum=minimum)


def choice(name: str, value: T, choices: Collection[T]) -> T:
    """Return ``value`` if it is one of ``choices``."""
    if value not in choices:
        allowed = ", ".join(repr(each) for each in choices)
        msg = f"{name} must be one of {allowed}, not {value!r}"
        raise ValueError(msg)
    return value


def function(name: str, value: T) -> T:
    """Return ``value`` if it can be called."""
    if not callable(value):
        msg = f"{name} must be a function, not {value!r}"
        raise TypeError(msg)
    return value


def async_function(name: str, value: T) -> T:
    """Return ``value`` if it can be called, unless it is a plain ``def``.

    Whether a lambda, a bound method, a wrapper or an object returns something to await shows only
    when it is called; redis clients, for one, have plain methods that do.
    """
    function(name, value)
    if isinstance(value, FunctionType) and _is_plain(value):
        msg = (
            f"{name} must be an async function, not the plain function {value.__qualname__}; write"
            f" 'async def', or run it in a thread with anyio.to_thread.run_sync"
        )
        raise TypeError(msg)
    return value


def _is_plain(fn: FunctionType) -> bool:
    return not (
        fn.__code__.co_flags & _ASYNC
        or fn.__name__ == "<lambda>"
        or hasattr(fn, "__wrapped__")
        or iscoroutinefunction(fn)  # also one that is only marked so; the slowest to ask
    )


def is_async(fn: object) -> bool:
    """Whether ``fn`` is an async function, or an object that is called like one."""
    return iscoroutinefunction(fn) or iscoroutinefunction(type(fn).__call__)


def plain_function(name: str, value: T) -> T:
    """Return ``value`` if it can be called, unless it is an async function."""
    if is_async(function(name, value)):
        msg = f"{name} must be a plain function, not the async function {value!r}"
        raise TypeError(msg)
    return value


def optional_function(name: str, value: T) -> T:
    """Return ``value`` if it is None or can be called."""
    return value if value is None else function(name, value)


def instance(name: str, value: T, kinds: type | tuple[type, ...], allowed: str) -> T:
    """Return ``value`` if it is an instance of ``kinds``; ``allowed`` says so in words."""
    if not isinstance(value, kinds):
        msg = f"{name} must be {allowed}, not {value!r}"
        raise TypeError(msg)
    return value


def error_type(name: str, kind: type[Exception]) -> type[Exception]:
    """Return ``kind`` if it is an exception type that can be made without arguments."""
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        msg = f"{name} must be a type of Exception, not {kind!r}"
        raise TypeError(msg)
    try:
        kind()
    except TypeError as error:
        msg = f"{name} must be a type that needs no arguments, not {kind!r}: {error}"
        raise TypeError(msg) from None
    return kind


def text(name: str, value: str) -> str:
    """Return ``value`` if it is a non-empty string."""
    if not isinstance(value, str):
        msg = f"{name} must be a non-empty string, not {value!r}"
        raise TypeError(msg)
    if not value:
        msg = f"{name} must be a non-empty string, not {value!r}"
        raise ValueError(msg)
    return value
