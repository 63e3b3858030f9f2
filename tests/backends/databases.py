"""Databases of tests, by the ways in which people connect to them."""

from __future__ import annotations

import inspect
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from aiopatterns.testing import PostgresServer

__all__ = ["KINDS", "Database", "database_of"]

SQLITE_KINDS = ("sqlite3", "sqlite3-bound", "alchemy-sqlite", "session-sqlite")
POSTGRES_KINDS = ("psycopg", "alchemy-psycopg", "session-psycopg")
KINDS = SQLITE_KINDS + POSTGRES_KINDS


class Database:
    """One database, and one way to connect to it."""

    def __init__(self, kind: str, place: str) -> None:
        self.kind = kind
        self.place = place  # a path, or a DSN

    @property
    def is_postgres(self) -> bool:
        return self.kind in POSTGRES_KINDS

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Any]:
        """Give a connection that has no transaction open."""
        if self.kind.startswith("sqlite3"):
            bound = self.kind.endswith("bound")
            connection = sqlite3.connect(self.place, check_same_thread=bound)
            try:
                yield connection
            finally:
                connection.close()
        elif self.kind == "psycopg":
            async with await psycopg.AsyncConnection.connect(self.place) as other:
                yield other
                await other.rollback()
        else:
            async with self._alchemy() as another:
                yield another

    @asynccontextmanager
    async def _alchemy(self) -> AsyncIterator[Any]:
        url = f"sqlite+aiosqlite:///{self.place}"
        if self.is_postgres:
            url = self.place.replace("postgresql://", "postgresql+psycopg://")
        engine = create_async_engine(url, poolclass=NullPool)
        try:
            if self.kind.startswith("session"):
                async with AsyncSession(engine) as session:
                    yield session
            else:
                async with engine.connect() as connection:
                    yield connection
        finally:
            await engine.dispose()


async def commit(connection: Any) -> None:
    """Commit as the caller does."""
    if inspect.isawaitable(waiting := connection.commit()):
        await waiting


async def rollback(connection: Any) -> None:
    """Roll back as the caller does."""
    if inspect.isawaitable(waiting := connection.rollback()):
        await waiting


def database_of(request: pytest.FixtureRequest, kind: str) -> Database:
    """Return a database that nobody has used before; of PostgreSQL a schema, which is cheaper."""
    if kind not in POSTGRES_KINDS:
        return Database(kind, str(request.getfixturevalue("tmp_path") / "data.db"))
    server: PostgresServer = request.getfixturevalue("postgres_server")
    schema = f"s{uuid4().hex}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f'create schema "{schema}"')
    return Database(kind, f"{server.dsn}&options=-csearch_path%3D{schema}")
