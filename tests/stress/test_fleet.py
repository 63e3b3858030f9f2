"""The command over four workers: one is killed every two seconds, and Redis twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.processor.corpus import Corpus
from tests.processor.chaos import ROOT, children

pytestmark = [pytest.mark.stress, pytest.mark.real, pytest.mark.timeout(600)]

COPIES = 4
# Seconds after which the program is killed, each time it goes on.
PROGRAM_AT = (2.0, 3.0, 4.0)
WORKERS = 4
EVERY = 2.0
SERVER_AT = (3.0, 9.0)


def copies(root: Path, number: int = COPIES) -> Path:
    """The standard library several times, no file of it equal to another; some 120 MB."""
    library = Corpus.standard_library()
    for copy in range(number):
        for each in library.walk().documents:
            target = root / f"copy{copy}" / each.path
            target.parent.mkdir(parents=True, exist_ok=True)
            data = Path(library.root, each.path).read_bytes()
            target.write_bytes(data + b"# %d\n" % copy)
    return root


def command(folder: Path, root: Path, *more: object) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "aiopatterns", "run", str(root), "--json", *map(str, more)]
    argv += ["--report", str(folder / "report.html")]
    with (folder / "out").open("wb") as out:
        return subprocess.Popen(argv, cwd=ROOT, stdout=out)


def result(folder: Path, process: subprocess.Popen[bytes]) -> dict[str, object]:
    """What the command found, without what depends on time."""
    assert process.wait(400) == 0
    found: dict[str, object] = json.loads((folder / "out").read_text("utf-8"))
    del found["elapsed"], found["stages"]
    return found


def kill_all_the_while(process: subprocess.Popen[bytes], server: RedisServer) -> dict[str, int]:
    """Kill a worker every two seconds and the server twice, until the command ends."""
    dice, begun, kills = random.Random(7), time.monotonic(), {"worker": 0, "server": 0}
    due, left = EVERY, list(SERVER_AT)
    while process.poll() is None:
        time.sleep(0.02)
        elapsed = time.monotonic() - begun
        if elapsed >= due and (there := children(process.pid)):
            due += EVERY
            with suppress(ProcessLookupError):
                os.kill(dice.choice(there), signal.SIGKILL)
                kills["worker"] += 1
        if left and elapsed >= left[0]:
            left.pop(0)
            server.kill()
            time.sleep(0.5)
            server.restart()
            kills["server"] += 1
    return kills


@pytest.mark.promise("processor-fleet-kills")
def test_a_worker_every_two_seconds_and_redis_twice(tmp_path):
    root = copies(tmp_path / "corpus")
    expected = result(tmp_path, command(tmp_path, root, "--executor", "inline"))
    begun = time.monotonic()
    with RedisServer(config={"appendonly": "yes", "appendfsync": "always"}) as server:
        process = command(tmp_path, root, "--backend", server.url, "--workers", WORKERS)
        with process:
            kills = kill_all_the_while(process, server)
            found = result(tmp_path, process)
    print(f"{kills} in {time.monotonic() - begun:.1f} s")
    assert kills["worker"] >= 3
    assert kills["server"] == len(SERVER_AT)
    assert found == expected


@pytest.mark.promise("processor-fleet-resume")
def test_a_program_that_is_killed_again_and_again_comes_to_the_same_end(tmp_path):
    root = copies(tmp_path / "corpus", 2)
    expected = result(tmp_path, command(tmp_path, root, "--executor", "inline"))
    with RedisServer(config={"appendonly": "yes"}) as server:
        options = ("--backend", server.url, "--workers", WORKERS, "--id", "nightly")
        for seconds in PROGRAM_AT:
            with command(tmp_path, root, *options) as process:
                time.sleep(seconds)
                process.kill()
        assert result(tmp_path, command(tmp_path, root, *options)) == expected
        assert server.command("KEYS", "*run:nightly*") == []
