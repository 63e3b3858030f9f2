"""Every Python block of every page runs, and so does every example."""

from __future__ import annotations

import ast
import asyncio
import inspect
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from sybil.document import Document
from sybil.example import Example
from sybil.parsers.markdown import CodeBlockParser

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
SMALL_EXAMPLES = sorted((ROOT / "docs" / "examples" / "patterns").glob("*.py"))
HEADINGS = [
    "Quick start",
    "How it works",
    "Choices",
    "Guarantees",
    "Errors",
    "Cost",
    "See also",
]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.promise("habits-examples")
@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_block_of_the_page_runs(page, tmp_path, monkeypatch):
    """Blocks of one page share a namespace and a loop; ``await`` stands at top level."""
    monkeypatch.chdir(tmp_path)
    with asyncio.Runner() as runner:

        def evaluate(example: Example) -> None:
            # The blank lines put the page's own line numbers into a traceback.
            source = "\n" * example.parsed.line_offset + example.parsed
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            code = compile(source, str(page), "exec", flags=flags, dont_inherit=True)
            result = eval(code, example.namespace)
            if inspect.iscoroutine(result):
                runner.run(result)

        document = Document.parse(str(page), CodeBlockParser("python", evaluate))
        document.namespace["__name__"] = "__page__"
        for example in document.examples():
            example.evaluate()


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "patterns").glob("*.md")), ids=_name)
def test_every_pattern_page_has_the_same_headings(page):
    found = [line[3:] for line in page.read_text("utf-8").splitlines() if line.startswith("## ")]
    assert found == HEADINGS


@pytest.mark.timeout(60)
@pytest.mark.promise("habits-examples")
@pytest.mark.parametrize("example", EXAMPLES, ids=_name)
def test_every_example_runs(example, tmp_path):
    """An example checks its own results and leaves with an error if one is wrong."""
    command = [sys.executable, "-W", "error", str(example)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.strip(), "an example says what it has done"


@pytest.mark.promise("habits-examples")
@pytest.mark.parametrize("example", SMALL_EXAMPLES, ids=_name)
def test_every_small_example_runs(example, tmp_path, monkeypatch, capsys):
    """As the main module, but in this process: fifty interpreters would take half a minute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.strip(), "an example says what it has done"
