"""Places where a two-phase commit happens in tests, and coordinators that die on the way."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg

from aiopatterns.backends import open_backend
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.data import (
    MemoryParticipant,
    PostgresParticipant,
    RecoveryReport,
    RedisParticipant,
    SqliteLastResource,
    SqliteLog,
    SqliteParticipant,
    TwoPhaseCommit,
)
from tests.backends.databases import database_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

OLD, NEW = "old", "new"


class Died(BackendUnavailableError):
    """The process of the coordinator is gone: nothing that it calls happens any more."""


class Life:
    """That of one coordinator.

    Args:
        point: ``(verb, name, "before" or "after")`` at which it ends; None lives on.
        fault: What is done instead of dying: an async function, called at the point.
    """

    def __init__(
        self,
        point: tuple[str, str, str] | None = None,
        fault: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        self.point = point
        self.fault = fault
        self.dead = False
        self.reached = False

    async def at(self, *point: str) -> None:
        if self.dead:
            raise Died
        if point == self.point and not self.reached:
            self.reached = True
            if self.fault is not None:
                await self.fault()
            else:
                self.dead = True
                raise Died


class Mortal:
    """A participant, or a log, as a coordinator sees it that may die."""

    def __init__(self, inner: Any, life: Life, name: str) -> None:
        self.inner = inner
        self.life = life
        self.name = name

    def branch(self, gid: str) -> Any:
        return self.inner.branch(gid)

    def __getattr__(self, verb: str) -> Any:
        inner = getattr(self.inner, verb)  # first, so that it has only what the inner has

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self.life.at(verb, self.name, "before")
            result = await inner(*args, **kwargs)
            await self.life.at(verb, self.name, "after")
            return result

        return call


class Place:
    """Something that survives processes, with one value in it."""

    name: str

    def open(self) -> Any:
        """Return a participant, as a new process would make it."""
        raise NotImplementedError

    async def write(self, branch: Any, value: str = NEW) -> None:
        raise NotImplementedError

    async def read(self) -> Any:
        raise NotImplementedError

    async def lose(self, gid: str) -> None:
        """Roll a promise back by hand."""
        assert await self.open().rollback(gid)

    def die(self, participant: Any) -> None:
        """What becomes of the participant's connections when its process dies."""


class MemoryPlace(Place):
    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.participant = MemoryParticipant(name)
        self.participant._values["x"] = OLD

    def open(self) -> MemoryParticipant:
        return self.participant

    async def write(self, branch: Any, value: str = NEW) -> None:
        await branch.execute("x", value)

    async def read(self) -> Any:
        return self.participant.get("x")

    def die(self, participant: Any) -> None:
        participant._working.clear()


class RedisPlace(Place):
    name = "redis"

    def __init__(self, url: str) -> None:
        self.backend = open_backend(url)

    def open(self) -> RedisParticipant:
        return RedisParticipant(self.name, self.backend)

    async def write(self, branch: Any, value: str = NEW) -> None:
        await branch.execute("x", value.encode())

    async def read(self) -> Any:
        value = await self.open().get("x")
        return OLD if value is None else value.decode()


class SqlitePlace(Place):
    name = "sqlite"

    def __init__(self, path: str) -> None:
        self.path = path
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, value TEXT)")
            connection.execute("INSERT INTO things VALUES (1, ?)", (OLD,))
            connection.commit()

    def open(self) -> Any:
        return SqliteParticipant(self.name, self.path)

    async def write(self, branch: Any, value: str = NEW) -> None:
        await branch.execute("UPDATE things SET value = ? WHERE id = 1", (value,))

    async def read(self) -> Any:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute("SELECT value FROM things").fetchone()[0]

    def die(self, participant: Any) -> None:
        for branch in participant._branches.values():
            if branch._connection is not None:
                branch._connection.close()


class LastPlace(SqlitePlace):
    """The file of the log itself."""

    name = "last"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.log = SqliteLog(path)

    def open(self) -> Any:
        return SqliteLastResource(self.name, self.log)


