"""Two-phase commit under SIGKILL: coordinators, PostgreSQL, and both at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import anyio
import psycopg
import pytest

from aiopatterns.core.errors import AioPatternsError, OutcomeUnknownError
from aiopatterns.data import Decision, PostgresLog, SqliteLog, TwoPhaseCommit
from aiopatterns.testing import PostgresServer
from tests.data.twophaseplaces import Life, Mortal
from tests.data.twophaseprocess import ACCOUNTS, GIVE, TAKE, places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
START = 1_000

# Letter of the table, where the coordinator is, and whether the transfer is made in the end.
POINTS = [
    ("a", ("prepare", "a", "before"), False),
    ("b", ("prepare", "a", "after"), False),
    ("b", ("prepare", "b", "after"), False),
    ("d", ("decide", "log", "before"), False),
    ("e", ("decide", "log", "after"), True),
    ("f", ("commit", "a", "before"), True),
    ("g", ("commit", "a", "after"), True),
    ("g", ("commit", "b", "after"), True),
    ("i", ("end", "log", "before"), True),
]


class Bank:
    """Two databases on one server that may be killed, with accounts in each, and a log."""

    def __init__(self, server: PostgresServer, log: str) -> None:
        self.server = server
        self.log = log
        self.dsns = [server.dsn_of(name) for name in ("a", "b")]

    def reset(self) -> None:
        with psycopg.connect(self.server.dsn, autocommit=True) as admin:
            for name in ("a", "b"):
                admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
                admin.execute(f"CREATE DATABASE {name}".encode())
        for dsn in self.dsns:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("CREATE TABLE accounts (id INT PRIMARY KEY, balance INT)")
                rows = f"INSERT INTO accounts SELECT n, {START} FROM generate_series(0, {ACCOUNTS - 1}) n"
                connection.execute(rows.encode())

    def sums(self) -> list[int]:
        found = []
        for dsn in self.dsns:
            with psycopg.connect(dsn, autocommit=True) as connection:
                row = connection.execute("SELECT sum(balance) FROM accounts").fetchone()
                assert row is not None
                found.append(int(row[0]))
        return found

    def promises(self) -> int:
        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            row = connection.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone()
        assert row is not None
        return int(row[0])

    def made(self) -> int:
        """Return how many transfers of storms have committed."""
        count = Path(f"{self.log}-count")
        return count.stat().st_size if count.exists() else 0

    def wait_for(self, more: int, seconds: float) -> None:
        """Wait until so many more have committed, or for so long."""
        wanted, until = self.made() + more, monotonic() + seconds
        while self.made() < wanted and monotonic() < until:
            sleep(0.01)

    async def recover(self, log: Any = None) -> Any:
        """Recover as a process does that was started after everything has died."""
        recoverer = TwoPhaseCommit(log or SqliteLog(self.log), places(self.dsns), timeout=1e-9)
        while (report := await recoverer.recover_once()).pending:
            await anyio.sleep(0.01)
        return report


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as each:
        yield each


@pytest.fixture
def bank(server, tmp_path) -> Bank:
    bank = Bank(server, str(tmp_path / "log.db"))
    bank.reset()
    return bank


@pytest.fixture
def nursery(bank) -> Iterator[Callable[[str], int]]:
    """A process that forks coordinators; called with a line, it returns the id of one."""
    command = [sys.executable, "-m", "tests.data.twophaseprocess", bank.log, *bank.dsns]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(line: str) -> int:
            if line:
                stdin.write(f"{line}\n")
                stdin.flush()
            return int(stdout.readline())

        yield ask
        stdin.close()


@pytest.mark.promise("data-2pc-kills", "data-2pc-crash-table")
def test_a_coordinator_is_killed_at_every_point(bank, nursery):
    made = 0
    for letter, point, committed in POINTS:
        nursery(f"transfer {' '.join(point)}")
        assert nursery("") == signal.SIGKILL, (letter, point)
        anyio.run(bank.recover)
        made += committed
        assert bank.sums() == [START * ACCOUNTS - 10 * made, START * ACCOUNTS + 10 * made], point
        assert not bank.promises(), point


@pytest.mark.promise("data-2pc-kills", "data-2pc-crash-table")
@pytest.mark.parametrize("where", ["sqlite", "postgres"])
def test_postgresql_is_killed_at_every_point(bank, where):
    """With the log there as well, its death takes the decision, the answer, or neither."""
    asked: list[tuple[str, str, str]] = [point for _, point, _ in POINTS]
    points = asked if where == "sqlite" else asked[3:6]
    made = 0
    for point in points:
        gid = anyio.run(_killed_under, bank, where, point)
        log = PostgresLog(bank.server.dsn) if where == "postgres" else SqliteLog(bank.log)
        anyio.run(bank.recover, log)
        decision = anyio.run(log.read, gid)
        made += decision is not None and decision.decision is Decision.COMMIT
        assert bank.sums() == [START * ACCOUNTS - 10 * made, START * ACCOUNTS + 10 * made], point
        assert not bank.promises(), point
    assert made


async def _killed_under(bank: Bank, where: str, point: tuple[str, str, str]) -> str:
    """Make a transfer while the server is killed and started again at a point of it."""
    inner: Any = PostgresLog(bank.server.dsn) if where == "postgres" else SqliteLog(bank.log)

    async def killed() -> None:
        bank.server.kill()
        bank.server.restart()

    life = Life(point, killed)
    seen: list[Any] = [Mortal(each, life, each.name) for each in places(bank.dsns)]
    log: Any = Mortal(inner, life, "log")
    transfers = TwoPhaseCommit(log, seen)
    gid = ""
    try:
        async with transfers.transaction() as tx:
            gid = tx.gid
            await tx[seen[0]].execute(TAKE, (10, 1))
            await tx[seen[1]].execute(GIVE, (10, 1))
    except OutcomeUnknownError as error:
        assert error.gid == gid
    except AioPatternsError as error:
        assert point[0] in {"prepare", "decide"}, error
    assert life.reached, point
    await inner.aclose()
    return gid


@pytest.mark.promise("data-2pc-transfer", "data-2pc-kills")
def test_the_sum_never_changes_under_random_kills(bank, nursery):
    """Fifty transfers at once; coordinators and the server are killed in the middle."""
    for number in range(3):
        child = nursery("storm")
        # Behind the first, what is in doubt keeps rows locked, so a storm may come to rest.
        bank.wait_for(60, 1.0 if number else 30.0)
        if number == 1:
            bank.server.kill()
            bank.server.restart()
            bank.wait_for(20, 0.5)
        os.kill(child, signal.SIGKILL)
        assert nursery("") == signal.SIGKILL
    left = bank.promises()
    report = anyio.run(bank.recover)
    made = bank.made()
    print(f"{made} transfers, {left} promises were left, {len(report.committed)} committed")
    assert made > 50
    assert not report.heuristic
    assert not bank.promises()
    assert sum(bank.sums()) == 2 * START * ACCOUNTS
