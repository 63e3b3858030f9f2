"""What the package runs on: the interpreters that it names, and no uvloop."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.test_exports import rooms

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "guides" / "compatibility.md"

# A finder that has never heard of uvloop, whatever is installed.
WITHOUT_UVLOOP = """
import importlib.machinery, sys
finder = importlib.machinery.PathFinder
found = finder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] == "uvloop" else found(name, path, target)
finder.find_spec = find_spec
"""


def supported() -> list[str]:
    """The versions that the project names to its installers."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(settings["project"]["classifiers"]))
    assert settings["project"]["requires-python"] == f">={named[0]}"
    return named


def run(code: str, *arguments: str, cwd: Path = ROOT) -> str:
    """The output of a program that has no uvloop."""
    command = [sys.executable, "-c", WITHOUT_UVLOOP + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd).stdout


def test_the_page_and_the_script_name_the_versions_of_the_project():
    page = PAGE.read_text("utf-8")
    assert re.findall(r"^\| Python (3\.\d+) ", page, re.MULTILINE) == supported()
    script = (ROOT / ".ci" / "interpreters").read_text("utf-8")
    assert f"supported=({' '.join(supported())})" in script


@pytest.mark.promise("habits-without-uvloop")
def test_every_room_is_there_without_uvloop():
    names = [room for room in rooms() if not room.startswith("aiopatterns.contrib.")]
    said = run(f"import {', '.join(names)}; print('uvloop' in sys.modules)")
    assert said.strip() == "False"


@pytest.mark.promise("habits-without-uvloop")
@pytest.mark.timeout(60)
def test_the_main_job_runs_without_uvloop(tmp_path):
    (tmp_path / "note.txt").write_text("to be or not to be\n")
    code = "from aiopatterns.cli.app import main; sys.exit(main(sys.argv[1:]))"
    said = run(code, "run", str(tmp_path), "--executor", "inline", "--json", cwd=tmp_path)
    assert '"to"' in said
