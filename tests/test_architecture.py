"""The budgets of the house, read from the source: sizes, parameters, nesting, state, mirrors.

Exceptions are listed here with their reason; the list, like every other count below, may only
fall.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

import pytest

import aiopatterns

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = Path(aiopatterns.__file__).resolve().parent
ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in FILES}

MAX_CODE_LINES = 350
MAX_LINES = 700
MAX_BODY = 30
MAX_BODY_P90 = 15
MAX_PARAMETERS = 8
MAX_NESTING = 3

# Each with its reason; nothing is added without one.
EXCEPTIONS: dict[str, str] = {}

# These counts may only fall: lower the number when you remove one.
RATCHETS = {
    "noqa": 10,
    "type: ignore": 12,
    "pyright: ignore": 3,
    "pragma: no cover": 0,
    "pytest.mark.skip": 0,
    "pytest.mark.xfail": 0,
    "pytest.skip(": 0,
}
MAX_EXCEPTIONS = 0

# Rooms that may import asyncio, time, random and datetime; ruff's banned-api holds the same line.
ASYNCIO_FILES = {
    "core/clock.py",
    "core/waiters.py",
    "core/flight.py",
    "flow/executors.py",
    "jobs/supervisor.py",
    "gateway/transport_fast.py",
    "contrib/aiohttp.py",
    "contrib/dask.py",
}
CLOCK_FILES = {"core/clock.py"}
# Datetimes are taken from users and from cron expressions there; "now" comes from core/clock.
DATETIME_FILES = {"jobs/schedule.py"}
CLOCK_MODULES = {"time", "random", "datetime"}
BANNED_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
BANNED_CALLS = {"eval", "exec", "compile"}

# Lowest first; a room imports only rooms on lower floors. The test kit stands beside the house.
FLOORS = (
    {"core"},
    {"backends"},
    {"resilience"},
    {"flow", "cache"},
    {"cluster"},
    {"jobs", "messaging", "data"},
    {"gateway", "processor"},
    {"dashboard", "contrib"},
    {"cli"},
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)


def functions() -> list[tuple[str, Function]]:
    return [
        (f"{name}:{node.name}", node)
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, Function)
    ]


def code_lines(path: Path) -> int:
    """Lines that hold code: no blanks, comments or docstrings."""
    source = path.read_text("utf-8")
    held = {n for n, line in enumerate(source.splitlines(), 1) if line.split("#")[0].strip()}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and _is_text(node):
            held -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(held)


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def body_lines(function: Function) -> int:
    """Lines from the first statement after the docstring to the last."""
    body = function.body[1:] if _is_text(function.body[0]) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def nesting(node: ast.AST, depth: int = 0) -> int:
    """Depth of blocks; an ``elif`` is no deeper than its ``if``; inner functions count anew."""
    deepest = depth
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, Function):
                continue
            chained = isinstance(node, ast.If) and field == "orelse" and isinstance(child, ast.If)
            inner = depth + 1 if isinstance(child, BLOCKS) and not chained else depth
            deepest = max(deepest, nesting(child, inner))
    return deepest


def excused(found: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in found.items() if name not in EXCEPTIONS}


@pytest.mark.promise("habits-budgets")
def test_files_are_small():
    sizes = {path.relative_to(PACKAGE).as_posix(): path for path in FILES}
    code = {name: n for name, path in sizes.items() if (n := code_lines(path)) > MAX_CODE_LINES}
    whole = {
        name: n
        for name, path in sizes.items()
        if (n := len(path.read_text("utf-8").splitlines())) > MAX_LINES
    }
    assert not excused(code), f"more than {MAX_CODE_LINES} lines of code"
    assert not excused(whole), f"more than {MAX_LINES} lines"


@pytest.mark.promise("habits-budgets")
def test_functions_are_short():
    sizes = {name: body_lines(function) for name, function in functions()}
    long = {name: size for name, size in sizes.items() if size > MAX_BODY}
    assert not excused(long), f"bodies of more than {MAX_BODY} lines"
    assert quantiles(sizes.values(), n=10)[-1] <= MAX_BODY_P90


@pytest.mark.promise("habits-budgets")
def test_functions_have_few_parameters():
    many = {}
    for name, function in functions():
        spec = function.args
        named = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]
        count = len([each for each in named if each.arg not in {"self", "cls"}])
        if count > MAX_PARAMETERS:
            many[name] = count
    assert not excused(many), f"more than {MAX_PARAMETERS} parameters"


@pytest.mark.promise("habits-budgets")
def test_blocks_are_nested_little():
    deep = {name: n for name, function in functions() if (n := nesting(function)) > MAX_NESTING}
    assert not excused(deep), f"blocks nested deeper than {MAX_NESTING}"


def test_no_module_has_mutable_state():
    mutable = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    found = {}
    for name, tree in TREES.items():
        for node in tree.body:
            if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {each.id for each in targets if isinstance(each, ast.Name)} - {"__all__"}
            if names and (isinstance(node.value, mutable) or _makes_mutable(node.value)):
                found[f"{name}:{names.pop()}"] = node.lineno
    assert not excused(found), "mutable state of a module"


def _makes_mutable(value: ast.expr) -> bool:
    makers = {"list", "dict", "set", "defaultdict", "deque", "Counter"}
    return isinstance(value, ast.Call) and ast.unparse(value.func) in makers


def test_clocks_chance_and_asyncio_have_one_door_each():
    found = []
    for name, tree in TREES.items():
        imported = _imported(tree)
        if "asyncio" in imported and name not in ASYNCIO_FILES and not _is_free(name):
            found.append(f"{name} imports asyncio")
        if name not in CLOCK_FILES and not name.startswith("testing/"):
            allowed = {"datetime"} if name in DATETIME_FILES else set()
            found += [f"{name} imports {each}" for each in (imported & CLOCK_MODULES) - allowed]
        found += [f"{name} imports {each}" for each in imported & BANNED_MODULES]
    assert not found


def _is_free(name: str) -> bool:
    return name.startswith(("testing/", "backends/redis/"))


def _imported(tree: ast.Module) -> set[str]:
    """Top-level modules imported at run time (not under ``if TYPE_CHECKING``)."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.promise("habits-floors")
