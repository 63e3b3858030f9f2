"""The table of all events in docs/guides/events.md says what the source says.

``python -m tests.test_events`` (part of ``make exports``) writes it anew.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest

import aiopatterns

PACKAGE = Path(aiopatterns.__file__).resolve().parent
PAGE = Path(__file__).resolve().parent.parent / "docs" / "guides" / "events.md"
BEGIN = "<!-- events: written by `make exports` -->\n"
END = "<!-- end of events -->\n"
HEAD = "| event | level | fields | when |\n|---|---|---|---|\n"
LEVELS = {"debug", "info", "warning", "error"}


@dataclass
class Class:
    """A class of the package, as its source declares it."""

    name: str
    bases: list[str]
    event: str | None = None
    level: str | None = None
    fields: list[str] = field(default_factory=list)
    when: str = ""


def read(path: Path) -> list[Class]:
    """The classes of a file that may be events."""
    source = path.read_text("utf-8")
    if "Event" not in source:
        return []
    return [_class(node) for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]


def _class(node: ast.ClassDef) -> Class:
    text = (ast.get_docstring(node) or "").partition("\n\n")[0]
    bases = [each.id for each in node.bases if isinstance(each, ast.Name)]
    found = Class(node.name, bases, when=re.sub(r"\s+", " ", text).replace("``", "`"))
    for each in node.body:
        if not (isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)):
            continue
        value = each.value.value if isinstance(each.value, ast.Constant) else None
        if not ast.unparse(each.annotation).startswith("ClassVar"):
            found.fields.append(each.target.id)
        elif each.target.id == "name":
            found.event = str(value)
        elif each.target.id == "level":
            found.level = str(value)
    return found


def events(package: Path = PACKAGE) -> list[Class]:
    """All events by name, with what they inherit; a class that others extend is none itself."""
    paths = [each for each in package.rglob("*.py") if "testing" not in each.parts]
    known = {found.name: found for path in sorted(paths) for found in read(path)}
    bases = {base for each in known.values() for base in each.bases}
    chains = {name: _chain(name, known) for name in known if name not in bases}
    return sorted(
        (_whole(chain) for chain in chains.values() if chain[-1].name == "Event"),
        key=lambda each: str(each.event),
    )


def _chain(name: str, known: dict[str, Class]) -> list[Class]:
    """A class and those that it extends, the first base each time."""
    chain = [known[name]]
    while chain[-1].bases and chain[-1].bases[0] in known:
        chain.append(known[chain[-1].bases[0]])
    return chain


def _whole(chain: list[Class]) -> Class:
    return Class(
        chain[0].name,
        [],
        next(each.event for each in chain if each.event),
        next(each.level for each in chain if each.level),
        [name for each in reversed(chain) for name in each.fields],
        chain[0].when,
    )


def table(found: list[Class]) -> str:
    """The table."""
    rows = (
        f"| `{each.event}` | {each.level} | {', '.join(f'`{name}`' for name in each.fields)}"
        f" | {each.when.replace('|', chr(92) + '|')} |\n"
        for each in found
    )
    return HEAD + "".join(rows)


def halves() -> tuple[str, str, str]:
    """The page before the table, the table, and the page after it."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    inside, _, after = rest.partition(END)
    return before + BEGIN, inside, END + after


@pytest.mark.promise("telemetry-events")
def test_the_table_of_events_is_what_the_source_says():
    _, written, _ = halves()
    assert written == table(events()), "run `make exports`"


def test_names_are_unique_dotted_and_of_the_library_and_levels_are_levels():
    found = events()
    names = [str(each.event) for each in found]
    assert len(names) > 100
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"aiopatterns\.[a-z0-9]+\.[a-z_]+", name) for name in names)
    assert {each.level for each in found} <= LEVELS
    assert all(each.when.endswith(".") for each in found), "an event says when it is told"


def test_what_an_event_is_in_the_source_it_is_at_run_time():
    from aiopatterns.core.telemetry import Event
    from aiopatterns.jobs.workerevents import JobRetried

    (found,) = [each for each in events() if each.name == "JobRetried"]
    assert (found.event, found.level) == (JobRetried.name, JobRetried.level)
    assert found.fields == [each.name for each in fields(JobRetried)]
    assert issubclass(JobRetried, Event)


def test_an_event_without_a_row_and_a_row_without_an_event_are_found(tmp_path):
    (tmp_path / "a.py").write_text(
        "class Event:\n    name: ClassVar[str] = 'x'\n    level: ClassVar[str] = 'info'\n\n"
        "class Base(Event):\n    owner: str\n\n"
        'class Told(Base):\n    """It |\n    happened.\n\n    More.\n    """\n\n'
        "    name: ClassVar[str] = 'aiopatterns.a.told'\n    error: str\n\n"
        "class Other: ...\n"
    )
    rows = table(events(tmp_path))
    assert rows == HEAD + (
        "| `aiopatterns.a.told` | info | `owner`, `error` | It \\| happened. |\n"
    )


if __name__ == "__main__":
    start, _, end = halves()
    PAGE.write_text(start + table(events()) + end, encoding="utf-8")
