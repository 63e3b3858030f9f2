from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Event

import psycopg
import pytest

from aiopatterns.backends.redis.process import ServerProcess
from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import BackendUnavailableError, ClosedError
from aiopatterns.testing import postgres
from aiopatterns.testing.postgres import PostgresServer
from aiopatterns.testing.proxy import FaultProxy

pytestmark = pytest.mark.real

PAUSE = Event().wait


@pytest.fixture(scope="module")
def server():
    with PostgresServer(config={"max_connections": "20"}) as started:
        yield started


def ask(server, question, database="postgres"):
    with psycopg.connect(server.dsn_of(database), autocommit=True) as connection:
        return connection.execute(question).fetchall()


def do(server, statement):
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(statement)


def test_it_serves_and_can_commit_in_two_phases(server):
    assert ask(server, "show max_prepared_transactions") == [("100",)]
    assert ask(server, "show max_connections") == [("20",)]
    assert ask(server, "show listen_addresses") == [("",)]
    with pytest.raises(RuntimeError, match="runs already"):
        server.start()


def test_databases_are_reached_by_name(server):
    do(server, "create database other")
    assert ask(server, "select current_database()", "other") == [("other",)]


def test_what_was_committed_is_there_after_a_kill(server):
    do(server, "create table kept (n int)")
    with psycopg.connect(server.dsn) as connection:
        connection.execute("insert into kept values (1)")
        connection.commit()
        connection.execute("insert into kept values (2)")
        connection.execute("prepare transaction 'two'")
        dsn = server.dsn
        server.kill()
        assert not server.running
        connection.close()
    server.restart()
    assert server.dsn == dsn
    assert ask(server, "select n from kept") == [(1,)]
    assert ask(server, "select gid from pg_prepared_xacts") == [("two",)]
    do(server, "commit prepared 'two'")
    server.restart()  # also one that runs
    assert ask(server, "select n from kept order by n") == [(1,), (2,)]


def test_a_paused_server_takes_no_connections(server):
    server.pause()
    assert server.running
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.dsn, connect_timeout=2)
    server.resume()
    assert ask(server, "select 1") == [(1,)]


def test_a_standby_follows_until_it_is_promoted(server):
    with PostgresServer(standby_of=server, config={"max_connections": "20"}) as standby:
        assert ask(standby, "select pg_is_in_recovery()") == [(True,)]
        do(server, "create table followed (n int)")
        until = monotonic() + 10
        while not ask(standby, "select to_regclass('followed') is not null")[0][0]:
            assert monotonic() < until
            PAUSE(0.01)
        assert ask(standby, "select pg_promote()") == [(True,)]
        do(standby, "insert into followed values (1)")
    assert ask(server, "select n from followed") == []


async def test_the_proxy_loses_the_reply_to_a_commit(server):
    async with FaultProxy(server.socket_url, framing="chunk") as proxy:
        folder = Path(proxy.url.removeprefix("unix://")).parent
        dsn = f"postgresql://postgres@/postgres?host={folder}"
        connection = await psycopg.AsyncConnection.connect(dsn)
        table = f"lost{id(connection)}"
        await connection.execute(f"create table {table} (n int)")
        fault = proxy.drop_replies(matching=lambda request: b"COMMIT" in request.upper())
        with pytest.raises(psycopg.OperationalError):
            await connection.commit()
        await connection.close()
    assert fault.hits == 1
    assert ask(server, f"select count(*) from {table}") == [(0,)]


def test_a_server_that_was_killed_before_it_had_written_its_lock_starts_again():
    with PostgresServer() as server:
        home = Path(server.socket_url.removeprefix("unix://")).parent
        server.kill()
        (lock,) = home.rglob("postmaster.pid")
        lock.write_text("")
        (home / ".s.PGSQL.5432.lock").write_text("")
        server.restart()
        assert ask(server, "select 1") == [(1,)]


def test_processes_that_are_still_there_are_waited_for(monkeypatch):
    starting, tries = ServerProcess.starting, []

    def once_more(self, what, answers, timeout):
        tries.append(what)
        if len(tries) <= fail:
            self.kill()
            raise BackendUnavailableError("pre-existing shared memory block is still in use")
        yield from starting(self, what, answers, timeout)

    monkeypatch.setattr(ServerProcess, "starting", once_more)
    fail = 1
    with PostgresServer() as server:
        assert len(tries) == 2
        home = Path(server.socket_url.removeprefix("unix://")).parent
        assert home.stat().st_mode & 0o777 == 0o700
        monkeypatch.setattr(postgres, "_TRIES", 3)
        tries.clear()
        fail = 99
        with pytest.raises(BackendUnavailableError, match="still in use"):
            server.restart()
        assert len(tries) == 3
        fail = 0
        server.restart()
        assert ask(server, "select 1") == [(1,)]
        pid = server.pid
    assert not server.running
    assert not home.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_wrong_setting_is_told_in_its_last_words():
    server = PostgresServer(config={"no_such_thing": "1"})
    with pytest.raises(BackendUnavailableError, match="no_such_thing"):
        server.start()
    with pytest.raises(ClosedError):
        _ = server.dsn


def test_initdb_that_fails(tmp_path, monkeypatch):
    (tmp_path / "initdb").write_text("#!/bin/sh\necho no room\nexit 1\n", "utf-8")
    (tmp_path / "initdb").chmod(0o755)
    monkeypatch.setattr(postgres, "_candidates", lambda: iter([Path("/nowhere"), tmp_path]))
    monkeypatch.setattr(postgres, "_unprivileged", lambda: None)
    with pytest.raises(BackendUnavailableError, match="no room"):
        PostgresServer().start()


def test_where_it_is_not_installed_the_error_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postgres, "_PLACES", tmp_path)
    with pytest.raises(BackendUnavailableError, match="install postgresql"):
        PostgresServer().start()


def test_the_newest_release_is_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    for release in ("9.6", "15", "14"):
        (tmp_path / release / "bin").mkdir(parents=True)
        (tmp_path / release / "bin" / "initdb").touch()
    monkeypatch.setattr(postgres, "_PLACES", tmp_path)
    assert postgres._find_programs() == tmp_path / "15" / "bin"


def test_it_never_runs_as_root(monkeypatch):
    import pwd

    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwall", lambda: [pwd.getpwnam("nobody")])
    assert postgres._unprivileged() == "nobody"
    monkeypatch.setattr(pwd, "getpwall", list)
    with pytest.raises(BackendUnavailableError, match="no user postgres or nobody"):
        postgres._unprivileged()
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert postgres._unprivileged() is None


def test_what_is_not_started_says_how():
    server = PostgresServer()
    assert not server.running
    server.stop()
    for use in (lambda: server.dsn, lambda: server.pid, server.kill, server.restart):
        with pytest.raises(ClosedError, match="with PostgresServer"):
            use()
    with pytest.raises(ValueError, match="start_timeout"):
        PostgresServer(start_timeout=0)


PARENT = """
import os, signal
from aiopatterns.testing.postgres import PostgresServer
server = PostgresServer()
server.start()
print(server.socket_url.removeprefix("unix://"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.promise("testing-server-no-orphan")
def test_a_server_does_not_outlive_a_killed_parent():
    done = subprocess.run(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, check=False, timeout=30
    )
    home = Path(done.stdout.strip()).parent
    until = monotonic() + 5
    while home.exists() and monotonic() < until:
        PAUSE(0.01)
    assert not home.exists()
