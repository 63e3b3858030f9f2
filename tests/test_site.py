"""What the pages say about the house is so: floors, doors, budgets, reference, examples."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import aiopatterns
from aiopatterns.cli.app import _parser
from tests.test_exports import rooms

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FRONT_DOOR = DOCS / "reference" / "front-door.md"
# The front door has its own page; the command line is commands; the adapters have no room of theirs.
NO_REFERENCE = {"aiopatterns", "aiopatterns.cli", "aiopatterns.contrib"}


def rows(page: Path, heading: str) -> list[list[str]]:
    """Cells of the first table under a heading of a page, without its head."""
    _, _, below = page.read_text("utf-8").partition(f"## {heading}\n")
    table = re.search(r"^\|.*\n\|[-|]+\n((?:\|.*\n)+)", below, re.MULTILINE)
    assert table is not None, f"{page.name} has no table under {heading}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def budgets() -> dict[str, Any]:
    """The constants of the architecture test, as they stand in its source."""
    tree = ast.parse((ROOT / "tests" / "test_architecture.py").read_text("utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def floors() -> list[set[str]]:
    """The layers that import-linter holds, highest first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["id"] == "floors")
    return [set(re.findall(r"\w+", layer)) for layer in layers]


@pytest.mark.promise("habits-architecture-page")
def test_the_architecture_page_shows_the_floors_that_are_held():
    table = rows(DOCS / "architecture.md", "Floors")
    assert [set(re.findall(r"\w+", cells[1])) for cells in table] == floors()
    assert [int(cells[0]) for cells in table] == list(range(len(table)))[::-1]
    assert list(budgets()["FLOORS"]) == floors()[::-1]


@pytest.mark.promise("habits-architecture-page")
def test_the_picture_of_the_floors_points_only_down():
    page = (DOCS / "architecture.md").read_text("utf-8")
    height = {room: -number for number, each in enumerate(floors()) for room in each}
    arrows = re.findall(r"^ +(\w+) --> (.+)$", page, re.MULTILINE)
    assert {name for name, _ in arrows} == set(height) - {"core"}
    for name, below in arrows:
        assert {height[each] for each in below.split(" & ")} == {height[name] - 1}


@pytest.mark.promise("habits-architecture-page")
def test_the_architecture_page_shows_the_budgets_and_doors_that_are_held():
    held = budgets()
    names = [
        "MAX_CODE_LINES",
        "MAX_LINES",
        "MAX_BODY",
        "MAX_BODY_P90",
        "MAX_PARAMETERS",
        "MAX_NESTING",
    ]
    table = rows(DOCS / "architecture.md", "Budgets")
    assert [int(cells[1]) for cells in table] == [held[name] for name in names]
    page = (DOCS / "architecture.md").read_text("utf-8")
    sentence = re.search(r"^Files that may import asyncio.*?;", page, re.MULTILINE)
    assert sentence is not None
    assert set(re.findall(r"`([\w/.]+)`", sentence[0])) == held["ASYNCIO_FILES"]


def blocks() -> set[str]:
    """What the pages of the reference ask to be documented, with all its members."""
    found = set()
    for page in (DOCS / "reference").glob("*.md"):
        found |= set(re.findall(r"^::: ([\w.]+)", page.read_text("utf-8"), re.MULTILINE))
    return found


def adapters() -> set[str]:
    """Modules of contrib that users are told of; what stands beside them are their parts."""
    pages = "\n".join(page.read_text("utf-8") for page in DOCS.rglob("*.md"))
    return set(re.findall(r"aiopatterns\.contrib\.\w+", pages))


@pytest.mark.promise("habits-reference")
def test_every_room_and_adapter_stands_in_the_reference():
    named = {room for room in rooms() if not room.startswith("aiopatterns.contrib.")}
    wanted = named - NO_REFERENCE | adapters()
    assert not wanted - blocks(), "add a block to a page of docs/reference"


@pytest.mark.promise("habits-reference")
@pytest.mark.parametrize("room", [each for each in rooms() if each not in NO_REFERENCE])
def test_no_public_name_is_hidden_by_a_file_of_its_name(room):
    """A name that a file bears too is found as the file: it needs a block of its own."""
    module = import_module(room)
    folder = Path(aiopatterns.__file__).parent.parent / room.replace(".", "/")
    for name in module.__all__:
        if (folder / f"{name}.py").is_file():
            assert f"{room}.{name}.{name}" in blocks()


def front_door() -> str:
    """The page of the headline names: where each lives, linked to its entry there."""
    lines = [
        "# Front door",
        "",
        "The headline names, to be imported from `aiopatterns` itself. `make exports` writes this.",
        "",
        "| name | lives in |",
        "|---|---|",
    ]
    homes = [import_module(room) for room in rooms() if room.count(".") == 1]
    for name in sorted(aiopatterns.__all__, key=str.lower):
        value = getattr(aiopatterns, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            found = [each.__name__ for each in homes if name in each.__all__]
            assert found, f"{name} is exported by no room"
            room = found[0]
            lines.append(f"| [`{name}`][{room}.{name}] | `{room}` |")
    return "\n".join(lines) + "\n"


@pytest.mark.promise("habits-reference")
def test_the_page_of_the_front_door_has_every_headline():
    assert FRONT_DOOR.read_text("utf-8") == front_door(), "if it is meant, run `make exports`"


def test_every_page_stands_in_the_navigation():
    settings = (ROOT / "mkdocs.yml").read_text("utf-8")
    listed = re.findall(r"^ +- .*: ([\w/.-]+\.md)$", settings, re.MULTILINE)
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert set(listed) == pages, "mkdocs.yml lists every page, and no other"
    assert len(listed) == len(set(listed))


@pytest.mark.promise("habits-example-each")
def test_every_pattern_has_an_example():
    table = [
        (Path(re.findall(r"\(([^)]+)\)", cells[0])[0]), re.findall(r"\(([^)]+)\)", cells[1])[0])
        for cells in rows(DOCS / "examples.md", "By pattern")
    ]
    pages = [page.relative_to(DOCS) for page in sorted((DOCS / "patterns").glob("*.md"))]
    assert [page for page, _ in table] == pages, "add a row to docs/examples.md"
    programs = {DOCS / program for _, program in table}
    assert all(program.is_file() for program in programs)
    assert set((DOCS / "examples" / "patterns").glob("*.py")) <= programs


def commands() -> list[tuple[str, str]]:
    """Every call of the command line that a page shows: in a console, a unit, a container."""
    shown = re.compile(
        r"^(?:\$ (?:[A-Z_]+=\S+ )*|ExecStart=\S*/)(aiopatterns .*)$|\[(\"aiopatterns\",.*)\]",
        re.MULTILINE,
    )
    found = []
    for page in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]:
        for line, listed in shown.findall(page.read_text("utf-8")):
            words = line.partition("#")[0].rstrip("& ") or " ".join(json.loads(f"[{listed}]"))
            found.append((page.relative_to(ROOT).as_posix(), words))
    return found


@pytest.mark.promise("habits-commands")
def test_commands_of_the_pages_are_understood():
    assert len(commands()) > 10
    for page, command in commands():
        _, *arguments = shlex.split(command)
        if {"[", "...", "|"}.isdisjoint(arguments):
            assert _parser().parse_args(arguments).command, page


if __name__ == "__main__":
    FRONT_DOOR.write_text(front_door(), encoding="utf-8")
