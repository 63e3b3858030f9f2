"""The script that brings server programs, on machines that are made up of a few links."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / ".ci" / "servers"
TOOLS = ("bash", "printf", "chmod", "rm", "touch")


@pytest.fixture
def machine(tmp_path):
    """A folder that is all of PATH, and a run of the script there."""
    home = tmp_path / "bin"
    home.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (home / tool).symlink_to(found)
    calls = tmp_path / "calls"
    script = tmp_path / "servers"
    text = SCRIPT.read_text("utf-8").replace("/usr/lib/postgresql", str(tmp_path / "postgresql"))
    script.write_text(text.replace("/usr/sbin", str(tmp_path)), "utf-8")

    def program(name, body):
        (home / name).write_text(f"#!/bin/sh\n{body}\n", "utf-8")
        (home / name).chmod(0o755)

    def run():
        done = subprocess.run(
            ["bash", str(script)],
            env={"PATH": str(home), "LC_ALL": os.environ.get("LC_ALL", "C")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr, calls.read_text("utf-8") if calls.exists() else ""

    program("apt-get", f'echo "$RUNLEVEL $@" >>{calls}')
    program("id", "echo 0")
    return program, run, tmp_path


def test_where_all_is_there_nothing_is_done(machine):
    program, run, home = machine
    program("valkey-server", "")
    program("google-chrome", "")
    (home / "postgresql" / "15" / "bin").mkdir(parents=True)
    (home / "postgresql" / "15" / "bin" / "postgres").touch()
    assert run() == ("", "")


def test_root_installs_what_is_missing_and_starts_no_service(machine):
    program, run, home = machine
    program("redis-server", "")
    told, calls = run()
    assert "1 update -qq" in calls
    assert "1 install -y -qq --no-upgrade" in calls
    assert [line.rpartition(" ")[2] for line in calls.splitlines()[1:]] == [
        "postgresql",
        "chromium",
    ]
    assert "no PostgreSQL here" in told
    assert "no Chromium here" in told
    assert not (home / "policy-rc.d").exists()


def test_a_policy_that_is_there_is_left_alone(machine):
    _, run, home = machine
    (home / "policy-rc.d").write_text("mine", "utf-8")
    run()
    assert (home / "policy-rc.d").read_text("utf-8") == "mine"


@pytest.mark.parametrize("why", ["not root", "no apt", "apt fails"])
def test_where_nothing_can_be_installed_it_says_so_and_goes_on(machine, why):
    program, run, home = machine
    if why == "not root":
        program("id", "echo 1000")
    elif why == "no apt":
        (home / "bin" / "apt-get").unlink()
    else:
        program("apt-get", "exit 100")
    told, _ = run()
    assert told.splitlines() == [
        "no redis-server here: the tests use the one in the wheels",
        "no PostgreSQL here: install postgresql for the tests that need it",
        "no Chromium here: install chromium for the tests of the dashboard pages",
    ]
