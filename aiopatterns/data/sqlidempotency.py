"""Idempotency in a database: the outcome of a call is kept in the transaction of its effect.

:class:`~aiopatterns.resilience.idempotency.Idempotent` keeps outcomes in a backend, so a process
may die when the effect is there and the outcome is not. If the effect is in a database, the outcome
can be a row beside it, and both come and go together::

    BEGIN
      insert the key            there already?   its outcome is the answer, nothing runs
      the effect                under way?       waits for that transaction
      keep the outcome
    COMMIT                      ROLLBACK, crash: neither of them has happened

Guarantees, if the caller commits or rolls back as a whole:

* For ``ttl`` seconds the effect of a key is there once, with its outcome, or not at all; also if
  processes die at any point, and if two try at once.
* Another payload under a key that is taken is refused, and nothing runs.
* What failed is not kept, for it is rolled back: the next try runs.

Not guaranteed: anything for effects elsewhere. What the function does to other systems may happen
again. In SQLite two transactions that write wait for each other, whatever their keys are.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, final

import msgspec

from aiopatterns.backends.dialects import table_name
from aiopatterns.backends.sql import link
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import CodecError, ConflictError
from aiopatterns.core.validate import async_function, positive, text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiopatterns.backends.sql import SqlConnection

__all__ = ["IDEMPOTENCY_TABLE", "SqlIdempotent"]

T = TypeVar("T")

#: Where outcomes are, unless told otherwise.
IDEMPOTENCY_TABLE: Final = "aiopatterns_idempotency"

_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS {table} (name TEXT NOT NULL, key TEXT NOT NULL,"
    " payload {blob} NOT NULL, outcome {blob}, begun_at DOUBLE PRECISION NOT NULL DEFAULT {now},"
    " PRIMARY KEY (name, key))"
)
_BEGIN: Final = (
    "INSERT INTO {table} AS old (name, key, payload) VALUES (:name, :key, :payload)"
    " ON CONFLICT (name, key) DO UPDATE SET payload = excluded.payload, outcome = NULL,"
    " begun_at = excluded.begun_at WHERE old.begun_at <= {now} - :ttl"
)
_READ: Final = "SELECT payload, outcome FROM {table} WHERE name = :name AND key = :key"
_KEEP: Final = "UPDATE {table} SET outcome = :outcome WHERE name = :name AND key = :key"
_FORGET: Final = "DELETE FROM {table} WHERE name = :name AND begun_at <= {now} - :ttl"
_FINGERPRINT_BYTES: Final = 16

# Equal payloads are equal bytes, whatever the order of a dict or a set.
_payload_bytes = msgspec.msgpack.Encoder(order="deterministic").encode


@final
class SqlIdempotent:
    """Calls whose effect and outcome are in one database.

    Args:
        connection: The connection of the effect's transaction: an ``AsyncConnection`` or
            ``AsyncSession`` of SQLAlchemy, an ``AsyncConnection`` of psycopg, or a ``Connection``
            of sqlite3.
        name: Of what the keys belong to.
        ttl: Seconds for which an outcome is kept.
        table: Name of the table.

    Raises:
        TypeError: ``connection`` is none of these, or a value is of another type.
        ValueError: It leads to neither PostgreSQL nor SQLite, or a value is out of its range.

    Example::

        async with engine.begin() as connection:
            once = SqlIdempotent(connection, name="charge")
            receipt = await once.run(order.key, charge, payload=order.total, returns=Receipt)
    """

    __slots__ = ("_link", "_name", "_table", "_ttl")

    def __init__(
        self,
        connection: SqlConnection,
        *,
        name: str = "calls",
        ttl: float = 86_400.0,
        table: str = IDEMPOTENCY_TABLE,
    ) -> None:
        self._link = link(connection)
        self._name = text("name", name)
        self._ttl = float(positive("ttl", ttl))
        self._table = table_name("table", table)

    async def create_tables(self) -> None:
        """Create the table if it is not there.

        In the caller's transaction if one is open; else it is committed.

        Cancellation: the table is there or not; nothing is left open.
        """
        await self._link.create(self._worded(_CREATE))

    async def run(
        self,
        key: str,
        fn: Callable[[], Awaitable[T]],
        *,
        payload: object = None,
        returns: Any = Any,
    ) -> T:
        """Call ``fn`` once for this key, or return what it has returned.

        It commits nothing: the caller does, and rolls back after any error.

        Args:
            key: The same for each try.
            fn: Makes the effect, on the same connection.
            payload: What has to be the same in each try.
            returns: The type as which a stored outcome comes back.

        Raises:
            ConflictError: The key was used with another payload.
            RuntimeError: The key has begun and not ended: ``fn`` calls for its own key, or its
                transaction was committed though it had failed.
            CodecError: Payload or outcome cannot be encoded or decoded.
            TypeError: ``key`` is no text, or ``fn`` no async function.
            ValueError: ``key`` is empty.

        Cancellation: roll the transaction back, as after any other error.

        Complexity: 2 round trips beside ``fn``, 2 for a repetition. It waits for another
            transaction that runs the same key.
        """
        values = {"name": self._name, "key": text("key", key)}
        async_function("fn", fn)
        mark = _fingerprint(payload)
        begun = await self._link.run(self._worded(_BEGIN), payload=mark, ttl=self._ttl, **values)
        if begun.changed == 0:
            ((found, outcome),) = (await self._link.run(self._worded(_READ), **values)).rows
            return cast("T", MSGPACK.decoder(returns)(_checked(key, mark, found, outcome)))
        result = await fn()
        outcome = MSGPACK.encode(result)
        await self._link.run(self._worded(_KEEP), outcome=outcome, **values)
        return result

    async def purge(self) -> int:
        """Forget outcomes of this name that are older than ``ttl``, in the caller's transaction.

        Returns:
            How many were forgotten.

        Complexity: O(keys of the name).
        """
        answer = await self._link.run(self._worded(_FORGET), name=self._name, ttl=self._ttl)
        return answer.changed

    def _worded(self, statement: str) -> str:
        return self._link.dialect.worded(statement, self._table)


def _fingerprint(payload: object) -> bytes:
    try:
        packed = _payload_bytes(payload)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CodecError(f"payload cannot be encoded: {error}") from error
    return blake2b(packed, digest_size=_FINGERPRINT_BYTES).digest()


def _checked(key: str, mark: bytes, found: Any, outcome: Any) -> bytes:
    """Return the outcome that stands under a key.

    Raises:
        ConflictError: It is that of another payload.
        RuntimeError: There is none.
    """
    if bytes(found) != mark:
        msg = f"key {key!r} was used with another payload; one key is for one call"
        raise ConflictError(msg, key=key)
    if outcome is None:
        msg = (
            f"key {key!r} has begun and not ended: its function calls for its own key, or it had"
            " failed and was committed all the same"
        )
        raise RuntimeError(msg)
    return bytes(outcome)
