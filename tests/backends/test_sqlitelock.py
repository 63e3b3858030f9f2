from __future__ import annotations

import sqlite3
import subprocess
import sys

import pytest

from aiopatterns.backends.sqlitelock import SqliteLock


def test_one_at_a_time(tmp_path):
    path = str(tmp_path / "lock")
    first, second = SqliteLock(path), SqliteLock(path)
    assert first.try_acquire()
    assert not second.try_acquire()
    assert not second.try_acquire()
    second.release()  # never held: nothing happens
    first.release()
    first.release()
    assert second.try_acquire()
    second.release()


def test_the_file_holds_nothing(tmp_path):
    path = tmp_path / "lock"
    lock = SqliteLock(str(path))
    assert lock.try_acquire()
    lock.release()
    assert path.stat().st_size == 0
    assert [each.name for each in tmp_path.iterdir()] == ["lock"]


def test_a_file_that_cannot_be_made_is_an_error(tmp_path):
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        SqliteLock(str(tmp_path / "none" / "lock")).try_acquire()


def test_a_file_that_is_something_else_is_an_error(tmp_path):
    path = tmp_path / "lock"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        SqliteLock(str(path)).try_acquire()
    assert path.read_bytes() == b"something else" * 100


HOLDER = """
import sys, time
from aiopatterns.backends.sqlitelock import SqliteLock
lock = SqliteLock(sys.argv[1])
print(lock.try_acquire(), flush=True)
time.sleep(60)
"""


@pytest.mark.real
def test_a_killed_process_gives_it_back(tmp_path):
    path = str(tmp_path / "lock")
    lock = SqliteLock(path)
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        assert not lock.try_acquire()
        holder.kill()
    assert lock.try_acquire()
    lock.release()
