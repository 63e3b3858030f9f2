"""Failure detectors: one contract, and phi beside the formula of the paper."""

from __future__ import annotations

import math
from statistics import NormalDist, fmean, pstdev
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster import DetectorStatistics, FailureDetector, Heartbeats, PhiAccrual
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.testing import explore, simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DETECTORS: list[Callable[[], FailureDetector]] = [Heartbeats, PhiAccrual]
# Beyond the acceptable pause of one and the timeout of the other.
SILENCE = 60


# ------------------------------------------------------------------------- the contract of both


@pytest.mark.parametrize("make", DETECTORS)
@pytest.mark.promise("cluster-detectors")
def test_who_has_never_beaten_is_neither_alive_nor_dead(make):
    detector = make()
    assert (detector.is_alive("a"), detector.dead()) == (False, ())
    detector.forget("a")
    assert detector.statistics() == DetectorStatistics(alive=0, dead=0, beats=0)


@pytest.mark.parametrize("make", DETECTORS)
@pytest.mark.promise("cluster-detectors")
def test_who_beats_is_alive_and_who_is_silent_is_dead(make):
    async def main():
        detector = make()
        for at in range(20):
            detector.beat("a")
            if at < 10:
                detector.beat("c")
                detector.beat("b")
            await sleep(1)
            assert detector.is_alive("a")
        await sleep(SILENCE)
        detector.beat("a")
        assert (detector.is_alive("a"), detector.is_alive("b")) == (True, False)
        assert detector.dead() == (("c", "b") if make is Heartbeats else ("b", "c"))
        assert detector.statistics() == DetectorStatistics(alive=1, dead=2, beats=41)
        detector.beat("b")
        assert (detector.is_alive("b"), detector.dead()) == (True, ("c",))

    simulate(main)


@pytest.mark.parametrize("make", DETECTORS)
@pytest.mark.promise("cluster-detectors")
def test_who_is_forgotten_was_never_there(make):
    async def main():
        detector = make()
        detector.beat("a")
        await sleep(SILENCE)
        detector.forget("a")
        assert (detector.is_alive("a"), detector.dead()) == (False, ())
        detector.beat("a")
        assert detector.is_alive("a")

    simulate(main)


@pytest.mark.parametrize("make", DETECTORS)
@pytest.mark.parametrize(("id", "error"), [("", ValueError), (7, TypeError)])
@pytest.mark.promise("cluster-bad-input")
def test_an_id_is_text(make, id: Any, error):
    with pytest.raises(error, match="id must be a non-empty string"):
        make().beat(id)


# ------------------------------------------------------------------------------ the formula


async def beats(detector: PhiAccrual, intervals: Sequence[float]) -> None:
    detector.beat("a")
    for interval in intervals:
        await sleep(interval)
        detector.beat("a")


def logistic(silence: float, mean: float, deviation: float) -> float:
    """Phi as Pekko computes it; good until the exponential leaves the range of floats."""
    y = (silence - mean) / deviation
    e = math.exp(-y * (1.5976 + 0.070566 * y * y))
    return -math.log10(e / (1 + e) if silence > mean else 1 - 1 / (1 + e))


@given(
    intervals=st.lists(st.floats(0.2, 2.0), max_size=40),
    silence=st.floats(0.0, 6.0),
    pause=st.sampled_from([0.0, 1.0, 3.0]),
    least=st.sampled_from([0.1, 0.5]),
)
@pytest.mark.promise("cluster-phi")
def test_phi_is_what_the_samples_say(intervals, silence, pause, least):
    """Running sums say the same as all samples, kept and added up anew."""

    async def main():
        detector = PhiAccrual(
            1000, max_samples=10, min_deviation=least, acceptable_pause=pause, first_interval=1.0
        )
        await beats(detector, intervals)
        kept = [0.75, 1.25, *intervals][-10:]
        mean, deviation = fmean(kept) + pause, max(pstdev(kept), least)
        assert detector.phi("a") <= math.log10(2)
        await sleep(silence)
        y = (silence - mean) / deviation
        if -5 < y < 10:
            assert detector.phi("a") == pytest.approx(
                logistic(silence, mean, deviation), rel=1e-3, abs=1e-6
            )

    simulate(main)


def test_phi_is_near_the_normal_distribution():
    async def main():
        detector, intervals = (
            PhiAccrual(acceptable_pause=0, min_deviation=0.25),
            NormalDist(1, 0.25),
        )
        detector.beat("a")  # the first estimate: 1 s, give or take a quarter
        for _ in range(20):
            await sleep(0.1)
            likelihood = 10 ** -detector.phi("a")
            assert likelihood == pytest.approx(1 - intervals.cdf(monotonic()), abs=2e-4)

    simulate(main)


