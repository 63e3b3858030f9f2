from __future__ import annotations

import sqlite3

import pytest

from aiopatterns.backends.dialects import POSTGRESQL, SQLITE, dialect_named, table_name


def test_dialects_are_known_by_the_names_of_drivers():
    assert dialect_named("postgresql") is POSTGRESQL
    assert dialect_named("sqlite") is SQLITE
    with pytest.raises(ValueError, match="to 'postgresql' or 'sqlite', not to 'mysql'"):
        dialect_named("mysql")


def test_statements_are_worded():
    statement = "SELECT {now} FROM {table} WHERE id {among}{skip_locked}"
    assert POSTGRESQL.worded(statement, "app.things") == (
        "SELECT CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"
        ' FROM "app"."things" WHERE id = ANY(:many) FOR UPDATE SKIP LOCKED'
    )
    assert SQLITE.worded(statement, "things") == (
        "SELECT ((julianday('now') - 2440587.5) * 86400.0)"
        ' FROM "things" WHERE id IN (SELECT value FROM json_each(:many))'
    )
    assert POSTGRESQL.worded("{serial} {blob}", "t").endswith("PRIMARY KEY BYTEA")


def test_a_list_is_one_value():
    assert POSTGRESQL.many((1, 2)) == [1, 2]
    assert SQLITE.many(("a", 'b"')) == '["a", "b\\""]'
    with sqlite3.connect(":memory:") as connection:
        found = connection.execute(
            "SELECT column1 FROM (VALUES ('a'), ('b\"'), ('c')) WHERE column1 "
            + SQLITE.worded("{among}", "t"),
            {"many": SQLITE.many(("a", 'b"'))},
        ).fetchall()
    connection.close()
    assert found == [("a",), ('b"',)]


def test_creating_is_one_statement_where_creators_are_in_each_others_way():
    assert SQLITE.creation(["a", "b"]) == ("a", "b")
    (one,) = POSTGRESQL.creation(["a", "b"])
    assert one.startswith("DO $$ BEGIN PERFORM pg_advisory_xact_lock(")
    assert one.endswith("; a; b; END $$")


@pytest.mark.parametrize("name", ["t", "_t9", "app.Outbox", "a" * 63, f"{'a' * 63}.{'b' * 63}"])
def test_names_of_tables(name):
    assert table_name("table", name) == name


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("", ValueError),
        ("9t", ValueError),
        ("a.b.c", ValueError),
        (".a", ValueError),
        ("a b", ValueError),
        ('a"; drop table b; --', ValueError),
        ("a\n", ValueError),
        ("{now}", ValueError),
        ("größe", ValueError),
        ("a" * 64, ValueError),
        (None, TypeError),
        (b"t", TypeError),
    ],
)
def test_what_is_no_name_of_a_table_is_refused(name, error):
    with pytest.raises(error, match=r"^table must be"):
        table_name("table", name)
