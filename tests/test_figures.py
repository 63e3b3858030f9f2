"""What tests measure is kept in one file, by any number of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.figures import Figure, Figures, read
from tests.promises import ROOT

SUITE = """
import pytest

@pytest.mark.promise("fault-01-worker-killed")
@pytest.mark.parametrize("kills", [1, 2])
def test_kills(kills, figures):
    figures.record("kills", kills, "of 2")

@pytest.mark.promise("fault-01-worker-killed")
def test_that_fails(figures):
    figures.record("lost", 1)
    raise AssertionError

@pytest.mark.promise("fault-01-worker-killed")
def test_that_is_skipped(_no_such_thing):
    pass

def test_that_holds_nothing():
    pass

@pytest.fixture
def _no_such_thing():
    pytest.importorskip("no_such_module")
"""


def test_figures_and_endings_of_several_workers_are_in_one_file(tmp_path):
    suite, target = tmp_path / "test_suite.py", tmp_path / "there" / "figures"
    suite.write_text(SUITE, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = promise", "utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "xdist", "-n", "2", "-p", "tests.figures"]
    done = subprocess.run(
        [*command, "--figures", str(target), str(suite)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    measured, endings = read(target)
    assert sorted((each.name, each.value, each.note) for each in measured) == [
        ("kills", 1, "of 2"),
        ("kills", 2, "of 2"),
        ("lost", 1, ""),
    ]
    assert sorted((each.test.partition("::")[2], each.outcome) for each in endings) == [
        ("test_kills[1]", "passed"),
        ("test_kills[2]", "passed"),
        ("test_that_fails", "failed"),
        ("test_that_is_skipped", "skipped"),
    ]


def test_lines_of_many_threads_do_not_mix(tmp_path):
    target = tmp_path / "figures"
    with ThreadPoolExecutor(8) as pool:
        for number in range(400):
            pool.submit(Figures("t", target).record, "n", number, "x" * 300)
    assert sorted(each.value for each in read(target)[0]) == [*range(400)]


def test_without_the_option_a_figure_is_printed_only(figures, capsys, tmp_path):
    Figures("t", None).record("jobs lost", 0, "of 20,000")
    assert capsys.readouterr().out == "jobs lost: 0 of 20,000\n"
    assert not [*tmp_path.iterdir()]
    assert isinstance(figures, Figures)


def test_a_figure_is_written_as_people_read_it():
    shown = [Figure("t", "n", value).told for value in (20_000, 0.12345, 12345.6, "cut off")]
    assert shown == ["20,000", "0.123", "12,346", "cut off"]
