"""The book of benchmarks: ``docs/benchmarks.md``, from the reports of all files.

At its head stands what was promised and what came of it, then what was missed, how it is measured,
how cost grows, and the tables of every case.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.growing import FACTORS, GROWS, ratio
from benchmarks.harness import clock_text

Report = Mapping[str, Any]
"""What one file has measured: a case by loops, or growth."""

ELSEWHERE = {
    "Resume after a kill": "`make disaster` kills workers and Redis beside five job queues: see"
    " [Reliability](reliability.md)",
}
"""Parts of the contract that no file here measures, and who does."""

PARTS = (
    "Channel",
    "Calls of 1 ms, mapped",
    "No-ops, mapped",
    "WorkerPool",
    "Pipeline",
    "Policies, success path",
    "Timeout",
    "Stack of four",
    "Cache hit",
    "Cache hit ratio",
    "1,000 GETs on Redis",
    "get_or_load_many",
    "Job",
    "What a job costs Redis",
    "Enqueue, batch",
    "Enqueue to start",
    "Resume after a kill",
    "Stream consumer",
    "EventBus",
    "Broker",
    "Balancer pick",
    "Gateway",
    "Registry",
    "Two-phase commit",
    "Saga",
    "Import",
    "Event",
    "Main job",
)
"""Rows of the contract; a case says by ``part=`` to which its goals belong."""

HEAD = """# Benchmarks

What was promised before anything was measured, and what came of it, beside the best peers and
beside *the limit*: the bare loop that does only the necessary work. Written by `make bench`;
`aiopatterns bench` runs ours alone on your machine.
"""

UNKNOWN = "not yet known why"

METHOD = """## How it is measured

- All contenders of a case run interleaved, one after the other in each round, in an order that
  changes with the round. Each does the same work, asserts that it was done, and keeps the features
  on that it promises: results stored, retries and timeouts armed.
- A figure is the median of the rounds, with its smallest and largest beside it. A ratio is the median
  of the ratios *inside* each round: a noisy machine disturbs both sides of a round alike, so only
  ratios of one run count.
- Less than 15 % is a tie.
- CPU time is that of the process, without waiting; wall time is taken where a server, a disk or sleep
  is a part of the question.
- Peers are tuned as their documentation says; the file of a case names the section. Those whose
  dependencies exclude ours live in environments of their own under `build/peers`, made on first
  use with the newest versions (`python -m benchmarks.peers`). A peer that cannot be had is left
  out and named below.
- The summary shows uvloop where a case ran on both loops; what was missed on either is named.
- One case alone: `make bench ARGS="--only flow/bench_channel"`; it prints, and writes no page.
"""

GROWTH = f"""## How cost grows

