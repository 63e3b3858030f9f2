from __future__ import annotations

import json
from collections import Counter, defaultdict

import pytest

from aiopatterns.processor.progress import Progress
from aiopatterns.processor.trace import render_trace
from tests.processor.records import make_progress


def check(text: str) -> list[dict]:
    """Every begin has its end, on its track, in order; times never fall."""
    events = json.loads(text)["traceEvents"]
    assert [each["ts"] for each in events] == sorted(each["ts"] for each in events)
    stacks: defaultdict[int, list[str]] = defaultdict(list)
    spans: Counter[tuple] = Counter()
    arrows: dict[int, str] = {}
    for each in events:
        kind = each["ph"]
        if kind == "B":
            assert not stacks[each["tid"]], "one task at a time on a track"
            stacks[each["tid"]].append(each["name"])
        elif kind == "E":
            assert stacks[each["tid"]].pop() == each["name"]
        elif kind in "be":
            spans[each["cat"], each["id"], each["name"]] += 1 if kind == "b" else -1
            assert spans[each["cat"], each["id"], each["name"]] in {0, 1}
        elif kind in "sf":
            arrows[each["id"]] = arrows.get(each["id"], "") + kind
    assert not any(stacks.values())
    assert not any(spans.values())
    assert all(each == "sf" for each in arrows.values())
    return events


@pytest.mark.promise("processor-trace")
def test_the_trace_parses_and_its_pairs_match():
    progress = make_progress(5)
    kinds = Counter(each["ph"] for each in check(render_trace(progress)))
    assert kinds["B"] == kinds["E"] == 16
    assert kinds["b"] == kinds["e"] == 4
    assert kinds["s"] == kinds["f"] == 5
    assert kinds["C"] == len(progress.samples) == 18
    assert kinds["M"] == 6  # the process, the stages, two processes, a thread, main


@pytest.mark.promise("processor-trace")
def test_the_trace_of_a_run_that_was_broken_off():
    progress = Progress()
    assert Counter(each["ph"] for each in check(render_trace(progress))) == {"M": 2}
    with progress.stage("ingestion"):
        kinds = Counter(each["ph"] for each in check(render_trace(progress)))
        assert (kinds["b"], kinds["e"]) == (1, 1)
