"""Local health."""

from __future__ import annotations

from aiopatterns.cluster.awareness import WORST, Awareness


def test_the_score_stretches_and_stays_within_its_bounds():
    health = Awareness()
    health.improve()
    assert (health.score, health.stretch(0.5)) == (0, 0.5)
    health.worsen(3)
    assert (health.score, health.stretch(0.5)) == (3, 2.0)
    health.worsen()
    health.worsen(100)
    assert (health.score, health.stretch(1.0)) == (WORST, WORST + 1)
    health.worsen(0)
    for _ in range(WORST):
        health.improve()
    assert health.score == 0
