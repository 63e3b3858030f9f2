"""The promise table: every promise of the project, and the tests that hold it.

``tests/promises.toml`` is the catalogue, one row for each promise. A test says which rows it
holds by ``@pytest.mark.promise("row-id", ...)``. ``docs/promises.md`` is written from both by
``make promises``; ``tests/test_promises.py`` fails on a row that no test holds, on a marker that
names no row, and on a page that is out of date.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = ROOT / "tests" / "promises.toml"
PAGE = ROOT / "docs" / "promises.md"
HELD: pytest.StashKey[dict[str, list[str]]] = pytest.StashKey()

HEAD = """# Promises and the tests that hold them

This page is written from the tests by `make promises`; the test command fails when a promise
has no test. A promise that no test can hold names the command that shows it, and its file.
"""


@dataclass(frozen=True, slots=True)
class Promise:
    """One row of the catalogue."""

    row: str
    group: str
    text: str
    shown_by: tuple[str, str] | None  # the command and its file, where no test can hold it


def catalogue() -> dict[str, Promise]:
    """Read the catalogue; rows by their id, in the order of the file."""
    groups = tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))
    found: dict[str, Promise] = {}
    for key, group in groups.items():
        for row, entry in group["rows"].items():
            text, *shown = [entry] if isinstance(entry, str) else entry
            name = f"{key}-{row}"
            found[name] = Promise(
                name, group["title"], text, (shown[0], shown[1]) if shown else None
            )
    return found


def note(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Keep which collected tests hold which rows, without their parameters."""
    held: dict[str, list[str]] = {}
    for item in items:
        test = item.nodeid.partition("[")[0]
        for mark in item.iter_markers("promise"):
            for row in mark.args:
                tests = held.setdefault(row, [])
                if test not in tests:
                    tests.append(test)
    config.stash[HELD] = {row: sorted(tests) for row, tests in sorted(held.items())}


def noted(config: pytest.Config) -> dict[str, list[str]]:
    """Return what :func:`note` kept."""
    return config.stash[HELD]


def problems(held: Mapping[str, list[str]]) -> list[str]:
    """Say which rows nobody holds and which markers name no row."""
    rows = catalogue()
    found = [
        f"no test holds {row!r}: {promise.text}"
        for row, promise in rows.items()
        if promise.shown_by is None and row not in held
    ]
    found += [
        f"{row!r} names a file that does not exist: {promise.shown_by[1]}"
        for row, promise in rows.items()
        if promise.shown_by is not None and not (ROOT / promise.shown_by[1]).is_file()
    ]
    found += [
        f"{tests[0]} names the unknown row {row!r}"
        for row, tests in held.items()
        if row not in rows
    ]
    return found


def page(held: Mapping[str, list[str]]) -> str:
    """Render the table as Markdown."""
    lines = [HEAD]
    title = ""
    for row, promise in catalogue().items():
        if promise.group != title:
            title = promise.group
            lines += [f"\n## {title}\n", "| promise | held by |", "|---|---|"]
        proof = [f"`{test}`" for test in held.get(row, [])]
        if promise.shown_by is not None:
            proof.append("`{}` ({})".format(*promise.shown_by))
        lines.append(f"| {promise.text.replace('|', chr(92) + '|')} | {'<br>'.join(proof)} |")
    return "\n".join(lines) + "\n"


def write_page(held: Mapping[str, list[str]]) -> None:
    """Write ``docs/promises.md``."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(held), encoding="utf-8")


def write_report(held: Mapping[str, list[str]], target: Path) -> None:
    """Write which tests hold which rows, for :func:`read_report` of another process."""
    target.write_text(json.dumps(held), encoding="utf-8")


def read_report(source: Path) -> dict[str, list[str]]:
    """Read what :func:`write_report` wrote."""
    held: dict[str, list[str]] = json.loads(source.read_text(encoding="utf-8"))
    return held
