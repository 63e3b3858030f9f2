from __future__ import annotations

import os
import resource
import shutil
import sys
from argparse import Namespace
from dataclasses import replace
from importlib import metadata
from types import SimpleNamespace

import pytest

from aiopatterns.backends.diagnosis import Diagnosis, acl_rule
from aiopatterns.cli import doctor as module
from aiopatterns.cli.doctor import Finding, doctor, findings, server_findings


def asked(**given) -> Namespace:
    return Namespace(**{"backend": None, "namespace": "ap", "acl": False, **given})


def test_all_is_shown(capsys):
    assert doctor(asked()) == 0
    out = capsys.readouterr().out
    for each in ("python", "event loop", "anyio", "msgspec", "processors", "open files", "GB free"):
        assert each in out


def test_advice_comes_last(capsys, monkeypatch):
    monkeypatch.setattr(module, "findings", lambda: iter([Finding("a", "b", "do c")]))
    assert doctor(asked()) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"warn  {'a':<16}b", "", "advice:", "* a: do c",
    ]  # fmt: skip
    monkeypatch.setattr(module, "findings", lambda: iter([Finding("a", "b")]))
    doctor(asked())
    out = capsys.readouterr().out
    assert out.startswith("ok    a")
    assert "all is well" in out


def test_a_failure_is_the_exit_code(capsys, monkeypatch):
    broken = Finding("a", "b", "do c", failed=True)
    monkeypatch.setattr(module, "findings", lambda: iter([broken]))
    assert doctor(asked()) == 1
    assert capsys.readouterr().out.startswith("fail  a")


def test_the_rule_alone(capsys):
    assert doctor(asked(acl=True, namespace="shop")) == 0
    assert capsys.readouterr().out == acl_rule(namespace="shop") + "\n"


@pytest.mark.real
def test_a_server_is_looked_at(capsys, redis_url):
    assert doctor(asked(backend=redis_url)) == 0
    out = capsys.readouterr().out
    for each in ("ok    backend", "ok    server", "warn  persistence", "ok    when full"):
        assert each in out
    for each in ("warn  memory", "ok    connections", "ok    round trip", "ok    clock"):
        assert each in out
    assert "ok    rights          all that are needed" in out
    assert "appendonly yes" in out


def test_a_server_that_is_away(capsys, tmp_path):
    assert doctor(asked(backend=f"unix://:secret@{tmp_path}/none.sock")) == 1
    out = capsys.readouterr().out
    assert "fail  backend" in out
    assert "embedded://" in out
    assert "secret" not in out


def test_memory_has_no_server(capsys):
    assert doctor(asked(backend="memory://")) == 0
    assert "warn  backend         memory://" in capsys.readouterr().out


GOOD = Diagnosis(
    url="redis://here",
    version="7.0.15",
    mode="standalone",
    role="master",
    appendonly=True,
    fsync="everysec",
    policy="noeviction",
    memory=1_000_000,
    max_memory=100_000_000,
    clients=3,
    max_clients=100,
    latency_p50=0.0001,
    latency_p99=0.0002,
    skew=0.001,
    missing=(),
)


def test_a_good_server_needs_no_advice():
    assert {each.mark for each in server_findings(GOOD)} == {"ok"}


@pytest.mark.parametrize(
    ("changed", "mark", "what", "words"),
    [
        ({"role": "slave"}, "fail", "server", "name its primary"),
        ({"appendonly": False}, "warn", "persistence", "appendonly yes"),
        ({"fsync": "no"}, "warn", "persistence", "appendfsync everysec"),
        ({"fsync": None}, "ok", "persistence", "appendfsync unknown"),
        ({"policy": "allkeys-lru"}, "fail", "when full", "maxmemory-policy noeviction"),
        ({"max_memory": 0}, "warn", "memory", "set maxmemory"),
        ({"memory": 95_000_000}, "warn", "memory", "nearly full"),
        ({"clients": 90}, "warn", "connections", "raise maxclients"),
        ({"latency_p50": 0.02}, "warn", "round trip", "nearer"),
        ({"skew": -7.0}, "warn", "clock", "7.000 s behind"),
        ({"skew": 7.0}, "warn", "clock", "7.000 s ahead"),
        ({"missing": None}, "warn", "rights", "doctor --acl"),
        ({"missing": ("set", "xadd")}, "fail", "rights", "missing: set, xadd"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_server_is_told_with_its_cure(changed, mark, what, words):
    by_name = {each.what: each for each in server_findings(replace(GOOD, **changed))}
    finding = by_name.pop(what)
    assert finding.mark == mark
    assert words in f"{finding.seen} {finding.advice}"
    assert {each.mark for each in by_name.values()} == {"ok"}


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
