"""Every promise of the project names a test that holds it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import promises

if TYPE_CHECKING:
    from pathlib import Path

COLLECT = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:randomly"]


@pytest.fixture(scope="module")
def held(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[str]]:
    """Tests by the row they hold: of this run if it is the whole suite, else of a fresh one."""
    config = request.config
    source = getattr(config, "args_source", None)
    chosen = config.option.keyword or config.option.markexpr != "not stress"
    if source is pytest.Config.ArgsSource.TESTPATHS and not chosen:
        return promises.noted(config)
    return _collected(tmp_path_factory.mktemp("promises") / "held.json")


def _collected(report: Path) -> dict[str, list[str]]:
    command = [*COLLECT, "--promises-to", str(report)]
    done = subprocess.run(command, cwd=promises.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return promises.read_report(report)


@pytest.mark.timeout(120)
@pytest.mark.promise("habits-promises")
def test_every_promise_has_a_test_and_every_marker_a_row(held):
    found = promises.problems(held)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.timeout(120)
def test_the_page_of_promises_is_current(held):
    assert promises.PAGE.read_text(encoding="utf-8") == promises.page(held), "run `make promises`"


def test_a_row_without_a_test_and_a_marker_without_a_row_are_found():
    rows = promises.catalogue()
    everything = {row: ["tests/x.py::test_x"] for row in rows}
    missing = next(row for row, promise in rows.items() if promise.shown_by is None)
    del everything[missing]
    everything["no-such-row"] = ["tests/x.py::test_y"]
    found = "\n".join(promises.problems(everything))
    assert missing in found
    assert "tests/x.py::test_y names the unknown row 'no-such-row'" in found