def test_a_room_imports_only_rooms_on_lower_floors():
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    found = []
    for name, tree in TREES.items():
        room = name.partition("/")[0]
        if room not in floor:
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            parts = node.module.split(".")
            if parts[0] != "aiopatterns" or len(parts) < 2 or parts[1] == room:
                continue
            if floor.get(parts[1], len(FLOORS)) >= floor[room]:
                found.append(f"{name} imports {node.module}")
    assert not found


@pytest.mark.promise("habits-two-commands")
def test_the_two_commands_make_an_environment_each():
    """What the recipes would do on a fresh machine; a change is tested by them as a whole."""

    def recipe(target: str) -> str:
        command = ["make", "-n", target, "RUN=build/no-run", "TEST=build/no-test"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout

    assert "build/no-run" in recipe("run")
    assert "--group" not in recipe("run")
    assert "no-test" not in recipe("run")
    assert "build/no-test -e '.[cli,uvloop]' --group test" in recipe("test")
    assert "no-run" not in recipe("test")
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "$ make run" in readme
    assert "$ make test" in readme


def test_nothing_evaluates_code():
    found = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in BANNED_CALLS
    ]
    assert not found


def test_every_file_has_its_mirror():
    missing = []
    for name in TREES:
        path = Path(name)
        if path.name.startswith("__") or len(path.parts) < 2:
            continue
        mirror = ROOT / "tests" / path.parent / f"test_{path.name}"
        if not mirror.is_file():
            missing.append(f"{name} has no {mirror.relative_to(ROOT)}")
    assert not missing


def test_every_public_name_says_what_it_is():
    bare = []
    for name, tree in TREES.items():
        if ast.get_docstring(tree) is None:
            bare.append(name)
        exported = _exported(tree)
        for node in tree.body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            overload = any(ast.unparse(each) == "overload" for each in node.decorator_list)
            if node.name in exported and not overload and ast.get_docstring(node) is None:
                bare.append(f"{name}:{node.name}")
    assert not bare


def _exported(tree: ast.Module) -> set[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


@pytest.mark.promise("habits-ratchets")
def test_escape_hatches_only_fall():
    sources = [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]
    texts = [path.read_text("utf-8") for path in sources if path != Path(__file__).resolve()]
    counts = {
        word: sum(len(re.findall(re.escape(word), text)) for text in texts) for word in RATCHETS
    }
    above = {word: (n, RATCHETS[word]) for word, n in counts.items() if n > RATCHETS[word]}
    slack = {word: (n, RATCHETS[word]) for word, n in counts.items() if n < RATCHETS[word]}
    assert not above, "(found, allowed): remove some"
    assert not slack, "(found, allowed): lower the number in RATCHETS"
    assert len(EXCEPTIONS) == MAX_EXCEPTIONS


@pytest.mark.promise("habits-no-hosts")
def test_no_file_names_an_index_host_or_a_path_of_some_machine():
    hosts = ["py" + "pi.org", "python" + "hosted", "registry." + "npmjs", "deb." + "debian.org"]
    paths = ["/ho" + "me/", "/ro" + "ot/", "/wo" + "rk/", "/tm" + "p/bash"]
    secrets = [r"-----BEGIN [A-Z ]*PRIVATE KEY", r"AKIA[0-9A-Z]{16}", r"gh[pousr]_[A-Za-z0-9]{30}"]
    pattern = re.compile("|".join([*map(re.escape, hosts + paths), *secrets]))
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _committed()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


def _committed() -> list[Path]:
    """Text files of the project, without environments, caches and what runs have written."""
    kinds = {".py", ".toml", ".md", ".yml", ".yaml", ".json", ".txt", ".css", ".js", ".html", ""}
    written = {".git", "build", "dist", "site", "__pycache__"}
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            each
            for each in folders
            if each not in written and not re.match(r"\.(venv|\w+_cache|hypothesis)", each)
        ]
        found += [
            Path(folder, name)
            for name in names
            if Path(name).suffix in kinds and not name.startswith(".coverage")
        ]
    return found
