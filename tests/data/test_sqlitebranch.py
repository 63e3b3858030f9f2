"""Work in SQLite: in turns, noted as it goes, and only what can be promised."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.completion import to_the_end
from aiopatterns.core.errors import ClosedError
from aiopatterns.data import SqliteBranch, sqlitebranch
from aiopatterns.data.sqlitebranch import SqliteTurns, commit_work, connect_durably, undo_work
from aiopatterns.testing import Trial, cancel_everywhere

ADD = "INSERT INTO things (value) VALUES (?)"


@pytest.fixture
def path(tmp_path) -> str:
    return made(str(tmp_path / "things.db"))


def made(path: str) -> str:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, value TEXT)")
        connection.execute("CREATE TABLE others (id INTEGER PRIMARY KEY)")
        connection.execute("CREATE TABLE aiopatterns_marks (gid TEXT)")
        connection.execute("CREATE TABLE log (id INTEGER PRIMARY KEY)")
        connection.execute(
            "CREATE TRIGGER noted AFTER DELETE ON things BEGIN INSERT INTO log VALUES (NULL); END"
        )
    return path


def made_branch(path: str, turns: SqliteTurns | None = None, *locked: bool) -> SqliteBranch:
    answers = [*locked]
    return SqliteBranch(
        path, turns or SqliteTurns(), is_locked=lambda _: bool(answers and answers.pop(0))
    )


def values(path: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return [value for (value,) in connection.execute("SELECT value FROM things")]


async def test_what_is_touched_is_noted(path):
    branch = made_branch(path)
    await branch.execute("SELECT count(*) FROM others")
    assert (branch.statements, branch.tables) == ([], set())
    copy = "INSERT INTO things (value) SELECT id FROM others"
    await branch.execute(copy)
    await branch.execute(ADD.replace("?", ":a"), {"a": 1})
    await branch.execute("DELETE FROM things")
    assert branch.statements == [
        (copy, ()),
        (ADD.replace("?", ":a"), {"a": 1}),
        ("DELETE FROM things", ()),
    ]
    assert branch.tables == {"things", "others", "log"}, "and what triggers touch"
    await branch.finish(undo_work)
    assert values(path) == []


async def test_commits_are_on_the_disk(path):
    with closing(connect_durably(path)) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)
    branch = made_branch(path)
    assert (await branch.execute(ADD, ("a",))).changed == 1
    await branch.finish(commit_work)
    assert values(path) == ["a"]


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT a",
        "PRAGMA synchronous = OFF",
        "CREATE TABLE x (id)",
        "DROP TABLE things",
        "ATTACH 'x.db' AS x",
        "CREATE TEMP TABLE x (id)",
        "DELETE FROM aiopatterns_marks",
    ],
)
async def test_what_is_not_for_a_transaction_is_refused(path, statement):
    branch = made_branch(path)
    with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|prohibited"):
        await branch.execute(statement)
    await branch.execute(ADD, ("a",))  # the others go on
    await branch.finish(commit_work)
    assert values(path) == ["a"]


async def test_transactions_take_turns(path):
    turns = SqliteTurns()
    order: list[int] = []

    async def work(number: int) -> None:
        branch = made_branch(path, turns)
        await branch.execute(ADD, (number,))
        order.append(number)
        await sleep(0.001)
        order.append(number)
        await branch.finish(commit_work)

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(work, number)
    assert order[::2] == order[1::2]
    assert len(values(path)) == 4


async def test_the_turn_of_another_is_not_given_away():
    turns = SqliteTurns()
    mine, other = object(), object()
    await turns.take(mine)
    await turns.take(mine)
    turns.give(other)
    with anyio.move_on_after(0.01) as scope:
        await turns.take(other)
    assert scope.cancelled_caught
    turns.give(mine)
    await turns.take(other)


async def test_it_waits_for_those_in_doubt_but_not_for_ever(path, monkeypatch):
    branch = made_branch(path, None, True, True)
    await branch.execute(ADD, ("a",))
    await branch.finish(commit_work)
    monkeypatch.setattr(sqlitebranch, "LOCKED_WITHIN", 0.0)
    branch = made_branch(path, None, True)
    await branch.execute(ADD, ("b",))
    await branch.finish(commit_work)
    assert values(path) == ["a", "b"]


@pytest.mark.real
async def test_a_file_that_others_write_for_too_long(path, monkeypatch):
    monkeypatch.setattr(sqlitebranch, "BUSY_WITHIN", 0.02)
    branch = made_branch(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await branch.execute(ADD, ("a",))
    await branch.execute(ADD, ("b",))
    await branch.finish(commit_work)
    assert values(path) == ["b"]


async def test_what_fails_at_the_end_is_rolled_back(path):
    branch = made_branch(path)
    await branch.execute(ADD, ("a",))

    def wrong(_: sqlite3.Connection) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await branch.finish(wrong)
    assert values(path) == []
    with pytest.raises(ClosedError, match="over"):
        await branch.execute(ADD, ("a",))
    assert await branch.finish(commit_work) is None


async def test_values_that_could_not_be_written_down_are_refused(path):
    branch = made_branch(path)
    with pytest.raises(TypeError, match="values must be"):
        await branch.execute(ADD, (object(),))
    with pytest.raises(TypeError, match="values must be"):
        await branch.execute(ADD, {"a": []})
    await branch.execute(ADD, (b"bytes",))
    await branch.finish(undo_work)


def test_the_file_is_free_wherever_the_caller_is_cancelled(tmp_path):
    numbers = iter(range(10_000))

    def scenario() -> Trial:
        path = made(str(tmp_path / f"{next(numbers)}.db"))
        branch = made_branch(path)

        async def work() -> None:
            try:
                await branch.execute(ADD, ("a",))
                await branch.execute(ADD, ("b",))
            finally:
                await to_the_end(lambda: branch.finish(undo_work))

        def check() -> None:
            with closing(sqlite3.connect(path, timeout=0)) as connection, connection:
                assert connection.execute(ADD, ("free",)).rowcount == 1

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope"), minimum=2)
