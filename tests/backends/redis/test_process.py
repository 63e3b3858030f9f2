from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from threading import Event

import pytest

from aiopatterns.backends.redis.process import ServerProcess, block, delete, lock, wait
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.testing import simulate

PAUSE = Event().wait


def spawn(tmp_path, script="exec sleep 60", **how):
    return ServerProcess.spawn(["/bin/sh", "-c", script], log=tmp_path / "log", **how)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text("utf-8").rpartition(")")[2].split()[0] != "Z"


def gone(pid):
    for _ in range(400):
        if not alive(pid):
            return True
        PAUSE(0.005)
    return False


def test_a_process_runs_and_is_killed(tmp_path):
    process = spawn(tmp_path)
    assert process.running
    assert process.ours
    process.kill()
    assert not process.running
    process.kill()  # there is nobody left to kill
    process.send(signal.SIGCONT)
    assert not alive(process.pid)


def test_its_words_are_kept(tmp_path):
    process = spawn(tmp_path, "for n in 1 2 3 4 5 6 7 8 9; do echo $n; done; echo bad >&2")
    block(process.ending(5))
    assert process.last_words(3) == "8\n9\nbad"


def test_a_process_that_ends_by_itself_is_not_killed(tmp_path):
    process = spawn(tmp_path, "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done")
    while process.last_words() != "up":
        PAUSE(0.005)
    process.send(signal.SIGTERM)
    block(process.ending(5))
    assert process.last_words() == "up\nbye"


def test_a_process_that_does_not_end_is_killed_after_its_grace(tmp_path):
    process = spawn(tmp_path)
    block(process.ending(0.02))
    assert not process.running


def test_an_end_cut_short_kills_at_once(tmp_path):
    process = spawn(tmp_path)
    ending = process.ending(60)
    next(ending)
    ending.close()
    assert not process.running


def test_waiting_lets_others_run_and_cleans_up(tmp_path):
    seen = []

    def steps():
        try:
            yield 5
            yield 0.5
        finally:
            seen.append("closed")

    async def main():
        await wait(steps())
        return len(seen)

    assert simulate(main) == 1


async def test_a_cancelled_wait_closes_the_steps():
    from anyio import move_on_after

    seen = []

    def steps():
        try:
            while True:
                yield 0.01
        finally:
            seen.append("closed")

    with move_on_after(0.02):
        await wait(steps())
    assert seen == ["closed"]


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        ServerProcess.spawn([str(tmp_path / "none")], log=tmp_path / "log")


def test_without_a_watchdog_there_is_no_server(tmp_path, monkeypatch):
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def only_one(command, **how):
        if started:
            raise OSError("no more processes")
        started.append(popen(command, **how))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", only_one)
    with pytest.raises(OSError, match="no more processes"):
        spawn(tmp_path)
    assert started[0].returncode == -signal.SIGKILL


if os.getuid() == 0:

    def test_root_may_run_it_as_another_user(tmp_path):
        process = spawn(tmp_path, "id -u; id -G", user="nobody")
        block(process.ending(5))
        nobody = pwd.getpwnam("nobody")
        assert process.last_words().split() == [str(nobody.pw_uid), str(nobody.pw_gid)]


PARENT = """
    import os, sys, signal
    from pathlib import Path
    from aiopatterns.backends.redis.process import ServerProcess
    home = Path(sys.argv[1])
    process = ServerProcess.spawn(["sleep", "60"], log=home / "log", scratch=home)
    {extra}
    print(process.pid, flush=True)
    {end}
"""


@pytest.mark.promise("testing-server-no-orphan")
@pytest.mark.parametrize(
    ("extra", "end"),
    [
        ("", "os.kill(os.getpid(), signal.SIGKILL)"),
        ("process.send(signal.SIGSTOP)", "os.kill(os.getpid(), signal.SIGKILL)"),
        ("", "os._exit(1)"),
        ("", "raise SystemExit"),
    ],
    ids=["killed", "killed-while-paused", "hard-exit", "plain-exit"],
)
def test_no_server_outlives_its_parent(tmp_path, extra, end):
    home = tmp_path / "home"
    home.mkdir()
    code = textwrap.dedent(PARENT).format(extra=extra, end=end)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(home)],
        stdout=subprocess.PIPE,
        check=False,
        timeout=30,
    )
    pid = int(done.stdout)
    assert gone(pid)
    for _ in range(400):
        if not home.exists():
            break
        PAUSE(0.005)
    assert not home.exists()


def test_the_watchdog_goes_home_with_its_server(tmp_path):
    process = spawn(tmp_path, "exit 3")
    watchdog = process._watchdog
    assert watchdog is not None
    while process.running:
        PAUSE(0.002)
    assert watchdog.returncode == 0


def test_ctrl_c_in_a_terminal_does_not_reach_it(tmp_path):
    process = spawn(tmp_path)
    assert os.getsid(process.pid) != os.getsid(0)
    process.kill()


def test_a_locked_directory_has_one_server(tmp_path):
    first = lock(tmp_path / "deep" / "data")
    assert (tmp_path / "deep" / "data").stat().st_mode & 0o777 == 0o700
    with pytest.raises(BackendUnavailableError, match="in use by another server"):
        lock(tmp_path / "deep" / "data")
    process = spawn(tmp_path, keep_open=[first])
    os.close(first)  # as if we were gone: the server has it still
    with pytest.raises(BackendUnavailableError):
        lock(tmp_path / "deep" / "data")
    process.kill()
    os.close(lock(tmp_path / "deep" / "data"))


def test_a_directory_that_cannot_be_locked(tmp_path, monkeypatch):
    import fcntl

    def broken(descriptor, how):
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="no locks here"):
        lock(tmp_path)


def test_deleting_what_is_gone(tmp_path):
    delete(tmp_path / "none")
