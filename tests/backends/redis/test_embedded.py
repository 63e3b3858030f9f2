from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from threading import Event

import pytest
from anyio import create_task_group, move_on_after

from aiopatterns.backends.redis.binaries import installed_binaries
from aiopatterns.backends.redis.embedded import EXISTING, RedisServer
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError

pytestmark = pytest.mark.real

PAUSE = Event().wait


def test_a_private_server_comes_and_goes():
    server = RedisServer(private=True)
    assert not server.running
    server.start()
    assert server.running
    assert server.private
    home = Path(server.url.removeprefix("unix://")).parent
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "r.sock").stat().st_mode & 0o777 == 0o700
    assert server.command("SET", "k", 1) == "OK"
    assert server.command("CONFIG", "GET", "port") == ["port", "0"]
    pid = server.pid
    server.stop()
    assert not server.running
    assert not home.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    server.stop()


def test_it_may_be_started_again_and_is_empty_then():
    server = RedisServer(private=True)
    for _ in range(2):
        with server:
            assert server.command("DBSIZE") == 0
            server.command("SET", "k", 1)
            with pytest.raises(RuntimeError, match="runs already"):
                server.start()
            assert server.command("GET", "k") == "1"


@pytest.mark.parametrize("version", sorted({each.version for each in installed_binaries()}))
def test_every_installed_version_serves(version):
    with RedisServer(version=version, config={"appendonly": "yes"}) as server:
        assert server.version == version
        server.command("SET", "k", "v")
        server.kill()
        server.restart()
        assert server.command("GET", "k") == "v"


async def test_asynchronous_life_lets_others_run(monkeypatch):
    turns = 0
    answers, looks = RedisServer._answers, iter(range(5))
    monkeypatch.setattr(
        RedisServer, "_answers", lambda self: next(looks, None) is None and answers(self)
    )

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await sleep(0.001)

    async with create_task_group() as tg:
        tg.start_soon(others)
        async with RedisServer(private=True) as server:
            assert turns > 1
            assert server.command("PING") == "PONG"
        tg.cancel_scope.cancel()
    assert not server.running


async def test_a_cancelled_start_leaves_no_server(monkeypatch):
    pids = []
    spawn = RedisServer._spawn

    def noting(self):
        process = spawn(self)
        pids.append(process.pid)
        return process

    monkeypatch.setattr(RedisServer, "_spawn", noting)
    monkeypatch.setattr(RedisServer, "_answers", lambda self: False)
    server = RedisServer(private=True)
    with move_on_after(0.05) as scope:
        async with server:
            pass
    assert scope.cancelled_caught
    assert not server.running
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    with pytest.raises(ClosedError):
        _ = server.url


async def test_a_cancelled_stop_kills_the_server(tmp_path):
    server = RedisServer(tmp_path)
    with move_on_after(10) as scope:
        async with server:
            pid = server.pid
            scope.cancel()
    assert not server.running
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_killed_and_restarted_the_url_and_what_was_acknowledged_stay():
    with RedisServer(config={"appendonly": "yes", "appendfsync": "always"}) as server:
        url, pid = server.url, server.pid
        for n in range(50):
            server.command("RPUSH", "l", n)
        server.kill()
        assert not server.running
        with pytest.raises(BackendUnavailableError):
            server.command("PING")
        server.restart()
        assert (server.url, server.command("LLEN", "l")) == (url, 50)
        assert server.pid != pid
        server.restart()  # also one that runs
        assert server.command("LLEN", "l") == 50


def test_a_paused_server_answers_later(redis_url):
    with RedisServer(private=True) as server:
        server.pause()
        with Wire(server.url, timeout=0.05) as wire:
            with pytest.raises(BackendUnavailableError, match="timed out"):
                wire.call("PING")
        server.resume()
        assert server.command("PING") == "PONG"
        server.pause()
        assert server.running


