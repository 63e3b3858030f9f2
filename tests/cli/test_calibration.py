from __future__ import annotations

import pytest

from aiopatterns.cli.calibration import Measured, repeated
from aiopatterns.core.clock import sleep
from aiopatterns.testing import simulate


@pytest.mark.parametrize("each", [1e-6, 1e-4, 0.3])
def test_an_operation_is_repeated_until_its_time_can_be_told(each):
    asked: list[int] = []

    async def run(count: int) -> None:
        asked.append(count)
        await sleep(each * count)

    operations, taken = simulate(lambda: repeated(run, repeats=4, seconds=0.1))
    assert len(taken) == 4
    assert taken == pytest.approx([each] * 4)
    assert asked[-4:] == [operations] * 4
    assert operations == 1 or 0.05 <= operations * each <= 0.15


def test_an_operation_that_takes_no_time_ends_all_the_same():
    async def run(count: int) -> None:
        if count >= 1000:
            await sleep(1)

    operations, taken = simulate(lambda: repeated(run, repeats=1, seconds=0.1))
    assert operations >= 1000
    assert taken[0] > 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.5, "2.5 s"),
        (0.00251, "2.51 ms"),
        (1.31e-6, "1.31 us"),
        (4e-7, "400 ns"),
        (1e-10, "0.1 ns"),
    ],
)
def test_times_are_told_in_a_unit_that_fits(seconds, text):
    assert Measured("g", "n", 1, (seconds,)).time == text


def test_the_middle_and_how_far_repeats_lie_apart():
    found = Measured("g", "n", 10, (0.2, 0.5, 0.25))
    assert (found.median, found.rate) == (0.25, 4.0)
    assert found.spread == pytest.approx(1.2)
