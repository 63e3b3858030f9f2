"""The book of benchmarks is made of reports: what was promised, what was missed, how cost grows."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from benchmarks.growing import Growth, ratio
from benchmarks.harness import Bench, Figure
from benchmarks.page import ELSEWHERE, PARTS, misses, render, summary

SOURCES = Path(__file__).resolve().parent.parent / "benchmarks"
ENVIRONMENT = {
    "python": "3.13.1",
    "system": "Linux",
    "machine": "x86_64",
    "versions": {"anyio": "4.9"},
    "missing": ["cashews"],
}


def measured(*, ours: float = 2.0, part: str | None = "Channel", known: str | None = None) -> dict:
    """Return the report of a file with one case; its contenders tell their figures."""
    bench = Bench("flow/channel")
    case = bench.case("hand-over", clock="count", unit="us/item", part=part)
    for role, name, figure in (
        (case.ours, "Channel", ours),
        (partial(case.peer, follows="its example"), "asyncio.Queue", 4.0),
        (partial(case.peer, follows="its example"), "a slow one", 9.0),
    ):
        role(name)(silent)
        case.entries[-1].figures += [figure] * 3
    case.at_most(0.6, of="asyncio.Queue", known=known)
    case.under(10)
    return {"bench": bench.name, "environment": ENVIRONMENT, "loops": {"uvloop": [case.report()]}}


async def silent() -> Figure:
    raise AssertionError


def grown(times: list[float], because: str | None = None) -> dict:
    pattern = {
        "pattern": "Dag",
        "load": "tasks",
        "loads": [10, 100, 1_000],
        "operation": "task",
        "clock": "cpu",
        "microseconds": times,
        "bytes": [500.0, 50.0, 5.0],
        "server_bytes": [100.0, 100.0, 99.0],
        "because": because,
    }
    return {"bench": "growth/flow", "environment": ENVIRONMENT, "growth": [pattern]}


def test_a_row_shows_ours_beside_the_fastest_peer_with_goal_and_verdict():
    rows = list(summary([measured()]))
    assert (
        "| Channel | hand-over (flow/channel) | Channel: 2 us/item | asyncio.Queue: 4 | 0.5"
        " | 0.6 times asyncio.Queue | 0.5 | reached |" in rows
    )
    assert sum(row.startswith("| Channel |") for row in rows) == 2  # one for each goal
    assert "| WorkerPool | **not measured** | | | | | | |" in rows
    assert any("make disaster" in row for row in rows)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("the bare task alone takes 3 us", "the bare task alone takes 3 us."),
        (None, "not yet known why."),
    ],
)
def test_what_was_missed_is_named_with_its_reason(known, said):
    report = measured(ours=3.0, known=known)
    (missed,) = misses([report])
    assert (missed.bench, missed.loop, missed.goal["reached"]) == ("flow/channel", "uvloop", 0.75)
    page = render([report])
    assert f"at most 0.6 times asyncio.Queue, reached 0.75: {said}" in page
    assert "| **missed** |" in page
    assert "## Missed\n\nNothing." in render([measured()])


def test_goals_of_cases_outside_the_contract_stand_with_their_case_only():
    page = render([measured(part=None)])
    assert "| Channel | **not measured**" in page
    assert "- Channel at most 10 us/item: 2, reached" in page


def test_of_counted_goals_that_many_cases_share_the_worst_is_shown():
    report = measured()
    report["loops"]["uvloop"] += measured(ours=2.2)["loops"]["uvloop"]
    rows = [row for row in summary([report]) if row.startswith("| Channel |")]
    assert len(rows) == 2
    assert "| Channel | worst of 2, hand-over | Channel: 2.2 us/item" in rows[0]


def test_peers_that_are_not_there_and_files_that_failed_are_named():
    page = render([measured()], left_out=["arq"], failed=["jobs/bench_worker"])
    assert "Left out, for they could not be had here: arq, cashews." in page
    assert "**Failed, so not below: `jobs/bench_worker`.**" in page
    assert "Python 3.13.1, Linux x86_64; anyio 4.9." in page
    assert "not measured" in render([])  # whatever failed, a page is written


def test_what_grows_says_why():
    page = render([measured(), grown([1.0, 3.0, 9.0], because="it sorts")])
    assert "| Dag, task (cpu) | 10 tasks | 1 | 3 | 9 | 9 | 500 | 50 | 5 | 0.01 |" in page
    assert "| the same, in the server | 10 tasks | | | | | 100 | 100 | 99 | 0.99 |" in page
    assert "- **Dag**: time 9 times: it sorts." in page
    assert "- **Dag**: time 9 times: not yet known why." in render([grown([1.0, 3.0, 9.0])])
    assert "None of them grows." in render([grown([1.0, 1.1, 1.2])])


def test_growth_is_that_of_each_operation_and_memory_that_of_each_item():
    growth = Growth("growth/test")

    @growth.pattern("a list", load="items", once=10, operation="look", loop="simulated")
    async def kept(load, meter) -> None:
        items = [bytes(10_000) for _ in range(load)]
        meter.server_holds(64 * load)
        with meter.over(10):
            assert all(sum(map(len, items)) == 10_000 * load for _ in range(10))

    report = growth.patterns[0].measure(1)
    assert report["loads"] == [10, 100, 1_000]
    assert ratio(report["microseconds"]) > 5
    assert 10_000 < report["bytes"][2] < 11_000
    assert report["server_bytes"] == [64.0, 64.0, 64.0]


def test_every_part_of_the_contract_has_a_case():
    text = "".join(path.read_text("utf-8") for path in sorted(SOURCES.glob("*/bench_*.py")))
    named = set(re.findall(r'part="([^"]+)"', text)) | set(re.findall(r'part = "([^"]+)"', text))
    assert sorted(named) == sorted(set(PARTS) - set(ELSEWHERE))
