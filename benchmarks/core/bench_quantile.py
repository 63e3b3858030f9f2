"""Latency histogram: one sample, against keeping all samples to sort them later."""

from __future__ import annotations

from aiopatterns.core.clock import rng
from aiopatterns.core.quantile import Histogram
from benchmarks.harness import Bench

SAMPLES = 100_000
bench = Bench("core/quantile")
recording = bench.case("record one latency", clock="cpu", unit="us/sample")
samples = [rng().lognormvariate(-5, 1) for _ in range(SAMPLES)]


@recording.ours("Histogram.record")
async def histogram() -> int:
    latencies = Histogram()
    record = latencies.record
    for each in samples:
        record(each)
    assert latencies.count == SAMPLES
    return SAMPLES


@recording.limit("list.append")
async def keep_all() -> int:
    kept: list[float] = []
    keep = kept.append
    for each in samples:
        keep(each)
    assert len(kept) == SAMPLES
    return SAMPLES


if __name__ == "__main__":
    bench.main()
