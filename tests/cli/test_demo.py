from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from aiopatterns.cli import app
from aiopatterns.cli import demo as module
from aiopatterns.cli.app import main
from aiopatterns.cli.exits import DONE, FAILED, INTERRUPTED, USAGE
from tests.cli.acting import Toy

pytestmark = pytest.mark.real


@pytest.fixture
def toys(monkeypatch):
    """Two acts that take no time instead of the true ones; the first may be told to fail."""
    made = {}

    def toy(name):
        def make(seed, *, fast):
            made[name] = (seed, fast)
            return Toy(0, good=seed != 13)

        return make

    monkeypatch.setattr(module, "ACTS", {"pool": toy("pool"), "chaos": toy("chaos")})
    return made


def test_the_parser_knows_the_acts():
    assert tuple(module.ACTS) == app._ACTS


def test_all_acts_are_played(toys, capsys):
    assert main(["demo"]) == DONE
    assert toys == {"pool": (0, False), "chaos": (0, False)}
    assert capsys.readouterr().out.count("ok   0 s passed") == 2


def test_one_act_with_its_options(toys, capsys):
    assert main(["demo", "--act", "chaos", "--fast", "--seed", "5", "--json"]) == DONE
    assert toys == {"chaos": (5, True)}
    told = json.loads(capsys.readouterr().out)
    assert told == {"seed": 5, "acts": [{"name": "toy", "well": True, "passed": 0}]}


def test_an_act_that_does_not_show_what_it_should_is_the_exit_code(toys, capsys):
    assert main(["demo", "--seed", "13"]) == FAILED
    assert "FAIL" in capsys.readouterr().out


def test_an_unknown_act(capsys):
    assert main(["demo", "--act", "play"]) == USAGE
    assert "--act: invalid choice: 'play'" in capsys.readouterr().err


def of(folder: Path) -> list[int]:
    """Processes whose environment names a folder."""
    found: list[int] = []
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(folder).encode() in (each / "environ").read_bytes():
                found.append(int(each.name))
    return found


@pytest.mark.timeout(40)
@pytest.mark.promise("cli-demo-ends")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whoever_ends_the_demo_leaves_no_process_behind(tmp_path, number):
    command = [sys.executable, "-m", "aiopatterns", "demo", "--act", "chaos"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: any(tmp_path.glob("ap-chaos-*/ledger")) and len(of(tmp_path)) >= 3)
        process.send_signal(number)
        _, told = process.communicate()
    until(lambda: not of(tmp_path))
    if number is not signal.SIGKILL:
        assert (process.returncode, told) == (INTERRUPTED, "aiopatterns: interrupted\n")
        assert not [*tmp_path.iterdir()]


def until(told: Callable[[], bool]) -> None:
    """Wait until something is so."""
    began = time.monotonic()
    while not told():
        assert time.monotonic() - began < 20
        time.sleep(0.02)
