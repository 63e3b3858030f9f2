"""Jobs: from enqueue to start on an idle queue, and how late delayed jobs are.

A worker process of each library's own command, with default settings, for polling faster is paid by
Redis for ever; a producer process enqueues a job about every 12 ms, so that the queue is idle in
between. A job notes how long after the moment it was enqueued, or after the moment it was due, it
has started, by the monotonic clock that processes of one machine share. taskiq needs a scheduler
process of its own for delayed jobs and is left out there; saq can delay by whole seconds only, its
due times are rounded up by it and counted as asked.

Goals: start p50 1 ms, p99 5 ms; lateness p99 20 ms.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

from benchmarks.jobs.contenders import Contender, ours_and_peers
from benchmarks.jobs.field import Runs, bench_of_jobs

PROBES = 200
PACE = 0.012
DELAY = 1.0
CONCURRENCY = 100
PATIENCE = 20.0  # seconds until a worker must have run what was enqueued
ROUNDS = 1

bench = bench_of_jobs("jobs/latency", rounds=ROUNDS)


class Ledger:
    """What the probes of one worker have noted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()
        self.seen = 0

    def take(self, count: int) -> list[float]:
        """Wait for so many more probes; their delays in milliseconds."""
        deadline = time.monotonic() + PATIENCE
        while len(lines := self.path.read_text("utf-8").split()) < self.seen + count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(lines) - self.seen} of {count} probes came")
            time.sleep(0.01)
        taken = [int(line) / 1e6 for line in lines[self.seen : self.seen + count]]
        self.seen += count
        return taken


@contextmanager
def working(contender: Contender, url: str) -> Iterator[Ledger]:
    """A worker of a contender, ready and idle."""
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w") as log:
        ledger = Ledger(Path(folder, "ledger"))
        # The queue is there before the worker, as it mostly is.
        contender.call(url, "probe", 1, PACE, concurrency=CONCURRENCY)
        worker = contender.worker(url, ledger.path, log, concurrency=CONCURRENCY)
        try:
            ledger.take(1)
            yield ledger
        finally:
            worker.kill()


def measure(contender: Contender, url: str) -> Mapping[str, float]:
    """Percentiles of both delays."""
    with working(contender, url) as ledger:
        contender.call(url, "probe", PROBES, PACE, concurrency=CONCURRENCY)
        start = quantiles(ledger.take(PROBES), n=100)
        figures = {"p50": start[49], "p99": start[98]}
        if contender.delays:
            words = ("probe", PROBES, PACE, "--delay", DELAY)
            contender.call(url, *words, concurrency=CONCURRENCY)
            late = quantiles(ledger.take(PROBES), n=100)
            figures |= {"late_p50": late[49], "late_p99": late[98]}
        return figures


contenders = ours_and_peers()
runs = Runs(contenders, measure)

middle = bench.case("enqueue to start, idle queue, p50", clock="wall", unit="ms/job", warm=False)
runs.add(middle, "p50")
middle.under(1.0)

tail = bench.case("enqueue to start, idle queue, p99", clock="wall", unit="ms/job", warm=False)
runs.add(tail, "p99")
tail.under(5.0)

late = bench.case("delayed by 1 s, lateness p99", clock="wall", unit="ms/job", warm=False)
runs.add(late, "late_p99", only=[each for each in contenders if each.delays])
late.under(20.0)

if __name__ == "__main__":
    bench.main()
