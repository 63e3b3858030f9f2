"""The fault book: what ``make stress`` has measured, as ``docs/reliability.md``.

Its items are the rows of the group ``fault`` of the promise table. An item is held if every test
that holds it, or a part of it, has run and passed; what failed, and what did not run, is named.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from benchmarks.jobs import disaster
from tests import promises
from tests.figures import Ending, Figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["DISASTER", "PAGE", "Item", "Run", "items", "page", "section", "verdict"]

PAGE = promises.ROOT / "docs" / "reliability.md"
DISASTER = "fault-20-disaster"
SHOWN = 60  # figures of an item; more are counted
EACH = 6  # tests of a file that are named one by one

HEAD = """# Reliability

The fault book: what goes wrong in production is done here on purpose, again and again, and this is
what came of it. A kill is SIGKILL of another process; Redis, Sentinel, the cluster and PostgreSQL
are real and started by the tests. The page is written by `make stress`, which fails if an item does;
a short form of every item is in `make test`. [Promises](promises.md) names the tests of every
promise, [Benchmarks](benchmarks.md) what all of it costs.
"""


@final
@dataclass(frozen=True, slots=True)
class Run:
    """What a run of the command has left."""

    machine: dict[str, str]  # what it ran on and with, in words
    figures: Sequence[Figure] = ()
    endings: Sequence[Ending] = ()
    disaster: dict[str, Any] = field(default_factory=dict)
    broken: Sequence[str] = ()  # commands that did not get to run their tests

    def with_more(self, run: Run) -> Run:
        """Return this run with the items of a later one in place of its own."""
        again = {each.test for each in run.endings}
        return Run(
            {**run.machine, "took": "in parts, one item after the other"},
            [*(each for each in self.figures if each.test not in again), *run.figures],
            [*(each for each in self.endings if each.test not in again), *run.endings],
            run.disaster or self.disaster,
            run.broken,
        )

    def save(self, target: Path) -> None:
        """Write all of it to a file."""
        target.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, source: Path) -> Run:
        """Read what was saved."""
        told = json.loads(source.read_text("utf-8"))
        figures = [Figure(**each) for each in told.pop("figures")]
        endings = [Ending(**each) for each in told.pop("endings")]
        return cls(figures=figures, endings=endings, **told)


@final
@dataclass(frozen=True, slots=True)
class Item:
    """One item of the book, and the tests that show it."""

    row: str
    text: str
    tests: Sequence[str]

    @property
    def number(self) -> str:
        """Its number, as the command wants it."""
        return self.row.split("-")[1]

    @property
    def title(self) -> str:
        """Its name in words."""
        return " ".join(self.row.split("-")[2:]).capitalize()


@final
@dataclass(slots=True)
class Verdict:
    """How the tests of an item have ended."""

    passed: int = 0
    seconds: float = 0.0
    failed: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether all have run, and none failed."""
        return bool(self.passed) and not self.failed and not self.missing

    def __str__(self) -> str:
        if self.held:
            return "held"
        return "**FAILED**" if self.failed else "**not run**"


def items(held: Mapping[str, list[str]]) -> list[Item]:
    """Return the items of the book, with the tests that hold each."""
    return [
        Item(row, promise.text, promises.holders(promise, held))
        for row, promise in promises.catalogue().items()
        if row.startswith("fault-")
    ]


def verdict(item: Item, run: Run) -> Verdict:
    """Say how an item did; of a test that ran again, after it failed, the last run counts."""
    if item.row == DISASTER:
        return _of_disaster(run.disaster)
    found, last, failed = Verdict(missing=list(item.tests)), dict[str, Ending](), set[str]()
    for each in run.endings:
        if _base(each.test) in item.tests:
            last[each.test] = each
            found.seconds += each.seconds
            if each.outcome == "failed":
                failed.add(each.test)
    for each in last.values():
        if each.outcome == "passed":
            found.passed += 1
            if each.test in failed:
                found.again.append(each.test)
        else:
            (found.failed if each.outcome == "failed" else found.skipped).append(each.test)
        if _base(each.test) in found.missing:
            found.missing.remove(_base(each.test))
    return found


def _of_disaster(told: Mapping[str, Any]) -> Verdict:
    ours = [each for each in told.get("outcomes", ()) if each["contender"] == "aiopatterns"]
    wrong = [each["disaster"] for each in ours if each["lost"] or each["done"] < told["jobs"]]
    missing = [] if ours else ["make disaster"]
    return Verdict(passed=len(ours) - len(wrong), failed=wrong, missing=missing)


