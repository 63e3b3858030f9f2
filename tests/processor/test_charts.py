from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.processor import charts
from aiopatterns.processor.charts import Bar
from aiopatterns.processor.progress import Sample
from tests.processor.records import make_progress

TONES = {"ingestion": "tone-1", "processing": "tone-2", "analysis": "tone-3", "report": "tone-4"}
NASTY = "<script>&\"'"


def parsed(svg: str) -> ET.Element:
    """An SVG is well-formed XML, and no number in it is infinite or not a number."""
    root = ET.fromstring(svg)
    assert root.tag == "svg"
    assert "nan" not in svg
    assert "inf" not in svg.replace("info", "")
    return root


def test_bars():
    root = parsed(charts.bars([Bar("a", 10, "ten"), Bar(NASTY, 0, "none")], label="two"))
    assert [each.text for each in root.iter("title")] == ["a: ten", f"{NASTY}: none"]
    assert root.get("aria-label") == "two"
    assert charts.bars([], label="none") == ""
    assert charts.bars([Bar("a", 0, "")], label="nothing") == ""


def test_long_labels_are_cut():
    root = parsed(charts.bars([Bar("a" * 40, 1, "1")], label="x"))
    assert next(root.iter("text")).text == "a" * 14 + "…"


@given(
    st.dictionaries(st.sampled_from([*TONES]), st.lists(st.floats(0, 1e5), max_size=30), max_size=4)
)
def test_distributions_show_every_task(values):
    svg = charts.distributions(values, TONES, label="latency")
    if not any(values.values()):
        assert svg == ""
        return
    shown = [int((each.text or "").split()[0]) for each in parsed(svg).iter("title")]
    assert sum(shown) == sum(map(len, values.values()))


def test_gantt_shows_every_task_and_stage():
    progress = make_progress(4)
    snapshot = progress.snapshot()
    svg = charts.gantt(progress.spans, snapshot.stages, snapshot.elapsed, TONES)
    root = parsed(svg)
    assert len([*root.iter("title")]) == len(progress.spans) + 4
    labels = [each.text for each in root.iter("text") if each.get("class") == "label"]
    assert labels == ["stages", "thread 1", "main", "process 1", "process 2"]
    assert charts.gantt([], snapshot.stages, 1.0, TONES) == ""


@pytest.mark.parametrize("elapsed", [0.003, 0.07, 0.9, 1.0, 8.3, 59, 4000])
def test_the_time_axis_has_a_few_round_ticks(elapsed):
    progress = make_progress(1)
    svg = charts.gantt(progress.spans, progress.snapshot().stages, elapsed, TONES)
    ticks = [each.text for each in parsed(svg).iter("text") if each.get("class") == "tick"]
    assert 2 <= len(ticks) <= 10


def test_a_stage_that_runs_yet_is_drawn_until_now():
    progress = make_progress(1)
    with progress.stage("report"):
        snapshot = progress.snapshot()
        svg = charts.gantt(progress.spans, snapshot.stages, snapshot.elapsed, TONES)
    assert len([*parsed(svg).iter("title")]) == len(progress.spans) + 4


def test_a_stage_that_never_began_is_left_out():
    progress = make_progress(1)
    stages = progress.snapshot().stages
    svg = charts.gantt(progress.spans, (*stages[:3], type(stages[3])(**{
        **{name: getattr(stages[3], name) for name in stages[3].__slots__}, "start": None
    })), 1.0, TONES)  # fmt: skip
    assert len([*parsed(svg).iter("title")]) == len(progress.spans) + 3


def test_queue_draws_a_path_for_each_stage():
    samples = [Sample("ingestion", 0.0, 4, 0), Sample("ingestion", 0.5, 0, 2),
               Sample("analysis", 0.6, 3, 0), Sample("analysis", 1.0, 0, 0)]  # fmt: skip
    root = parsed(charts.queue(samples, 1.0, TONES))
    assert [each.text for each in root.iter("title")] == ["ingestion", "analysis"]
    assert charts.queue([], 1.0, TONES) == ""
    assert charts.queue(samples[1:2], 1.0, TONES) == ""


def test_share_draws_parts_of_a_whole():
    rows = [Bar("code", 3, "75 %"), Bar(NASTY, 1, "25 %"), Bar("none", 0, "0 %")]
    root = parsed(charts.share(rows, label="kinds"))
    assert [each.text for each in root.iter("title")] == ["code: 75 %", f"{NASTY}: 25 %"]
    assert charts.share(rows[2:], label="nothing") == ""
