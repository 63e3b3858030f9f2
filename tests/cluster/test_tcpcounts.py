"""Wrong secrets are counted each time and told once a minute."""

from __future__ import annotations

from aiopatterns.cluster.tcpcounts import TOLD, Counts, Mismatches, PeerSecretMismatch
from aiopatterns.core.clock import sleep
from aiopatterns.testing import capture_events, simulate


def test_each_is_counted_and_one_a_minute_is_told():
    async def run():
        counts = Counts()
        mismatches = Mismatches("a", counts)
        with capture_events() as events:
            for _ in range(100):
                mismatches.note("10.0.0.7:7000", incoming=True)
            mismatches.note("10.0.0.8:7000", incoming=False)
            await sleep(TOLD)
            mismatches.note("10.0.0.9:7000", incoming=True)
        assert counts == Counts(mismatched=102)
        assert events == [
            PeerSecretMismatch("a", "10.0.0.7:7000", incoming=True),
            PeerSecretMismatch("a", "10.0.0.8:7000", incoming=False),
            PeerSecretMismatch("a", "10.0.0.9:7000", incoming=True),
        ]

    simulate(run)


def test_nothing_is_told_to_nobody_and_the_first_listener_hears_the_next():
    async def run():
        mismatches = Mismatches("a", Counts())
        mismatches.note("10.0.0.7:7000", incoming=True)
        with capture_events() as events:
            mismatches.note("10.0.0.8:7000", incoming=True)
        assert events == [PeerSecretMismatch("a", "10.0.0.8:7000", incoming=True)]

    simulate(run)
