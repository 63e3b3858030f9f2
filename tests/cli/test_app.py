from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import aiopatterns
from aiopatterns.cli import app
from aiopatterns.cli.app import main
from aiopatterns.cli.exits import DONE, FAILED, INTERRUPTED, USAGE, UsageError


def said(capsys) -> str:
    """Standard error holds exactly one line."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: COMMAND (see aiopatterns --help)"),
        (["walk"], "invalid choice: 'walk'"),
        (["run", "--workers", "0"], "--workers: must be a whole number from 1 to 1024, not '0'"),
        (["run", "--workers", "two"], "must be a whole number from 1 to 1024, not 'two'"),
        (["run", "--workers", "1025"], "must be a whole number from 1 to 1024, not '1025'"),
        (["run", "a", "b"], "unrecognized arguments: b"),
        (["--nonsense"], "COMMAND"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(argv, message, capsys):
    assert main(argv) == USAGE
    line = said(capsys)
    assert line.startswith("aiopatterns: ")
    assert message in line


@pytest.mark.parametrize("argv", [["--help"], ["run", "--help"], ["doctor", "-h"], ["--version"]])
def test_help_and_version_go_to_standard_output(argv, capsys):
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 0
    out, err = capsys.readouterr()
    assert out
    assert err == ""
    if argv == ["--version"]:
        assert out == f"aiopatterns {aiopatterns.__version__}\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("two\nlines"), USAGE, "two lines"),
        (UsageError("no"), USAGE, "no"),
        (KeyError(), FAILED, "KeyError"),
        (
            OSError(28, "No space left on device", "x.html"),
            FAILED,
            "No space left on device: x.html",
        ),
        (OSError(28, "No space left on device"), FAILED, "No space left on device"),
        (OSError("odd"), FAILED, "odd"),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
    ],
)
def test_errors_have_their_code_and_line(error, code, line, capsys, monkeypatch):
    def dispatch(options):
        raise error

    monkeypatch.setattr(app, "_dispatch", dispatch)
    assert main(["doctor"]) == code
    assert said(capsys) == f"aiopatterns: {line}"


@pytest.mark.parametrize("argv", [["--debug", "doctor"], ["doctor", "--debug"]])
def test_debug_shows_the_traceback(argv, capsys, monkeypatch):
    def dispatch(options):
        raise KeyError("why")

    monkeypatch.setattr(app, "_dispatch", dispatch)
    assert main(argv) == FAILED
    assert "Traceback" in capsys.readouterr().err


def test_arguments_come_from_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["aiopatterns", "doctor"])
    assert main() == DONE
    assert "python" in capsys.readouterr().out


def test_a_standard_output_that_cannot_be_written_is_given_up(tmp_path, monkeypatch):
    class Broken(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

        def fileno(self):
            return file.fileno()

    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", Broken())
        assert main(["doctor"]) == FAILED
        os.write(file.fileno(), b"lost")
    assert (tmp_path / "out").read_bytes() == b""


def test_the_main_module_does_nothing_for_worker_processes():
    importlib.import_module("aiopatterns.__main__")


def shell(*argv: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aiopatterns", *argv],
        text=True, stderr=subprocess.PIPE, timeout=20, check=False, **more,
    )  # fmt: skip


PRINTING = pytest.mark.parametrize("argv", [["doctor"], ["run", __file__, "--executor", "inline"]])


@pytest.mark.promise("processor-full-disk")
@PRINTING
def test_standard_output_on_a_full_disk_is_one_line(argv, tmp_path):
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = shell(*argv, stdout=full, cwd=tmp_path)
    assert done.returncode == FAILED
    assert done.stderr == "aiopatterns: No space left on device\n"


@PRINTING
def test_a_reader_that_went_away_is_one_line(argv, tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = shell(*argv, stdout=write, cwd=tmp_path)
    os.close(write)
    assert done.returncode == FAILED
    assert done.stderr == "aiopatterns: Broken pipe\n"


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_standard_files_that_are_closed_harm_nobody(closed, tmp_path):
    command = f'exec "{sys.executable}" -m aiopatterns run "{__file__}" --executor inline {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (DONE, "")
    assert (tmp_path / "aiopatterns-report.html").exists()


def test_the_module_is_the_command():
    done = shell("--version", stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"aiopatterns {aiopatterns.__version__}\n"