Each main pattern at {FACTORS[0]}, {FACTORS[1]} and {FACTORS[2]} times its load. Time is of one
operation, the smallest of several runs; memory is the peak of a run of its own (tracemalloc, for a
server what it says of itself), load included, for each item of the load. The ratio is that of the
last to the first: at 1 an operation costs what it did; where it falls, what a run costs at its start
is shared by more, or a part of the load is held only. Above {GROWS} it grows, and the line below the
table says why.
"""


class Missed(NamedTuple):
    """A goal that was not reached."""

    bench: str
    loop: str
    case: Report
    goal: Report


def render(
    reports: Sequence[Report], *, left_out: Sequence[str] = (), failed: Sequence[str] = ()
) -> str:
    """Return the page.

    Args:
        reports: Of all files that ran.
        left_out: Peers that are not there.
        failed: Files that did not run to their end.
    """
    measured = [each for each in reports if "loops" in each]
    growing = [each for each in reports if "growth" in each]
    lines = [
        HEAD,
        _environment(reports),
        *_left_out(reports, left_out),
        *[f"\n**Failed, so not below: `{each}`.**" for each in failed],
        "\n## Promised and reached\n",
        *summary(measured),
        "\n## Missed\n",
        *_misses(measured),
        "",
        METHOD,
        *growth(growing),
    ]
    for page in measured:
        for loop, cases in page["loops"].items():
            lines.append(f"\n## {page['bench']}, {loop}\n")
            for case in cases:
                lines += _case(case)
    return "\n".join(lines) + "\n"


def _environment(reports: Sequence[Report]) -> str:
    versions: dict[str, str] = {}
    for each in reports:
        versions |= each["environment"]["versions"]
    first = reports[0]["environment"] if reports else {"python": "?", "system": "?", "machine": "?"}
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"Python {first['python']}, {first['system']} {first['machine']}; {named}."


def _left_out(reports: Sequence[Report], peers: Sequence[str]) -> Iterator[str]:
    missing = {name for each in reports for name in each["environment"].get("missing", ())}
    if names := sorted({*peers, *missing}):
        yield f"\nLeft out, for they could not be had here: {', '.join(names)}."


# ---------------------------------------------------------------------------- promised and missed


def summary(reports: Sequence[Report]) -> Iterator[str]:
    """Yield a table with a row for every goal of every part of the contract."""
    yield "| part | case | ours | fastest peer | ours / peer | goal, at most | reached | |"
    yield "|---|---|---|---|---|---|---|---|"
    rows: defaultdict[str, list[str]] = defaultdict(list)
    for bench, case, goal, count in _worst(reports):
        rows[case["part"]].append(_row(bench, case, goal, count))
    for part in (*PARTS, *(each for each in rows if each not in PARTS)):
        told = ELSEWHERE.get(part, "**not measured**")
        for row in rows[part] or [f"| {told} | | | | | | |"]:
            yield f"| {part} {row}"


def _worst(reports: Sequence[Report]) -> Iterator[tuple[str, Report, Report, int]]:
    """Yield each goal of the contract; of those that many cases share, the one nearest to a miss."""
    same: defaultdict[tuple[str, ...], list[tuple[str, Report, Report]]] = defaultdict(list)
    for page in reports:
        loops = page["loops"]
        for case in loops.get("uvloop") or next(iter(loops.values()), ()):
            for goal in case["goals"] if case.get("part") else ():
                key = (page["bench"], case["part"], goal["ours"], goal["bound"])
                if case["clock"] != "count":
                    key = (*key, case["case"])
                same[key].append((page["bench"], case, goal))
    for found in same.values():
        yield *max(found, key=lambda each: each[2]["reached"]), len(found)


def _row(bench: str, case: Report, goal: Report, count: int) -> str:
    ours = next(each for each in case["contenders"] if each["name"] == goal["ours"])
    peers = [each for each in case["contenders"] if each["role"] == "peer"]
    fastest = min(peers, key=lambda each: each["median"], default=None)
    name = f"{case['case']} ({bench})" if count == 1 else f"worst of {count}, {case['case']}"
    cells = [
        name,
        f"{ours['name']}: {ours['median']:.3g} {case['unit']}",
        f"{fastest['name']}: {fastest['median']:.3g}" if fastest else "",
        f"{ours['median'] / fastest['median']:.2g}" if fastest and fastest["median"] else "",
        goal["bound"],
        f"{goal['reached']:.3g}",
        "reached" if goal["met"] else "**missed**",
    ]
    return f"| {' | '.join(cells)} |"


def misses(reports: Sequence[Report]) -> Iterator[Missed]:
    """Yield every goal that was not reached, on every loop."""
    for page in reports:
        for loop, cases in page["loops"].items():
            for case in cases:
                for goal in case["goals"]:
                    if not goal["met"]:
                        yield Missed(page["bench"], loop, case, goal)


def _misses(reports: Sequence[Report]) -> list[str]:
    found = [
        f"- **{each.case['case']}** ({each.bench}, {each.loop}): {each.goal['ours']} at most"
        f" {each.goal['bound']}, reached {each.goal['reached']:.3g}:"
        f" {(each.goal.get('known') or UNKNOWN).rstrip('.')}."
        for each in misses(reports)
    ]
    return found or ["Nothing."]


# -------------------------------------------------------------------------------- how cost grows


def growth(reports: Sequence[Report]) -> Iterator[str]:
    """Yield the section on growth, if it was measured."""
    patterns = [pattern for page in reports for pattern in page["growth"]]
    if not patterns:
        return
    yield GROWTH
    times = " | ".join(f"x{factor}" for factor in FACTORS)
    yield f"| pattern | load | us each, {times} | ratio | bytes each, {times} | ratio |"
    yield "|---" * (2 * len(FACTORS) + 4) + "|"
    for each in patterns:
        load = f"{each['loads'][0]:,} {each['load']}"
        timed = f"{_figures(each['microseconds'])} | {_figures(each['bytes'])}"
        yield f"| {each['pattern']}, {each['operation']} ({each['clock']}) | {load} | {timed} |"
        if each["server_bytes"]:
            empty = "| " * (len(FACTORS) + 1)
            held = _figures(each["server_bytes"])
            yield f"| the same, in the server | {load} {empty}| {held} |"
    yield ""
    growing = [line for each in patterns if (line := _grows(each))]
    yield from growing or ["None of them grows."]
    yield ""


def _figures(figures: Sequence[float]) -> str:
    return f"{' | '.join(f'{each:,.4g}' for each in figures)} | {ratio(figures):.2g}"


def _grows(pattern: Report) -> str | None:
    told = {
        "time": pattern["microseconds"],
        "memory": pattern["bytes"],
        "memory of the server": pattern["server_bytes"] or [1.0],
    }
    grown = {what: ratio(figures) for what, figures in told.items() if ratio(figures) > GROWS}
    if not grown:
        return None
    what = ", ".join(f"{name} {times:.2g} times" for name, times in grown.items())
    return f"- **{pattern['pattern']}**: {what}: {(pattern['because'] or UNKNOWN).rstrip('.')}."


# ------------------------------------------------------------------------------------- one case


def _case(case: Report) -> list[str]:
    lines = [
        f"**{case['case']}** ({case['unit']}{clock_text(case['clock'])})\n",
        "| | contender | median | min - max | ours, times this |",
        "|---|---|---|---|---|",
    ]
    for each in case["contenders"]:
        over = "" if each["role"] == "ours" else f"{each['ours_over_it']:.2f}"
        lines.append(
            f"| {each['role']} | {each['name']} | {each['median']:.3g} "
            f"| {each['min']:.3g} - {each['max']:.3g} | {over} |"
        )
    lines.append("")
    for goal in case["goals"]:
        verdict = "reached" if goal["met"] else "**missed**"
        lines.append(f"- {goal['ours']} at most {goal['bound']}: {goal['reached']:.3g}, {verdict}")
    return [*lines, ""]
