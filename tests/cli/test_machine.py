from __future__ import annotations

import platform
from pathlib import Path

from aiopatterns.cli import machine
from aiopatterns.cli.machine import facts


def test_facts():
    found = facts()
    assert platform.python_version() in found["python"]
    assert found["processor"]
    assert int(found["processors"]) >= 1
    assert all(isinstance(each, str) for each in found.values())


def test_a_processor_without_a_name(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_CPUS", tmp_path / "none")
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert facts()["processor"] == "unknown"
    monkeypatch.setattr(machine, "_CPUS", Path(__file__))
    monkeypatch.setattr(platform, "processor", lambda: "abacus")
    assert facts()["processor"] == "abacus"


def test_without_uvloop_it_is_asyncio(monkeypatch):
    monkeypatch.setattr(machine, "find_spec", lambda _: None)
    assert facts()["event loop"] == "asyncio"
