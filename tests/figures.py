"""What tests measure, kept for the fault book: ``pytest --figures=FILE``.

A test says what it has measured by the fixture ``figures``::

    @pytest.mark.promise("fault-01-worker-killed")
    async def test_a_kill_every_half_second(figures):
        ...
        figures.record("jobs lost", 0, "of 20,000")

With the option each figure, and how each test of the promise table ended, is appended to the file
as one line of JSON; all workers of xdist append to the same file. Without it a figure is printed
only, for pytest to show.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

__all__ = ["Ending", "Figure", "Figures", "Notes", "figures", "read"]


@final
@dataclass(frozen=True, slots=True)
class Figure:
    """One figure that a test has measured."""

    test: str
    name: str
    value: float | str
    note: str = ""

    @property
    def told(self) -> str:
        """The value as people read it, and its note."""
        value = self.value
        if isinstance(value, float):
            value = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
        elif isinstance(value, int):
            value = f"{value:,}"
        return f"{value} {self.note}".rstrip()


@final
@dataclass(frozen=True, slots=True)
class Ending:
    """How a test, with its parameters, ended: ``passed``, ``failed`` or ``skipped``."""

    test: str
    outcome: str
    seconds: float


@final
class Figures:
    """Takes the figures of one test."""

    def __init__(self, test: str, target: Path | None) -> None:
        self._test = test
        self._target = target

    def record(self, name: str, value: float | str, note: str = "") -> None:
        """Keep ``value`` under ``name``; the note says of what, in which unit, or at most what."""
        figure = Figure(self._test, name, value, note)
        print(f"{name}: {figure.told}")
        if self._target is not None:
            _append(self._target, figure)


@final
class Notes:
    """The plugin that notes how the tests ended which hold a promise."""

    def __init__(self, target: Path) -> None:
        self._target = target

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note the call, and whatever failed or was skipped before or after it."""
        report = yield
        held = item.get_closest_marker("promise") is not None
        if held and (report.when == "call" or report.outcome != "passed"):
            _append(self._target, Ending(item.nodeid, report.outcome, round(report.duration, 3)))
        return report


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Take what this test measures."""
    return Figures(request.node.nodeid, _target(request.config))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the file."""
    parser.addoption(
        "--figures",
        default=None,
        metavar="FILE",
        help="append to this file what tests measure, and how those that hold a promise end",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Note how tests end, if the command line asks for it."""
    if (target := _target(config)) is not None:
        config.pluginmanager.register(Notes(target))


def read(source: Path) -> tuple[list[Figure], list[Ending]]:
    """Read all that was appended to a file, in its order."""
    lines: Iterable[dict[str, Any]] = map(json.loads, source.read_text("utf-8").splitlines())
    found = [Ending(**each) if "outcome" in each else Figure(**each) for each in lines]
    return (
        [each for each in found if isinstance(each, Figure)],
        [each for each in found if isinstance(each, Ending)],
    )


def _target(config: pytest.Config) -> Path | None:
    name: str | None = config.getoption("--figures")
    return None if name is None else Path(name).absolute()


def _append(path: Path, line: Figure | Ending) -> None:
    fields = {name: getattr(line, name) for name in line.__slots__}
    text = json.dumps(fields, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    # One write to a file that is opened to append: those of several processes do not mix.
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)
