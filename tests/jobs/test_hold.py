from __future__ import annotations

from aiopatterns.jobs.hold import Cut, Hold


class Attempt:
    def __init__(self) -> None:
        self.cuts: list[tuple[Hold, Cut]] = []

    def interrupt(self, hold: Hold, cut: Cut) -> None:
        self.cuts.append((hold, cut))


def test_a_cut_before_the_run_is_remembered_and_the_greater_one_stands():
    hold = Hold(None, "id", b"", 1, alone=False)  # type: ignore[arg-type]
    hold.interrupt(Cut.CANCEL)
    assert hold.cut is Cut.CANCEL
    hold.interrupt(Cut.LOST)
    hold.interrupt(Cut.CANCEL)
    assert hold.cut is Cut.LOST


def test_a_cut_reaches_the_attempt_that_runs():
    hold = Hold(None, "id", b"", 1, alone=False)  # type: ignore[arg-type]
    attempt = Attempt()
    hold.at = attempt  # type: ignore[assignment]
    hold.interrupt(Cut.CANCEL)
    assert attempt.cuts == [(hold, Cut.CANCEL)]
