"""How cost grows: each main pattern at 1, 10 and 100 times its load, in time and in memory.

A load is what a pattern may get much of: items, keys, subscribers, endpoints. A run puts the load
there, then does work inside ``meter.over(operations)``, whose time for each operation is the
figure. Where the ratio of 100 times the load to once the load is about 1, an operation costs what
it did; where it is 100, every operation looks at all of them.

The loads take turns, each several times, and the figure is the smallest: what disturbs a run only
adds to it. Memory is measured in a run of its own under tracemalloc: the peak of the whole run,
load included, for each item of the load. Where it falls, the pattern holds a part of the load only.
What a server holds of it is what the run tells by ``meter.server_holds(...)``.

Example::

    growth = Growth("growth/flow")


    @growth.pattern("Channel", load="items", once=2_000, operation="hand-over")
    async def channel(load: int, meter: Meter) -> None:
        with meter.over(load):
            ...
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from aiopatterns.testing import simulate
from benchmarks.harness import CLOCKS, Clock, environment, loop_of, options

FACTORS = (1, 10, 100)
RUNS = (7, 5, 3)  # of each load: the shorter, the more often
GROWS = 1.5  # times: noise stays below it


@dataclass
class Meter:
    """What one run tells."""

    clock: Clock
    microseconds: float = 0.0
    server: float | None = None

    @contextmanager
    def over(self, operations: int) -> Iterator[None]:
        """Measure a block that does so many operations."""
        gc.collect()
        gc.disable()
        start = CLOCKS[self.clock]()
        try:
            yield
        finally:
            self.microseconds = (CLOCKS[self.clock]() - start) / operations * 1e6
            gc.enable()

    def server_holds(self, size: int) -> None:
        """Tell how many bytes a server holds of the load."""
        self.server = float(size)


Run = Callable[[int, Meter], Awaitable[None]]


@dataclass(frozen=True)
class Pattern:
    """One pattern and its load; see :meth:`Growth.pattern`."""

    name: str
    run: Run
    load: str
    once: int
    operation: str
    clock: Clock
    loop: Literal["real", "simulated"]
    because: str | None
    runs: tuple[int, ...]

    def measure(self, rounds: int) -> dict[str, Any]:
        """Run all loads in turns, then each once for its memory; return plain data."""
        loads = [self.once * factor for factor in FACTORS]
        times: list[list[float]] = [[] for _ in loads]
        for number in range(min(rounds, max(self.runs))):
            for load, runs, figures in zip(loads, self.runs, times, strict=True):
                if number < runs:
                    figures.append(self._once(load).microseconds)
        peaks, held = zip(*map(self._peak, loads), strict=True)
        return {
            "pattern": self.name,
            "load": self.load,
            "loads": loads,
            "operation": self.operation,
            "clock": self.clock,
            "microseconds": [min(each) for each in times],
            "bytes": [peak / load for peak, load in zip(peaks, loads, strict=True)],
            "server_bytes": None
            if None in held
            else [size / load for size, load in zip(held, loads, strict=True)],
            "because": self.because,
        }

    def _once(self, load: int) -> Meter:
        meter = Meter(self.clock)
        work = partial(self.run, load, meter)
        if self.loop == "simulated":
            simulate(work)
        else:
            with asyncio.Runner(loop_factory=loop_of("uvloop")) as runner:
                runner.run(work())
        return meter

    def _peak(self, load: int) -> tuple[float, float | None]:
        gc.collect()
        tracemalloc.start()
        try:
            meter = self._once(load)
            return tracemalloc.get_traced_memory()[1], meter.server
        finally:
            tracemalloc.stop()


class Growth:
    """The patterns of one file.

    Args:
        name: Room and file, as in ``growth/flow``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.patterns: list[Pattern] = []

    def pattern(
        self,
        name: str,
        *,
        load: str,
        once: int,
        operation: str,
        clock: Clock = "cpu",
        loop: Literal["real", "simulated"] = "real",
        because: str | None = None,
        runs: tuple[int, ...] = RUNS,
    ) -> Callable[[Run], Run]:
        """Add a pattern.

        Args:
            name: The pattern, and where it keeps things, if there is a choice.
            load: What there is more and more of.
            once: How much of it there is at first.
            operation: What is timed.
            clock: CPU time of this process, or wall time where a server works too.
            loop: Where it runs; on the simulated loop waiting takes no time.
            because: Why time or memory for each grows, where it does.
            runs: How often each load runs, where that takes long.
        """

        def add(run: Run) -> Run:
            self.patterns.append(
                Pattern(name, run, load, once, operation, clock, loop, because, runs)
            )
            return run

        return add

    def main(self, argv: list[str] | None = None) -> None:
        """Measure as the command line says; print a line each, write JSON if asked."""
        chosen = options(self.name, argv)
        rounds = 1 if chosen.quick else max(RUNS)
        results = []
        for pattern in self.patterns:
            results.append(pattern.measure(rounds))
            _print(results[-1])
        if chosen.json:
            page = {
                "bench": self.name,
                "environment": environment(("anyio", "uvloop"), {}),
                "growth": results,
            }
            Path(chosen.json).write_text(json.dumps(page, indent=1), encoding="utf-8")


def ratio(figures: Sequence[float]) -> float:
    """Return how many times the first figure the last is."""
    return figures[-1] / figures[0]


def _print(report: dict[str, Any]) -> None:
    loads = ", ".join(f"{load:,}" for load in report["loads"])
    print(f"\n{report['pattern']}, {loads} {report['load']}")
    for unit, figures in (
        (f"us/{report['operation']}, {report['clock']} time", report["microseconds"]),
        ("bytes/item, peak", report["bytes"]),
        ("bytes/item, server", report["server_bytes"]),
    ):
        if figures:
            told = "".join(f"{figure:>12,.4g}" for figure in figures)
            print(f"  {unit:<40}{told}   x{ratio(figures):.3g}")
    sys.stdout.flush()