def test_a_paused_server_stops_in_good_order(tmp_path):
    with RedisServer(tmp_path, config={"save": "3600 1"}) as server:
        server.command("SET", "k", "v")
        server.pause()
    with RedisServer(tmp_path) as server:
        assert server.command("GET", "k") == "v"


def test_data_stays_where_it_is_told_to(tmp_path):
    data = tmp_path / "deep" / "data"
    with RedisServer(data, config={"appendonly": "yes"}) as server:
        server.command("SET", "k", "v")
        began = monotonic()
        with pytest.raises(BackendUnavailableError, match="in use by another server"):
            RedisServer(data).start()
        assert 0.5 < monotonic() - began < 5
        assert server.command("GET", "k") == "v"
    assert data.is_dir()
    with RedisServer(data, config={"appendonly": "yes"}) as server:
        assert server.command("GET", "k") == "v"


def test_a_port_when_asked_for():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with RedisServer(port=port) as server:
        with Wire(server.tcp_url) as wire:
            assert wire.call("PING") == "PONG"
        with pytest.raises(ValueError, match=r"RedisServer\(port=\.\.\.\)"):
            _ = RedisServer().tcp_url
        with pytest.raises(BackendUnavailableError, match="in use"):
            RedisServer(port=port).start()


def test_memory_limits_and_policies_are_as_asked_for():
    config = {"maxmemory": "2mb", "maxmemory-policy": "noeviction"}
    with RedisServer(config=config) as server, pytest.raises(BackendError, match="OOM"):
        for n in range(100):
            server.command("SET", n, b"x" * 100_000)


def test_a_password_does_not_keep_it_from_starting():
    with RedisServer(config={"requirepass": "secret"}) as server:
        with pytest.raises(BackendError, match="NOAUTH"):
            server.command("PING")
        with Wire(server.url.replace("unix://", "unix://:secret@")) as wire:
            assert wire.call("PING") == "PONG"


def test_a_start_that_fails_tells_the_last_words():
    server = RedisServer(config={"appendonly": "perhaps"})
    with pytest.raises(BackendUnavailableError, match="argument must be 'yes' or 'no'") as caught:
        server.start()
    assert "did not start" in str(caught.value)
    with pytest.raises(ClosedError):
        _ = server.url


def test_a_server_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(RedisServer, "_answers", lambda self: False)
    server = RedisServer(private=True, start_timeout=0.05)
    with pytest.raises(BackendUnavailableError, match=r"did not answer within 0\.05 s"):
        server.start()
    assert not server.running


def test_a_failed_restart_keeps_the_data_for_another_try(monkeypatch):
    with RedisServer(config={"appendonly": "yes"}) as server:
        server.command("SET", "k", "v")
        with monkeypatch.context() as patch:
            patch.setattr(RedisServer, "_answers", lambda self: False)
            patch.setattr(server, "_start_timeout", 0.05)
            with pytest.raises(BackendUnavailableError):
                server.restart()
        assert not server.running
        server.restart()
        assert server.command("GET", "k") == "v"


def test_a_server_that_loads_is_not_there_yet(monkeypatch):
    answers = [BackendError("LOADING Redis is loading the dataset in memory"), "PONG"]

    def call(self, *words):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Wire, "call", call)
    with RedisServer(private=True):
        assert answers == []


def test_without_any_server_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("aiopatterns.backends.redis.binaries._candidates", lambda: iter(()))
    with pytest.raises(BackendUnavailableError, match=r"aiopatterns\[embedded\]"):
        RedisServer(private=True).start()


def test_what_was_never_started_says_how():
    server = RedisServer()
    for use in (lambda: server.url, lambda: server.pid, server.kill, server.restart, server.pause):
        with pytest.raises(ClosedError, match="with RedisServer"):
            use()
    server.stop()


