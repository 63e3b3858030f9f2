"""SqliteLock: one process at a time, by a file beside a SQLite database.

SQLite locks whole databases: who keeps one of its transactions open while it talks to the network
holds up every writer. What only has to keep its like out locks a file of its own instead. The
system gives the lock back however the process ends, so there is no lease that has to run out.

The file holds nothing and stays. Where file locks do not work (some network file systems), SQLite
does not either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SqliteLock"]


@final
class SqliteLock:
    """A lock that nobody waits for.

    Args:
        path: The file; made if it is not there.

    Complexity: opening a file, below a millisecond.
    """

    __slots__ = ("_held", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._held: sqlite3.Connection | None = None

    def try_acquire(self) -> bool:
        """Take the lock and return True, or return False at once if somebody has it.

        Raises:
            sqlite3.OperationalError: The file cannot be made.
        """
        import sqlite3

        connection = sqlite3.connect(
            self._path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            connection.close()
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                return False
            raise
        self._held = connection
        return True

    def release(self) -> None:
        """Give the lock back; harmless if it is not held."""
        held, self._held = self._held, None
        if held is not None:
            held.close()
