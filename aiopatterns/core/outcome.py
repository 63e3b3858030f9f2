"""What became of one call: ``Ok`` or ``Err``, as a value.

Where errors are collected instead of raised (``errors="collect"``), results come as one of two
frozen records with the same fields, so that ``match`` reads well::

    match outcome:
        case Ok(value):
            ...
        case Err(error):
            ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, NoReturn, TypeAlias, TypeVar

__all__ = ["Err", "Ok", "Outcome"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Ok(Generic[T_co]):
    """A call that returned.

    Args:
        value: What it returned.
        index: Position of its item in the input, from 0.
        elapsed: Seconds from start to end, retries and their waits included.
        attempts: How often the function ran.
    """

    value: T_co
    index: int = 0
    elapsed: float = 0.0
    attempts: int = 1

    @property
    def ok(self) -> Literal[True]:
        """True."""
        return True

    def unwrap(self) -> T_co:
        """Return the value."""
        return self.value


@dataclass(frozen=True, slots=True)
class Err:
    """A call that raised.

    Args:
        error: What it raised.
        index: Position of its item in the input, from 0.
        elapsed: Seconds from start to end, retries and their waits included.
        attempts: How often the function ran.
    """

    error: Exception
    index: int = 0
    elapsed: float = 0.0
    attempts: int = 1

    @property
    def ok(self) -> Literal[False]:
        """False."""
        return False

    def unwrap(self) -> NoReturn:
        """Raise the error, the same instance.

        Raises:
            Exception: The error of the call.
        """
        raise self.error


Outcome: TypeAlias = Ok[T] | Err