def page(book: Sequence[Item], run: Run) -> str:
    """Render the whole page."""
    verdicts = [verdict(each, run) for each in book]
    lines = [HEAD, "## The last run\n", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in run.machine.items()]
    lines += [f"| broken | {each} |" for each in run.broken]
    lines += ["\n## All items\n", "| | promise | runs | verdict |", "|---|---|---|---|"]
    for item, found in zip(book, verdicts, strict=True):
        link = f"[{item.title}](#{_anchor(item)})"
        lines.append(f"| {item.number} | {link}: {_cell(item.text)} | {found.passed} | {found} |")
    for item, found in zip(book, verdicts, strict=True):
        lines.append(section(item, found, run))
    return "\n".join(lines) + "\n"


def section(item: Item, found: Verdict, run: Run) -> str:
    """Render one item."""
    lines = [f"\n## {item.number}. {item.title}\n", f"{item.text}.\n"]
    lines.append(f'```console\n$ make stress ARGS="--only {item.number}"\n```\n')
    lines.append(f"Verdict: {found}.{_told(found)}\n")
    for what in ("failed", "again", "skipped"):
        lines += [f"* {_WORDS[what]}: `{each}`" for each in getattr(found, what)]
    lines += [f"* did not run: {each}" for each in _named(found.missing)]
    if item.row == DISASTER:
        lines.append(_disaster(run.disaster))
    lines += _figures(item, run.figures)
    lines += _tests(item)
    return "\n".join(lines)


_WORDS = {
    "failed": "failed",
    "again": "failed at first, beside others, and passed alone",
    "skipped": "not on this machine",
}


def _told(found: Verdict) -> str:
    if not found.seconds:
        return ""
    return f" {found.passed:,} runs of its tests passed, in {found.seconds:,.0f} s of work."


def _figures(item: Item, figures: Iterable[Figure]) -> list[str]:
    """Render the figures of an item, those of one test under its name."""
    last = {(each.test, each.name): each for each in figures if _base(each.test) in item.tests}
    if not last:
        return []
    lines, test = ["\n| measured | |", "|---|---|"], ""
    for each in sorted(last.values(), key=lambda figure: _base(figure.test))[:SHOWN]:
        if _base(each.test) != test:
            test = _base(each.test)
            lines.append(f"| *{test.rpartition('::test_')[2].replace('_', ' ')}* | |")
        lines.append(f"| {each.name}{_of(each.test)} | {each.told} |")
    if len(last) > SHOWN:
        lines.append(f"| and {len(last) - SHOWN} more | |")
    return lines


def _tests(item: Item) -> list[str]:
    """Name the long forms, and where the others are."""
    long = [each for each in item.tests if each.startswith("tests/stress/")]
    lines = [""] * bool(item.tests) + [f"* {each}" for each in _named(long)]
    files = Counter(each.partition("::")[0] for each in item.tests if each not in long)
    if files:
        named = ", ".join(f"`{file}` ({number})" for file, number in files.items())
        lines.append(f"* in `make test` as well: {named}")
    return lines


def _named(tests: Sequence[str]) -> list[str]:
    """Name tests one by one, or their file if there are many in it."""
    files = Counter(each.partition("::")[0] for each in tests)
    few = [f"`{each}`" for each in tests if files[each.partition("::")[0]] <= EACH]
    return few + [f"`{file}` ({number})" for file, number in files.items() if number > EACH]


def _disaster(told: dict[str, Any]) -> str:
    if not told:
        return ""
    outcomes = [disaster.Outcome(**each) for each in told["outcomes"]]
    tables = [disaster.table(each, outcomes, told["versions"]) for each in disaster.DISASTERS]
    return "\n" + "\n\n".join(tables)


def _base(test: str) -> str:
    return test.partition("[")[0]


def _of(test: str) -> str:
    """The parameters of a test, without its loop."""
    parts = test.partition("[")[2].removesuffix("]").split("-")
    told = [each for each in parts if each not in {"", "asyncio", "uvloop", "sim"}]
    return f" ({', '.join(told)})" if told else ""


def _anchor(item: Item) -> str:
    return f"{item.number}-{item.title.lower().replace(' ', '-')}"


def _cell(text: str) -> str:
    return text.replace("|", chr(92) + "|")
