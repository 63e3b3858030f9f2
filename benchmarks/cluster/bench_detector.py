"""Failure detectors: a beat, a phi and a verdict, with a thousand intervals remembered.

What comes nearest to a peer is what one writes by hand: all intervals kept, mean and deviation
computed whenever somebody asks. The limits are the bare formula, and a look into a dict.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean, pstdev
from time import monotonic

from aiopatterns.cluster import Heartbeats, PhiAccrual
from benchmarks.harness import Bench

CALLS = 50_000
SAMPLES = 1_000

bench = Bench("cluster/detector")
beat = bench.case("a beat", clock="cpu", unit="us/beat")
phi = bench.case("a phi", clock="cpu", unit="us/call")
verdict = bench.case("a verdict", clock="cpu", unit="us/call")


def warmed(detector: PhiAccrual | Heartbeats) -> PhiAccrual | Heartbeats:
    for _ in range(SAMPLES):
        detector.beat("a")
    return detector


def bare(y: float) -> float:
    x = y * (1.5976 + 0.070566 * y * y)
    return math.log1p(math.exp(x)) * 0.4342944819


@beat.ours("aiopatterns.PhiAccrual")
async def phi_beat() -> int:
    detector = warmed(PhiAccrual())
    for _ in range(CALLS):
        detector.beat("a")
    assert detector.statistics().beats == SAMPLES + CALLS
    return CALLS


@beat.ours("aiopatterns.Heartbeats")
async def heartbeat() -> int:
    detector = warmed(Heartbeats())
    for _ in range(CALLS):
        detector.beat("a")
    assert detector.statistics().beats == SAMPLES + CALLS
    return CALLS


@beat.limit("deque.append")
async def append() -> int:
    intervals: dict[str, deque[float]] = {"a": deque(maxlen=SAMPLES)}
    last = monotonic()
    for _ in range(CALLS):
        now = monotonic()
        intervals["a"].append(now - last)
        last = now
    assert len(intervals["a"]) == SAMPLES
    return CALLS


@phi.ours("aiopatterns.PhiAccrual")
async def ask_phi() -> int:
    detector = PhiAccrual()
    warmed(detector)
    for _ in range(CALLS):
        detector.phi("a")
    assert detector.phi("a") < 0.01
    return CALLS


@phi.peer("all samples, by statistics", follows="docs.python.org, statistics")
async def by_hand() -> int:
    calls = CALLS // 250
    intervals, last = deque((0.9 + 0.2 * (at % 2) for at in range(SAMPLES)), SAMPLES), monotonic()
    found = 1.0
    for _ in range(calls):
        mean, deviation = fmean(intervals), max(pstdev(intervals), 0.1)
        found = bare((monotonic() - last - mean - 3.0) / deviation)
    assert found < 0.01
    return calls


@phi.limit("the bare formula")
async def formula() -> int:
    last, found = monotonic(), 1.0
    for _ in range(CALLS):
        found = bare((monotonic() - last - 4.0) / 0.1)
    assert found < 0.01
    return CALLS


@verdict.ours("aiopatterns.PhiAccrual")
async def phi_verdict() -> int:
    detector = warmed(PhiAccrual())
    alive = sum(detector.is_alive("a") for _ in range(CALLS))
    assert alive == CALLS
    return CALLS


@verdict.ours("aiopatterns.Heartbeats")
async def heartbeat_verdict() -> int:
    detector = warmed(Heartbeats())
    alive = sum(detector.is_alive("a") for _ in range(CALLS))
    assert alive == CALLS
    return CALLS


@verdict.limit("a dict and a clock")
async def look() -> int:
    until = {"a": monotonic() + 1000}
    alive = sum(monotonic() < until["a"] for _ in range(CALLS))
    assert alive == CALLS
    return CALLS


if __name__ == "__main__":
    bench.main()