@pytest.mark.promise("cluster-phi")
def test_nobody_is_suspected_within_the_acceptable_pause():
    """Beats of a second, some of them lost and some late, over 200 seeds: nobody is called dead."""

    async def main():
        detector, dice = PhiAccrual(), rng()
        for _ in range(300):
            detector.beat("a")
            silence = dice.uniform(0.9, 1.1)
            if dice.random() < 0.1:
                silence += dice.choice([1.0, 2.0, dice.uniform(0, 2.9)])
            await sleep(silence)
            assert detector.is_alive("a")

    explore(main, range(200))


@pytest.mark.promise("cluster-phi")
def test_who_stops_is_found_sooner_the_more_regular_it_was():
    async def found_after(deviation: float) -> float:
        detector, dice = PhiAccrual(acceptable_pause=1.0), rng()
        for _ in range(200):
            detector.beat("a")
            await sleep(max(0.0, dice.gauss(1.0, deviation)))
        detector.beat("a")
        silent = 0.0
        while detector.is_alive("a"):
            await sleep(0.01)
            silent += 0.01
        return silent

    async def main():
        assert 2.4 < await found_after(0.0) < 2.6  # a mean, the pause, 5.2 least deviations
        assert 3.2 < await found_after(0.25) < 4.2

    simulate(main)


@pytest.mark.parametrize("threshold", [0.5, 1.0, 8.0, 16.0, 1000.0])
@pytest.mark.promise("cluster-phi")
def test_the_threshold_is_a_phi(threshold):
    """The verdict, which costs one comparison, is that of the figure."""

    async def main():
        detector = PhiAccrual(threshold)
        await beats(detector, [0.5, 1.5, 1.0])
        step = 1e-3
        while detector.is_alive("a"):
            assert detector.phi("a") < threshold * (1 + 1e-9)
            await sleep(step)
        assert detector.phi("a") >= threshold * (1 - 1e-9)

    simulate(main)


def test_an_outage_is_not_learned():
    async def main():
        detector = PhiAccrual()
        await beats(detector, [0.9, 1.1] * 10)
        learned = detector._rhythms["a"].estimate()
        await sleep(3600)
        assert detector.dead() == ("a",)
        detector.beat("a")
        assert detector._rhythms["a"].estimate() == learned
        assert detector.is_alive("a")
        assert detector.phi("a") == pytest.approx(0, abs=1e-9)
        await sleep(3)
        detector.beat("a")
        assert detector._rhythms["a"].estimate() != learned

    simulate(main)


def test_an_endless_silence_has_a_phi():
    async def main():
        detector = PhiAccrual(min_deviation=1e-9, acceptable_pause=0)
        await beats(detector, [1.0] * 1001)
        await sleep(1e110)
        assert detector.phi("a") == math.inf
        assert not detector.is_alive("a")
        assert detector.phi("nobody") == 0.0

    simulate(main)


@pytest.mark.promise("cluster-phi")
def test_sums_do_not_drift():
    async def main():
        detector = PhiAccrual(max_samples=100, min_deviation=1e-6, acceptable_pause=0)
        dice = rng()
        detector.beat("a")
        for _ in range(5_000):
            await sleep(dice.uniform(0.9, 1.1))
            detector.beat("a")
        for _ in range(100):
            await sleep(1.0)
            detector.beat("a")
        rhythm = detector._rhythms["a"]
        mean, deviation = rhythm.estimate()
        assert mean == pytest.approx(1.0, abs=1e-6)
        assert deviation == pytest.approx(0.0, abs=1e-6)

    simulate(main)


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ({"threshold": 0}, ValueError, "threshold must be between 0.5 and 1000"),
        ({"threshold": math.nan}, ValueError, "threshold must be"),
        ({"threshold": "8"}, TypeError, "threshold must be"),
        ({"max_samples": 1}, ValueError, "max_samples must be a whole number >= 2"),
        ({"min_deviation": 0}, ValueError, "min_deviation must be a finite number > 0"),
        ({"acceptable_pause": -1}, ValueError, "acceptable_pause must be a finite number >= 0"),
        ({"first_interval": 0}, ValueError, "first_interval must be a finite number > 0"),
    ],
)
@pytest.mark.promise("cluster-bad-input")
def test_bad_input_names_the_parameter(values: dict[str, Any], error, text):
    with pytest.raises(error, match=text):
        PhiAccrual(**values)
