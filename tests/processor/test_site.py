from __future__ import annotations

import platform
from pathlib import Path

import pytest

from aiopatterns.processor import site as module
from aiopatterns.processor import stages
from aiopatterns.processor.corpus import Corpus, plan
from aiopatterns.processor.site import HOST, Seen, by_this_clock, seen_by_another, stamp
from aiopatterns.processor.stages import Timed


@pytest.fixture
def chunk(tmp_path):
    (tmp_path / "a.py").write_text("value = 'word'  # comment\n")
    (chunk,) = plan(Corpus.at(tmp_path).walk().documents, tmp_path)
    return chunk


def test_machines_of_one_name_are_told_by_their_mounts(monkeypatch):
    assert module._host() == HOST
    assert HOST.startswith(platform.node())
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"boot")
    monkeypatch.setattr(Path, "readlink", lambda _: Path("mnt:[1]"))
    one = module._host()
    monkeypatch.setattr(Path, "readlink", lambda _: Path("mnt:[2]"))
    assert module._host() != one
    monkeypatch.setattr(Path, "readlink", Path("/nowhere").stat)
    assert module._host() == platform.node()


def test_a_stamp_tells_sizes_times_and_absence(chunk, tmp_path):
    first = stamp(chunk)
    assert stamp(chunk) == first
    (tmp_path / "a.py").write_text("value = 'ward'  # comment !\n")
    second = stamp(chunk)
    (tmp_path / "a.py").unlink()
    assert len({first, second, stamp(chunk)}) == 3


def test_only_another_machine_looks_at_the_files_once_more(chunk):
    assert seen_by_another(chunk, HOST) is None
    assert seen_by_another(chunk, "elsewhere") == Seen(HOST, stamp(chunk))
    assert stages.timed(stages.count, chunk).seen is None
    assert stages.timed(stages.count, chunk, host="elsewhere").seen == Seen(HOST, stamp(chunk))


def test_what_another_machine_did_is_told_by_this_clock():
    there = Timed("value", 3, 7, 8, 1_000_000.0, 1_000_002.0)
    here = by_this_clock(there, "elsewhere")
    assert here.end - here.start == pytest.approx(2.0)
    assert here.end < 1_000_000.0
    assert (here.value, here.task) == ("value", 3)
    assert here.process == here.thread != 7
