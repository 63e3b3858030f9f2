"""The types of the decorators: which function makes which job.

A call of a job has the parameters of its function without the context; a batch takes one item
where its function takes a list. Both type checkers read it from the overloads here: a function
with the context first is tried before one without, and an asynchronous one before a synchronous.
"""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    overload,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aiopatterns.jobs.context import Context
    from aiopatterns.jobs.job import Job

__all__ = ["BatchDecorator", "Coro", "CronDecorator", "JobDecorator"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Coro: TypeAlias = "Coroutine[Any, Any, T]"


class JobDecorator(Protocol):
    """Makes a job of a function."""

    @overload
    def __call__(self, fn: Callable[Concatenate[Context, P], Coro[R]], /) -> Job[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coro[R]], /) -> Job[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Context, P], R], /) -> Job[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Job[P, R]: ...


class BatchDecorator(Protocol):
    """Makes a job for one item of a function that takes a list of them."""

    @overload
    def __call__(self, fn: Callable[[Context, list[T]], Coro[None]], /) -> Job[[T], None]: ...
    @overload
    def __call__(self, fn: Callable[[Context, list[T]], Coro[list[R]]], /) -> Job[[T], R]: ...
    @overload
    def __call__(self, fn: Callable[[list[T]], Coro[None]], /) -> Job[[T], None]: ...
    @overload
    def __call__(self, fn: Callable[[list[T]], Coro[list[R]]], /) -> Job[[T], R]: ...
    @overload
    def __call__(self, fn: Callable[[Context, list[T]], None], /) -> Job[[T], None]: ...
    @overload
    def __call__(self, fn: Callable[[Context, list[T]], list[R]], /) -> Job[[T], R]: ...
    @overload
    def __call__(self, fn: Callable[[list[T]], None], /) -> Job[[T], None]: ...
    @overload
    def __call__(self, fn: Callable[[list[T]], list[R]], /) -> Job[[T], R]: ...


class CronDecorator(Protocol):
    """Makes a job that the clock enqueues."""

    @overload
    def __call__(self, fn: Callable[[Context], Coro[R]], /) -> Job[[], R]: ...
    @overload
    def __call__(self, fn: Callable[[], Coro[R]], /) -> Job[[], R]: ...
    @overload
    def __call__(self, fn: Callable[[Context], R], /) -> Job[[], R]: ...
    @overload
    def __call__(self, fn: Callable[[], R], /) -> Job[[], R]: ...