@pytest.mark.promise("testing-bad-input")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"port": -1}, "port"),
        ({"port": 65536}, "between 0 and 65535"),
        ({"version": ""}, "version"),
        ({"start_timeout": 0}, "start_timeout"),
        ({"config": {"dir": "x", "port": "1"}}, "leave dir, port to"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-",
)
def test_wrong_arguments_are_refused_by_name(wrong, says):
    with pytest.raises(ValueError, match=says):
        RedisServer(**wrong)


def test_a_long_temporary_path_is_avoided(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with RedisServer(private=True) as server:
        assert len(server.url) < 60
        assert list(long.iterdir()) == []


class TestExisting:
    @pytest.fixture
    def existing(self, monkeypatch):
        with RedisServer(private=True) as other:
            monkeypatch.setenv(EXISTING, other.url)
            yield other

    @pytest.mark.promise("testing-server-kept")
    def test_it_is_used_and_left_alone(self, existing):
        with RedisServer() as server:
            assert server.url == existing.url
            assert server.running
            assert not server.private
            assert server.version == existing.version
            server.command("SET", "k", 1)
            for hurt in (server.kill, server.restart, server.pause, lambda: server.pid):
                with pytest.raises(RuntimeError, match=r"RedisServer\(private=True\)"):
                    hurt()
            with pytest.raises(RuntimeError, match="runs already"):
                server.start()
        assert not server.running
        assert existing.command("GET", "k") == "1"

    def test_who_needs_one_of_his_own_gets_it(self, existing, tmp_path):
        for own in (
            RedisServer(private=True),
            RedisServer(tmp_path),
            RedisServer(config={"hz": "50"}),
        ):
            with own:
                assert own.private
                assert own.url != existing.url

    def test_one_that_is_not_there_is_an_error(self, monkeypatch):
        monkeypatch.setenv(EXISTING, "unix:///nowhere/r.sock")
        with pytest.raises(BackendUnavailableError, match="/nowhere"):
            RedisServer().start()


def test_who_forgets_to_stop_it_is_told_and_it_is_stopped():
    server = RedisServer(private=True)
    server.start()
    pid, home = server.pid, Path(server.url.removeprefix("unix://")).parent
    held = [server]
    del server
    with pytest.warns(ResourceWarning, match="was never stopped"):
        held.clear()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not home.exists()


def test_a_forked_child_does_not_stop_its_parents_server():
    with RedisServer(private=True) as server:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fork beside threads
            child = os.fork()
        if not child:
            try:
                server.__del__()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert server.command("PING") == "PONG"


PARENT = """
import os, signal
from aiopatterns.backends.redis.embedded import RedisServer
server = RedisServer(private=True)
server.start()
print(server.pid, server.url.removeprefix("unix://"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.promise("testing-server-no-orphan")
def test_a_server_does_not_outlive_a_killed_parent():
    done = subprocess.run(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, check=False, timeout=30
    )
    assert done.returncode == -signal.SIGKILL
    pid, socket_path = done.stdout.split()
    until = monotonic() + 5
    while Path(socket_path).parent.exists() and monotonic() < until:
        PAUSE(0.005)
    assert not Path(socket_path).parent.exists()
    with pytest.raises(BackendUnavailableError):
        Wire(f"unix://{socket_path}")
    assert b"redis-server" not in (_command_line(pid))


KEEPER = """
import os, signal, sys
from aiopatterns.backends.redis.embedded import RedisServer
server = RedisServer(sys.argv[1], config={"appendonly": "yes"})
server.start()
server.command("SET", "k", "v")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_who_comes_right_after_a_killed_process_finds_its_data(tmp_path):
    done = subprocess.run([sys.executable, "-c", KEEPER, str(tmp_path)], check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL
    with RedisServer(tmp_path, config={"appendonly": "yes"}) as server:
        assert server.command("GET", "k") == "v"


def _command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.promise("testing-server-quick")
def test_a_server_is_there_in_no_time():
    took = []
    for _ in range(5):
        server = RedisServer(private=True)
        began = monotonic()
        server.start()
        took.append(monotonic() - began)
        server.stop()
    assert min(took) < 0.5, took
