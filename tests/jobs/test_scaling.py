from __future__ import annotations

from math import inf

import pytest

from aiopatterns.flow.autoscale import Autoscale
from aiopatterns.jobs.scaling import Sample, Scaler

SCALE = Autoscale(1, 8, target_wait=5, idle=30)


def test_a_backlog_that_nobody_works_off_waits_for_ever():
    load = Scaler(10).load(0.0, 1, Sample(queued=50, running=0, done=0))
    assert (load.ready, load.oldest_wait, load.idle) == (50, inf, [])
    assert SCALE.decide(load) == 2


def test_the_wait_is_the_backlog_by_the_rate():
    scaler = Scaler(10)
    scaler.load(0.0, 2, Sample(1_000, 20, 0))
    scaler.load(1.0, 2, Sample(1_000, 20, 200))  # 100 a second, averaged with 0
    load = scaler.load(2.0, 2, Sample(1_000, 20, 500))
    assert load.oldest_wait == pytest.approx(1_000 / 200)
    assert SCALE.decide(load) == 2
    slower = scaler.load(3.0, 2, Sample(1_000, 20, 550))
    assert SCALE.decide(slower) == 4


def test_a_worker_that_goes_takes_its_figures_along_and_the_rate_stays():
    scaler = Scaler(10)
    scaler.load(0.0, 2, Sample(10, 0, 0))
    before = scaler.load(1.0, 2, Sample(10, 0, 100)).oldest_wait
    assert scaler.load(2.0, 2, Sample(10, 0, 40)).oldest_wait == before


def test_processes_that_are_not_needed_become_idle():
    scaler = Scaler(10)
    busy = scaler.load(0.0, 4, Sample(0, 35, 0))
    assert (busy.oldest_wait, busy.idle) == (0.0, [])
    assert scaler.load(10.0, 4, Sample(0, 15, 0)).idle == [0.0, 0.0]
    later = scaler.load(45.0, 4, Sample(0, 5, 0))
    assert later.idle == [35.0, 35.0, 0.0]
    assert SCALE.decide(later) == 2
    assert scaler.load(50.0, 2, Sample(0, 15, 0)).idle == []
    assert scaler.load(51.0, 2, Sample(0, 0, 0)).idle == [0.0, 0.0]
    assert SCALE.decide(scaler.load(99.0, 2, Sample(0, 0, 0))) == 1
