"""The accounts of a stage add up by construction, whatever happens to its items."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.flow.tally import PipelineReport, Tally, is_timed


@given(st.lists(st.sampled_from(["accept", "start", "done", "failed", "retry", "settle"])))
def test_the_accounts_add_up_after_any_history(history):
    tally = Tally("x")
    accepted = running = 0
    for event in history:
        before = tally.snapshot()
        if event == "accept":
            tally.queued += 1
            accepted += 1
        elif event == "start" and before.queued:
            tally.queued -= 1
            tally.started += 1
            running += 1
        elif event in {"done", "failed"} and running:
            setattr(tally, event, getattr(tally, event) + 1)
            running -= 1
        elif event == "retry" and running:
            tally.queued += 1
            tally.started -= 1
            running -= 1
        elif event == "settle":
            tally.settle()
            assert tally.snapshot().queued == tally.snapshot().in_flight == running * 0
            running = 0
        now = tally.snapshot()
        assert now.accepted == accepted
        assert now.in_flight == running
        parts = now.processed + now.failed + now.cancelled + now.queued + now.in_flight
        assert now.accepted == parts


def test_quantiles():
    tally = Tally("x")
    assert tally.snapshot().p50 is None
    for milliseconds in range(1, 101):
        tally.latency.record(milliseconds / 1000)
    record = tally.snapshot()
    assert record.p50 is not None
    assert record.p99 is not None
    assert abs(record.p50 - 0.05) < 0.001
    assert abs(record.p99 - 0.099) < 0.002


def test_totals_are_sums_over_the_stages_and_the_output():
    first, second, output = Tally("a"), Tally("b"), Tally("output")
    first.queued, first.started, first.done, first.failed = 1, 6, 4, 1
    second.started, second.done = 4, 3
    output.started, output.done = 2, 2
    second.settle()
    report = PipelineReport(
        name="p",
        stages=(first.snapshot(), second.snapshot()),
        output=output.snapshot(),
        read=7,
        elapsed=1.0,
    )
    assert (report.accepted, report.processed, report.failed) == (13, 9, 1)
    assert (report.cancelled, report.queued, report.in_flight) == (1, 1, 1)
    assert report.delivered == 2


def test_the_first_items_are_timed_and_then_one_in_eight():
    assert all(is_timed(index) for index in range(256))
    assert [index for index in range(256, 280) if is_timed(index)] == [256, 264, 272]
