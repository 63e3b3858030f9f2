from __future__ import annotations

from typing import Any, cast

from aiopatterns.jobs.hold import Cut, Hold


class Attempt:
    def __init__(self) -> None:
        self.cuts: list[tuple[Hold, Cut]] = []

    def interrupt(self, hold: Hold, cut: Cut) -> None:
        self.cuts.append((hold, cut))


def test_a_cut_before_the_run_is_remembered_and_the_greater_one_stands():
    hold = Hold(cast("Any", None), "id", b"", 1, alone=False)
    seen = []
    for cut in (Cut.CANCEL, Cut.LOST, Cut.CANCEL):
        hold.interrupt(cut)
        seen.append(hold.cut)
    assert seen == [Cut.CANCEL, Cut.LOST, Cut.LOST]


def test_a_cut_reaches_the_attempt_that_runs():
    hold = Hold(cast("Any", None), "id", b"", 1, alone=False)
    attempt = Attempt()
    hold.at = cast("Any", attempt)
    hold.interrupt(Cut.CANCEL)
    assert attempt.cuts == [(hold, Cut.CANCEL)]
