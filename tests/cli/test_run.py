from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aiopatterns.backends.redis.wire import Wire
from aiopatterns.cli import run as module
from aiopatterns.cli.app import main
from aiopatterns.cli.exits import DONE, FAILED, INTERRUPTED, USAGE
from aiopatterns.processor.corpus import Corpus
from tests.processor.reference import make_tree, plain_count
from tests.processor.test_report import Page
from tests.processor.test_trace import check


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A corpus, and an empty folder to stand in."""
    make_tree(tmp_path / "tree")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "tree"


def here() -> list[str]:
    """Names in the folder where the command runs."""
    return sorted(each.name for each in Path.cwd().iterdir())


def ran(*argv: object) -> int:
    return main(["run", "--executor", "inline", *map(str, argv)])


def refused(capsys, *argv: object) -> str:
    """The command does nothing but one line on standard error; returns the line."""
    before = here()
    assert main(["run", *map(str, argv)]) == USAGE
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert here() == before
    return err


def test_the_result_as_text(tree, capsys):
    assert ran(tree) == DONE
    out, err = capsys.readouterr()
    plain = plain_count(tree)
    assert err == ""
    assert f"files        {plain.files} in " in out
    assert f"lines        {plain.lines}\n" in out
    assert f"words        {plain.words.total()}, {len(plain.words)} different" in out
    word, number = max(plain.words.items(), key=lambda each: (each[1], each[0]))
    assert f"{word} {number}" in out
    assert "undecodable  1\n" in out
    assert "duplicates   2 in 1 groups" in out
    assert "binary       1\n" in out
    assert "report       aiopatterns-report.html" in out
    assert "trace" not in out
    for stage in ("ingestion", "processing", "analysis", "report"):
        assert f"\n{stage}" in out
    Page(Path("aiopatterns-report.html").read_text("utf-8"))


@pytest.mark.promise("processor-serial-count")
def test_the_result_as_json(tree, capsys):
    assert ran(tree, "--json", "--report", "r.html", "--trace", "t.json") == DONE
    out, err = capsys.readouterr()
    assert err == ""
    result = json.loads(out)
    plain = plain_count(tree)
    assert (result["files"], result["bytes"], result["lines"], result["words"]) == (
        plain.files, plain.size, plain.lines, plain.words.total(),
    )  # fmt: skip
    assert {each["word"]: each["count"] for each in result["top_words"]} == dict(
        sorted(plain.words.items(), key=lambda each: (-each[1], each[0]))[:50]
    )
    assert result["undecodable"] == plain.undecodable
    assert [sorted(each) for each in result["duplicates"]] == plain.copies
    assert result["binary"] == plain.binary
    assert [each["name"] for each in result["stages"]] == [
        "ingestion", "processing", "analysis", "report",
    ]  # fmt: skip
    assert (result["report"], result["trace"]) == ("r.html", "t.json")
    check(Path("t.json").read_text("utf-8"))
    assert here() == ["r.html", "t.json"]


def test_text_names_the_trace(tree, capsys):
    assert ran(tree, "--trace", "t.json") == DONE
    assert "trace        t.json" in capsys.readouterr().out


def test_the_default_is_the_standard_library(monkeypatch, tree):
    seen = []

    async def work(processor, view):
        seen.append(processor)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_work", work)
    assert ran() == INTERRUPTED
    assert seen[0].corpus == Corpus.standard_library()
    assert here() == []


@pytest.mark.promise("processor-bad-input")
def test_a_wrong_path_is_refused(tree, capsys):
    assert refused(capsys, "none") == "aiopatterns: No such file or directory: none\n"
    assert refused(capsys, "") == "aiopatterns: PATH must name a folder or a file, and is empty\n"
    assert "path must be a folder or a regular file, not '/dev/null'" in refused(
        capsys, "/dev/null"
    )


@pytest.mark.promise("processor-bad-input")
def test_an_empty_folder_is_refused(tree, capsys):
    (tree / "empty").mkdir()
    line = refused(capsys, tree / "empty", "--executor", "inline")
    assert line.startswith("aiopatterns: path must hold at least one text: ")
    assert line.endswith("holds no files\n")


@pytest.mark.promise("processor-bad-input")
def test_a_binary_file_alone_is_refused(tree, capsys):
    line = refused(capsys, tree / "beta/image.bin", "--executor", "inline")
    assert line.endswith("holds 1 binary and 0 unreadable files\n")


@pytest.mark.promise("processor-bad-input")
def test_an_unreadable_path_is_refused(tree, capsys, monkeypatch):
    def at(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(Corpus, "at", at)
    assert refused(capsys, tree) == f"aiopatterns: Permission denied: {tree}\n"


@pytest.mark.promise("processor-bad-input")
def test_unreadable_files_are_one_line_and_code_1(tree, capsys, monkeypatch):
    from aiopatterns.processor import tokens

    read = tokens.blocks

    def blocks(path):
        if path.endswith(unreadable):
            raise PermissionError(13, "Permission denied", path)
        return read(path)

    monkeypatch.setattr(tokens, "blocks", blocks)
    unreadable = "top.md"
    assert ran(tree) == FAILED
    out, err = capsys.readouterr()
    assert err == "aiopatterns: a file or folder could not be read: top.md: Permission denied\n"
    assert "report       aiopatterns-report.html" in out
    unreadable = ".txt"
    assert ran(tree) == FAILED
    assert "files or folders could not be read: beta/deep/er/notes.txt:" in capsys.readouterr().err


@pytest.mark.promise("processor-bad-input")
@pytest.mark.parametrize("option", ["--report", "--trace"])
def test_what_cannot_be_written_is_refused_before_any_work(tree, capsys, option, monkeypatch):
    monkeypatch.setattr(module, "_work", None)
    line = refused(capsys, tree, option, "none/file")
    assert line == (
        f"aiopatterns: {option} cannot be written: No such file or directory: none/file\n"
    )
    assert "Is a directory" in refused(capsys, tree, option, ".")


def test_what_this_command_does_not_have_is_refused(tree, capsys):
    line = refused(capsys, tree, "--backend", "http://user:secret@host/0")
    assert "http://user:***@host/0" in line
    for wrong in ("threads", "dask://", "dask://host", "dask://:1", "dask://host:http"):
        line = refused(capsys, tree, "--executor", wrong)
        assert f"--executor must be inline, processes or dask://host:port, not {wrong!r}" in line
    line = refused(capsys, tree, "--backend", "redis://host", "--executor", "inline")
    assert line == (
        "aiopatterns: --executor must be processes or dask://host:port with --backend redis,"
        " not 'inline'\n"
    )
    assert "--id needs a --backend that outlives this process" in refused(
        capsys, tree, "--id", "nightly"
    )


def test_a_backend_that_does_not_answer_is_one_line_and_code_1(tree, capsys):
    assert main(["run", str(tree), "--backend", "redis://:secret@127.0.0.1:1/0"]) == FAILED
    line = capsys.readouterr().err
    assert line.startswith("aiopatterns: no Redis answers at redis://:***@127.0.0.1:1/0: ")
    assert line.count("\n") == 1
    assert here() == []


@pytest.mark.promise("processor-full-disk")
def test_a_full_disk_is_one_line(tree, capsys):
    assert ran(tree, "--report", "/dev/full") == FAILED
    err = capsys.readouterr().err
    assert err == "aiopatterns: No space left on device: /dev/full\n"
    assert ran(tree, "--trace", "/dev/full") == FAILED
    assert capsys.readouterr().err == "aiopatterns: No space left on device: /dev/full\n"


def shell(*argv: object, **more) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "aiopatterns", "run", *map(str, argv)],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
    )  # fmt: skip


@pytest.mark.promise("processor-serial-count")
def test_the_command_in_processes(tree):
    with shell(tree, "--workers", 2, "--json") as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (DONE, "")
    assert json.loads(out)["words"] == plain_count(tree).words.total()


@pytest.mark.promise("processor-serial-count")
def test_the_command_over_jobs_gives_the_same(tree, capsys):
    assert ran(tree, "--json") == DONE
    expected = json.loads(capsys.readouterr().out)
    with shell(tree, "--workers", 2, "--json", "--backend", "embedded://") as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (DONE, "")
    found = json.loads(out)
    for each in (expected, found):
        del each["elapsed"], each["stages"]
    assert found == expected


@pytest.mark.promise("processor-interrupt")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_over_jobs_and_its_workers(tree, redis_url, number):
    with shell("--backend", redis_url, "--workers", 1, start_new_session=True) as process:
        assert process.stdout is not None
        assert "ingestion   begins" in process.stdout.readline()
        time.sleep(0.1)
        os.killpg(process.pid, number)
        err = process.communicate(timeout=20)[1]
    assert (process.returncode, err) == (INTERRUPTED, "aiopatterns: interrupted\n")
    assert here() == []
    with Wire(redis_url) as wire:
        assert wire.call("KEYS", "*kv*run*") == []
        assert wire.call("KEYS", "*aiopatterns.run}:lane*") == []


@pytest.mark.promise("processor-full-disk")
def test_a_disk_that_fills_up_leaves_no_half_written_report(tree):
    small = ("import resource, signal, sys; from aiopatterns.cli.app import main;"
             "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
             "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
             "sys.exit(main(['run', '--executor', 'inline', sys.argv[1]]))")  # fmt: skip
    # What measures coverage writes files of its own, for which there is no room then.
    bare = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    done = subprocess.run(
        [sys.executable, "-c", small, str(tree)],
        env=bare, capture_output=True, text=True, timeout=20,
        check=False,
    )  # fmt: skip
    assert done.returncode == FAILED
    assert done.stderr == "aiopatterns: File too large: aiopatterns-report.html\n"
    assert here() == []


@pytest.mark.promise("processor-interrupt")
def test_ctrl_c_ends_with_130_and_leaves_nothing(tree):
    Path("aiopatterns-report.html").write_text("old")
    with shell(start_new_session=True) as process:
        assert process.stdout is not None
        assert "ingestion   begins" in process.stdout.readline()
        time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        err = process.communicate(timeout=20)[1]
    assert (process.returncode, err) == (INTERRUPTED, "aiopatterns: interrupted\n")
    assert here() == ["aiopatterns-report.html"]
    assert Path("aiopatterns-report.html").read_text("utf-8") == "old"
