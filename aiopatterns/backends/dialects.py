"""Dialects: where the SQL of PostgreSQL and of SQLite differ, and nothing else.

Rooms above write each statement once, with ``:name`` for a value and ``{name}`` for what the two
databases do not share::

    INSERT INTO {table} (id, at) VALUES (:id, {now}) ON CONFLICT DO NOTHING

A dialect is plain data: it opens nothing and runs nothing.

Not guaranteed: any other database. What is neither of the two is refused by name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

from aiopatterns.core.validate import text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["POSTGRESQL", "SQLITE", "Dialect", "dialect_named", "table_name"]

DialectName: TypeAlias = Literal["postgresql", "sqlite"]

#: Characters in an identifier at most: PostgreSQL cuts longer ones off, silently.
LONGEST: Final = 63
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
# One lock for everything of ours that is created: two who create at once are in each other's way.
_CREATING: Final = 0x6169_6F70_6174  # "aiopat"


@final
@dataclass(frozen=True, slots=True)
class Dialect:
    """The words of one database.

    Attributes:
        name: ``"postgresql"`` or ``"sqlite"``.
        serial: Type of a primary key that the database counts up, and never gives twice.
        blob: Type of bytes.
        now: Seconds since 1970 by the clock of the database, as an expression.
        skip_locked: Ends a SELECT that locks its rows and leaves out those of others; empty where
            there are no locks of rows.
        among: What comes after a column that is looked for in the list ``:many``.
    """

    name: DialectName
    serial: str
    blob: str
    now: str
    skip_locked: str
    among: str

    def worded(self, statement: str, table: str) -> str:
        """Return ``statement`` in this language.

        Args:
            statement: With the names of the fields above in braces, and ``{table}``.
            table: What :func:`table_name` has let pass.
        """
        return statement.format(
            table=".".join(f'"{each}"' for each in table.split(".")),
            serial=self.serial,
            blob=self.blob,
            now=self.now,
            skip_locked=self.skip_locked,
            among=self.among,
        )

    def many(self, values: Sequence[int | str]) -> object:
        """Return ``values`` as the value of ``:many``."""
        return list(values) if self is POSTGRESQL else json.dumps(list(values))

    def creation(self, statements: Sequence[str]) -> tuple[str, ...]:
        """Return what creates something, whoever else creates the same at the same time.

        PostgreSQL's own IF NOT EXISTS fails if two do it at once, so there one waits for the
        other, in one statement.
        """
        if self is not POSTGRESQL:
            return tuple(statements)
        body = "; ".join(statements)
        return (f"DO $$ BEGIN PERFORM pg_advisory_xact_lock({_CREATING}); {body}; END $$",)


POSTGRESQL: Final = Dialect(
    name="postgresql",
    serial="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    blob="BYTEA",
    now="CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)",
    skip_locked=" FOR UPDATE SKIP LOCKED",
    among="= ANY(:many)",
)
SQLITE: Final = Dialect(
    name="sqlite",
    serial="INTEGER PRIMARY KEY AUTOINCREMENT",  # without it, ids of deleted rows come again
    blob="BLOB",
    now="((julianday('now') - 2440587.5) * 86400.0)",
    skip_locked="",
    among="IN (SELECT value FROM json_each(:many))",
)


def dialect_named(name: str) -> Dialect:
    """Return the dialect that a driver calls ``name``.

    Raises:
        ValueError: It is none that is known here.
    """
    for each in (POSTGRESQL, SQLITE):
        if each.name == name:
            return each
    msg = f"connection must be one to 'postgresql' or 'sqlite', not to {name!r}"
    raise ValueError(msg)


def table_name(name: str, value: str) -> str:
    """Return ``value`` if it is the name of a table, with a schema in front of it or without.

    Args:
        name: The caller's parameter, for the error message.
        value: Letters, digits and underscores; one dot after the schema.

    Raises:
        ValueError: ``value`` is no such name.
        TypeError: ``value`` is no text.
    """
    if not _NAME.fullmatch(text(name, value)) or max(map(len, value.split("."))) > LONGEST:
        msg = (
            f"{name} must be letters, digits and underscores, at most {LONGEST}, with a schema and"
            f" a dot in front or without, not {value!r}"
        )
        raise ValueError(msg)
    return value
