from __future__ import annotations

import os
import resource
import shutil
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest

from aiopatterns.cli import doctor as module
from aiopatterns.cli.doctor import Finding, doctor, findings


def test_all_is_shown(capsys):
    assert doctor() == 0
    out = capsys.readouterr().out
    for each in ("python", "event loop", "anyio", "msgspec", "processors", "open files", "GB free"):
        assert each in out


def test_advice_comes_last(capsys, monkeypatch):
    monkeypatch.setattr(module, "findings", lambda: iter([Finding("a", "b", "do c")]))
    assert doctor() == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{'a':<16}b", "", "1 pieces of advice", "* a: do c",
    ]  # fmt: skip
    monkeypatch.setattr(module, "findings", lambda: iter([Finding("a", "b")]))
    doctor()
    assert "all is well" in capsys.readouterr().out


def found() -> dict[str, Finding]:
    return {each.what: each for each in findings()}


def test_without_uvloop_there_is_advice(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert found()["event loop"].advice == "a faster event loop: pip install 'aiopatterns[uvloop]'"
    monkeypatch.setattr(sys, "platform", "win32")
    assert found()["event loop"] == Finding("event loop", "asyncio")


def test_packages_that_are_missing(monkeypatch):
    def version(name):
        if name in {"anyio", "redis"}:
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    assert found()["anyio"].seen == "not installed"
    assert found()["redis"].seen == "not installed (optional)"
    assert found()["rich"].seen == "1.0"


@pytest.mark.parametrize(("usable", "good"), [({0}, False), ({0, 1}, True)])
def test_processors(monkeypatch, usable, good):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: usable)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert found()["processors"].seen == f"{len(usable)} usable of 8"
    assert (found()["processors"].advice is None) is good


def test_where_affinity_is_not_known(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert found()["processors"].seen == "1 usable of 1"


def test_limits(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 4096))
    assert found()["open files"].advice == "raise it for many connections: ulimit -n 4096"
    monkeypatch.setattr(resource, "getrlimit", lambda which: (65536, 65536))
    assert found()["open files"].advice is None
    monkeypatch.setitem(sys.modules, "resource", None)
    assert found()["open files"].seen == "no limit known"


def test_room_for_temporary_files(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    advice = found()["temporary files"].advice
    assert advice is not None
    assert advice.startswith("free some room in ")
