"""Databases: where logs and stores of this room keep what must survive, by single statements.

A store or a decision log has a database of its own, beside those of the application. All that it
asks of one is a statement that is durable when the call returns::

    store -- run("UPDATE ... WHERE fence = :fence RETURNING ...") --> Database --> Answer

A statement is one transaction: it happens as a whole or not at all. Whatever has to be decided
stands in the statement (``ON CONFLICT``, ``WHERE``, ``RETURNING``), so that nothing is held open
between two calls, and a process that dies leaves no lock. What cannot be said in one statement is
a function that runs several, and decides between them without waiting for anything else:
:meth:`Database.transact`.

Guarantees:

* What has been answered is on disk, as far as the database can say so.
* One who is cancelled waits for the answer to what has begun, :data:`ANSWERED_WITHIN` at most.
* Nothing is opened before the first statement, and a database may be used on one event loop after
  another. ``aclose`` closes; one that is forgotten is closed with the object.
* Errors are :class:`~aiopatterns.core.errors.BackendUnavailableError` if it cannot be reached or
  is busy, and :class:`~aiopatterns.core.errors.BackendError` otherwise.

Not guaranteed: that a statement whose answer was lost has not happened. Statements are written so
that they may be repeated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.dialects import Dialect
    from aiopatterns.backends.sql import Answer, SqlLink

__all__ = ["ANSWERED_WITHIN", "Database"]

T = TypeVar("T")

#: Seconds that a database may take for one statement or transaction; nobody waits longer.
ANSWERED_WITHIN: Final = 10.0


class Database(ABC):
    """One database, and single statements in it.

    Args:
        dialect: Its language.
        place: What errors call it, without a password.
    """

    __slots__ = ("__weakref__", "dialect", "place")

    def __init__(self, dialect: Dialect, place: str) -> None:
        self.dialect: Final[Dialect] = dialect
        self.place: Final[str] = place

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.place!r})"

    @abstractmethod
    async def run(self, statement: str, **values: object) -> Answer:
        """Run one statement as a transaction of its own.

        Args:
            statement: With ``:name`` for each of ``values``.
            values: What stands for the names.

        Raises:
            BackendUnavailableError: It cannot be reached, or is busy for too long; the statement
                may have happened.
            BackendError: It refuses.

        Cancellation: waits for the answer; the statement has happened or not.
        """

    @abstractmethod
    async def transact(self, work: Callable[[SqlLink], Awaitable[T]]) -> T:
        """Run several statements as one transaction.

        Args:
            work: Runs them on the link that it gets, and waits for nothing else. Transactions of
                SQLite come one after the other; those of PostgreSQL see what others have
                committed, and lock what must not change (``FOR UPDATE``).

        Returns:
            What ``work`` returns, when all is durable.

        Raises:
            BackendUnavailableError: It cannot be reached, or is busy for too long; all may have
                happened, or nothing.
            BackendError: It refuses; nothing has happened.
            Exception: What ``work`` raises; nothing has happened.

        Cancellation: waits for the end; all has happened, or nothing.
        """

    async def create(self, *statements: str) -> None:
        """Create what may be there, also while others create the same.

        Args:
            statements: Each with IF NOT EXISTS, and without values.
        """
        for each in self.dialect.creation(statements):
            await self.run(each)

    @abstractmethod
    async def aclose(self) -> None:
        """Close what is open; the next statement opens it again."""

    async def __aenter__(self) -> Self:
        """Return this database; nothing is opened yet."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close what is open."""
        await self.aclose()
