"""The fault book is written from a run, and names whatever failed or was not run."""

from __future__ import annotations

import re

import pytest

from tests import promises
from tests.faultbook import DISASTER, PAGE, Item, Run, page, section, verdict
from tests.figures import Ending, Figure
from tests.stress.__main__ import SOAK

TEST = "tests/stress/test_jobs.py::test_kills"
SHORT = "tests/jobs/test_kills.py::test_a_kill"
ITEM = Item("fault-01-worker-killed", "Workers that are killed lose no job", [SHORT, TEST])
PASSED = [Ending(f"{TEST}[asyncio-always]", "passed", 12.0), Ending(SHORT, "passed", 1.0)]
ROWS = [each for each in promises.catalogue().values() if each.row.startswith("fault-")]


def told(*endings, figures=()):
    run = Run({"Python": "3.13"}, figures, [*PASSED, *endings])
    return section(ITEM, verdict(ITEM, run), run)


def test_an_item_is_shown_with_its_command_figures_and_tests():
    figures = [Figure(f"{TEST}[asyncio-always]", "jobs lost", 0, "of 20,000")]
    shown = told(figures=figures)
    assert "## 01. Worker killed\n\nWorkers that are killed lose no job." in shown
    assert 'make stress ARGS="--only 01"' in shown
    assert "Verdict: held. 2 runs of its tests passed, in 13 s of work." in shown
    assert "| *kills* | |\n| jobs lost (always) | 0 of 20,000 |" in shown
    assert f"* `{TEST}`" in shown
    assert "* in `make test` as well: `tests/jobs/test_kills.py` (1)" in shown


def test_what_failed_did_not_run_or_passed_at_the_second_try_is_named():
    failed = told(Ending(SHORT, "failed", 1.0))
    assert "Verdict: **FAILED**." in failed
    assert f"* failed: `{SHORT}`" in failed
    again = told(Ending(f"{TEST}[x]", "failed", 1.0), Ending(f"{TEST}[x]", "passed", 1.0))
    assert "Verdict: held." in again
    assert f"* failed at first, beside others, and passed alone: `{TEST}[x]`" in again
    skipped = told(Ending(f"{SHORT}[x]", "skipped", 0.0))
    assert f"* not on this machine: `{SHORT}[x]`" in skipped
    run = Run({}, endings=PASSED[:1])
    assert "Verdict: **not run**." in section(ITEM, verdict(ITEM, run), run)
    assert f"* did not run: `{SHORT}`" in section(ITEM, verdict(ITEM, run), run)


@pytest.mark.parametrize(
    ("ours", "said"), [((1000, 0), "held"), ((999, 1), "**FAILED**"), (None, "**not run**")]
)
def test_the_disaster_is_judged_by_what_is_lost_of_ours(ours, said):
    item = Item(DISASTER, "None is lost", [])
    peer = {"contender": "arq", "done": 800, "lost": 200}
    both = (
        [peer]
        if ours is None
        else [peer, {"contender": "aiopatterns", "done": ours[0], "lost": ours[1]}]
    )
    outcome = {"disaster": "Redis kill -9, back after 1 s", "twice": 0, "alive": True}
    outcome |= {"all_done": None, "unwritten": 0}
    run = Run({}, disaster={"jobs": 1000, "outcomes": [{**outcome, **each} for each in both]})
    assert str(verdict(item, run)) == said


def test_a_run_is_saved_and_an_item_of_a_later_one_takes_the_place_of_its_own(tmp_path):
    figures = [Figure(SHORT, "jobs", 3), Figure(TEST, "jobs", 4)]
    Run({"date": "1"}, figures, PASSED, broken=["pytest"]).save(tmp_path / "run")
    first = Run.load(tmp_path / "run")
    assert first == Run({"date": "1"}, figures, PASSED, broken=["pytest"])
    later = Run({"date": "2"}, [Figure(SHORT, "jobs", 5)], [Ending(SHORT, "failed", 2.0)])
    both = first.with_more(later)
    assert [each.value for each in both.figures] == [4, 5]
    assert verdict(ITEM, both).failed == [SHORT]
    assert both.machine["date"] == "2"


def test_a_page_has_all_items_and_says_what_was_broken():
    book = [ITEM, Item("fault-02-redis-killed", "a | b", [])]
    shown = page(book, Run({"Python": "3.13"}, endings=PASSED, broken=["pytest ended with 3"]))
    assert "| Python | 3.13 |\n| broken | pytest ended with 3 |" in shown
    assert (
        "| 01 | [Worker killed](#01-worker-killed): Workers that are killed lose no job | 2 | held |"
        in shown
    )
    assert "| 02 | [Redis killed](#02-redis-killed): a \\| b | 0 | **not run** |" in shown
    assert "\n## 02. Redis killed\n" in shown


@pytest.mark.promise("habits-fault-book")
@pytest.mark.parametrize("row", ROWS, ids=[each.row for each in ROWS])
def test_the_page_has_every_item_with_a_verdict(row):
    found = re.search(
        rf"\n## {row.row.split('-')[1]}\. (.*?)(?=\n## |\Z)", PAGE.read_text("utf-8"), re.DOTALL
    )
    assert found is not None, "run `make stress`"
    assert row.text in found[1]
    assert "\nVerdict: " in found[1]


@pytest.mark.promise("habits-fault-book")
def test_the_page_names_tests_that_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(?:\w+::)*(test_\w+))?", PAGE.read_text("utf-8"))
    texts = {path: path.read_text("utf-8") for path in (promises.ROOT / "tests").rglob("test_*.py")}
    # By their names alone: a long form may be the tests of another file once more.
    tests = {each for text in texts.values() for each in re.findall(r"def (test_\w+)\(", text)}
    files = {str(path.relative_to(promises.ROOT)) for path in texts}
    assert named
    assert not {file for file, _ in named} - files, "run `make stress`"
    assert not {test for _, test in named if test} - tests, "run `make stress`"


def test_the_soak_that_runs_beside_the_rest_is_there():
    file, _, test = SOAK.partition("::")
    assert f"def {test}(" in (promises.ROOT / file).read_text("utf-8")
