from __future__ import annotations

import os
import resource
import signal
import stat
from pathlib import Path

import pytest

from aiopatterns.processor.output import Output


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def test_a_text_takes_its_place(tmp_path):
    path = tmp_path / "report.html"
    with Output(path) as output:
        assert names(tmp_path) != []
        assert not path.exists()
        output.write("new ü \udcff")
    assert path.read_bytes() == "new ü ?".encode()
    assert names(tmp_path) == ["report.html"]


def test_the_mode_is_what_the_user_wants_of_new_files(tmp_path):
    before = os.umask(0o027)
    try:
        Output(tmp_path / "report").write("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "report").stat().st_mode) == 0o640


def test_without_a_write_all_is_as_before(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(KeyError), Output(path):
        raise KeyError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report.html"]


def test_discarding_twice_or_after_somebody_else_is_harmless(tmp_path):
    output = Output(tmp_path / "report")
    output.reserve()
    for each in tmp_path.iterdir():
        each.unlink()
    output.discard()
    output.discard()
    assert names(tmp_path) == []


def test_a_place_that_is_reserved_twice_is_one(tmp_path):
    output = Output(tmp_path / "report.html")
    output.reserve()
    with output:
        assert len(names(tmp_path)) == 1
        output.write("new")
    assert names(tmp_path) == ["report.html"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    Output(tmp_path / "link").write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.promise("processor-bad-input")
def test_what_cannot_be_written_is_refused_at_once(tmp_path):
    with pytest.raises(FileNotFoundError) as missing:
        Output(tmp_path / "none" / "report").reserve()
    assert missing.value.filename == str(tmp_path / "none" / "report")
    with pytest.raises(IsADirectoryError):
        Output(tmp_path).reserve()
    assert names(tmp_path) == []


def test_a_file_that_must_not_be_written_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "report"
    path.write_text("old")
    opened = os.open

    def deny(name, flags, mode=0o777):
        if str(name) == str(path):
            raise PermissionError(13, "Permission denied", str(name))
        return opened(name, flags, mode)

    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(PermissionError):
        Output(path).reserve()
    assert names(tmp_path) == ["report"]


@pytest.mark.promise("processor-full-disk")
def test_a_device_is_written_to_and_never_replaced():
    device = Path("/dev/full").stat().st_rdev
    output = Output("/dev/full")
    output.reserve()
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        output.write("x")
    assert Path("/dev/full").stat().st_rdev == device
    Output("/dev/null").write("x")


@pytest.mark.promise("processor-full-disk")
def test_a_full_disk_leaves_nothing_behind(tmp_path):
    path = tmp_path / "report"
    path.write_text("old")
    output = Output(path)
    output.reserve()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as full:
            output.write("x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert full.value.filename == str(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report"]
