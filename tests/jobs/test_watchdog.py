from __future__ import annotations

import time

import anyio
import pytest

from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.jobs.watchdog import BLOCKED, KEEP, Watchdog
from aiopatterns.jobs.workerevents import LoopBlocked
from aiopatterns.testing import capture_events


def make(lease: float = 8.0):
    renewed: list[float] = []

    def keep() -> bool:
        renewed.append(0.0)
        return True

    return Watchdog("w", [keep, keep], lease=lease), renewed


def test_a_blocked_loop_is_told_once_and_its_leases_are_kept():
    dog, renewed = make()
    began = dog._beat
    with capture_events() as events:
        for tenth in range(50):
            dog._look(began + tenth / 10)
    (event,) = events
    assert isinstance(event, LoopBlocked)
    assert event.worker == "w"
    assert event.seconds == pytest.approx(BLOCKED, abs=0.11)
    assert "test_a_blocked_loop_is_told_once" in event.stack
    assert len(renewed) == 2 * 2, "both leases, at a quarter and at a half of 8 s"


def test_it_warns_again_after_the_loop_has_moved():
    dog, _ = make()
    with capture_events() as events:
        for after in (1.5, 0.5, 1.5):
            dog._look(dog._beat + after)
    assert len(events) == 2


def test_nobody_listens():
    dog, renewed = make()
    dog._look(dog._beat + 3)
    assert len(renewed) == 2


def test_leases_are_not_kept_for_ever():
    dog, renewed = make()
    dog._look(dog._beat + KEEP + 1)
    assert renewed == []


def test_a_server_that_is_away_does_not_end_the_thread():
    calls = []

    def keep() -> bool:
        calls.append(1)
        raise BackendUnavailableError("away")

    dog = Watchdog("w", [keep, keep], lease=8.0)
    dog._look(dog._beat + 3)
    assert len(calls) == 2


def test_once_stopped_it_renews_nothing():
    dog, renewed = make()
    dog.stop()
    dog._look(dog._beat + 3)
    assert renewed == []


@pytest.mark.real
async def test_the_thread_sees_a_loop_that_is_blocked():
    dog, renewed = make(lease=0.4)
    with capture_events() as events:
        dog.start()
        await anyio.sleep(0.3)
        assert renewed == []
        time.sleep(1.3)
        dog.stop()
    began = monotonic()
    while dog._thread.is_alive():
        assert monotonic() - began < 2
        await anyio.sleep(0.01)
    assert len(renewed) >= 6
    (event,) = [each for each in events if isinstance(each, LoopBlocked)]
    assert "time.sleep(1.3)" in event.stack