class PostgresPlace(Place):
    def __init__(self, dsn: str, name: str | None = None) -> None:
        self.dsn = dsn
        # Promises are seen by all of a server, so each test has a name of its own.
        self.name = name or f"pg-{uuid4().hex[:12]}"
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, value TEXT)")
            connection.execute("INSERT INTO things VALUES (1, %s)", (OLD,))

    def open(self) -> PostgresParticipant:
        return PostgresParticipant(self.name, self.dsn)

    async def write(self, branch: Any, value: str = NEW) -> None:
        await branch.execute("UPDATE things SET value = %s WHERE id = 1", (value,))

    async def read(self) -> Any:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            row = connection.execute("SELECT value FROM things").fetchone()
        assert row is not None
        return row[0]

    async def lose(self, gid: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            ours = "SELECT gid FROM pg_prepared_xacts WHERE split_part(gid, '.', 3) = %s"
            for (label,) in connection.execute(ours, (self.name,)).fetchall():
                connection.execute(f"ROLLBACK PREPARED '{label}'".encode())

    def die(self, participant: Any) -> None:
        for branch in participant._branches.values():
            if branch._connection is not None:
                branch._connection.pgconn.finish()


def place_of(request: pytest.FixtureRequest, kind: str) -> Place:
    """Return a place that nobody has used before."""
    if kind == "memory":
        return MemoryPlace()
    if kind == "sqlite":
        return SqlitePlace(str(request.getfixturevalue("tmp_path") / "things.db"))
    if kind == "last":
        return LastPlace(str(request.getfixturevalue("tmp_path") / "decisions.db"))
    if kind == "postgres":
        return PostgresPlace(database_of(request, "psycopg").place)
    return RedisPlace(
        "memory://" if kind == "redis-memory" else request.getfixturevalue("redis_url")
    )


class World:
    """Two places, a log, and coordinators that come and go."""

    def __init__(self, place: Place, other: Place, log_path: str) -> None:
        self.place = place
        self.other = other
        self.places = [place, other]
        self.log_path = log_path
        self.gid = ""
        self.coordinators: list[TwoPhaseCommit] = []

    def log(self) -> SqliteLog:
        return self.place.log if isinstance(self.place, LastPlace) else SqliteLog(self.log_path)

    async def run(self, life: Life | None = None, *, timeout: float = 30.0) -> None:
        """Commit one transaction as a process does that may die; raises what its caller sees."""
        life = life or Life()
        inner = [place.open() for place in self.places]
        if isinstance(self.place, LastPlace):  # not mortal: it is its commit that matters
            seen = [inner[0], Mortal(inner[1], life, inner[1].name)]
            log: Any = self.place.log
        else:
            seen = [Mortal(each, life, each.name) for each in inner]
            log = Mortal(self.log(), life, "log")
        transfers = TwoPhaseCommit(log, seen, timeout=timeout)
        self.coordinators.append(transfers)
        try:
            async with transfers.transaction() as tx:
                self.gid = tx.gid
                for place, participant in zip(self.places, seen, strict=True):
                    await place.write(tx[participant])
        finally:
            if life.dead:
                for place, participant in zip(self.places, inner, strict=True):
                    place.die(participant)

    async def recover(self, *, timeout: float = 1e-9) -> RecoveryReport:
        """Recover as another process does, when the transaction's time is over."""
        recoverer = TwoPhaseCommit(
            self.log(), [each.open() for each in self.places], timeout=timeout
        )
        while (report := await recoverer.recover_once()).pending:
            await sleep(0.002)  # clocks have a resolution
        return report

    async def values(self) -> tuple[Any, Any]:
        return await self.place.read(), await self.other.read()

    async def assert_at_rest(self) -> None:
        """Nothing is in doubt, and there is nothing to recover."""
        for place in self.places:
            assert await place.open().in_doubt() == ([] if place.name != "last" else ())
        await self.recover()  # ends that were gathered, and lost with their process, are written
        report = await self.recover()
        assert report == RecoveryReport()
