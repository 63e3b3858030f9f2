"""The main job beside the same work done serially: wall time, the analysis alone, memory.

The corpus is the standard library with its tests; where an interpreter's is smaller than 31 MB,
its files are copied until they are that much. Both sides use the same fast functions, and every
run checks that the results are equal. Each repeat of the whole job includes starting the worker
processes; the fork server behind them runs already, as it does in a program that runs two jobs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import median

from aiopatterns.flow.executors import Processes
from aiopatterns.processor.analysis import Analysis
from aiopatterns.processor.corpus import Corpus
from aiopatterns.processor.system import DataProcessor
from benchmarks.harness import Bench
from benchmarks.processor import serial

WORKERS = 2
WANTED = 31_000_000
PRELOAD = ("aiopatterns.processor.stages",)
PARENT_MB, ALL_MB = 200, 450
ANALYSIS_GOAL = 0.65


@cache
def corpus() -> Corpus:
    """The standard library, repeated to 31 MB where it is smaller."""
    library = Corpus.standard_library()
    size = library.walk().size
    if size >= WANTED:
        return library
    root = Path(tempfile.mkdtemp(prefix="aiopatterns-bench-"))
    for number in range(-(-WANTED // size)):
        for each in library.walk().documents:
            target = root / f"copy{number}" / each.path
            target.parent.mkdir(parents=True, exist_ok=True)
            data = Path(library.root, each.path).read_bytes()
            target.write_bytes(data + b"# %d\n" % number)  # no copy is equal to another
    return Corpus.at(root)


@cache
def expected() -> Analysis:
    """What both sides must come to; made on first use, for worker processes import this module."""
    return serial.run(corpus())


bench = Bench("processor/system")
whole = bench.case(f"the whole job, 31 MB, {WORKERS} processes", clock="wall", unit="s/run")


def same(found: Analysis) -> None:
    assert found.words == expected().words
    assert found.names == expected().names
    assert found.packages == expected().packages
    assert found.volume == expected().volume
    assert found.lines == expected().lines


@whole.ours("DataProcessor")
async def system() -> int:
    processor = DataProcessor(corpus(), executor=Processes(WORKERS, preload=PRELOAD))
    same(await processor.run())
    return 1


@whole.limit("serial loop")
async def plain() -> int:
    same(serial.run(corpus()))
    return 1


whole.at_most(0.75, of="serial loop")


async def analysis_alone(rounds: int) -> None:
    """Measure the analysis stage in processes that run, beside the same in a loop."""
    ratios, ours, theirs = [], [], []
    executor = Processes(WORKERS, preload=PRELOAD)
    processor = DataProcessor(corpus(), executor=executor)
    async with executor:
        found = await processor._ingestion()
        processed = await processor._processing(found)
        lexicon = processed.lexicon
        for _ in range(rounds + 1):
            begun = time.perf_counter()
            same(await processor._analysis(found, processed))
            middle = time.perf_counter()
            same(serial.analysis(corpus(), found, lexicon.names, lexicon.volume))
            ours.append(middle - begun)
            theirs.append(time.perf_counter() - middle)
            ratios.append(ours[-1] / theirs[-1])
    print(f"\nthe analysis stage alone, {rounds} rounds (s/run, wall time)")
    print(f"  ours  {median(ours[1:]):.3f} ({min(ours[1:]):.3f}-{max(ours[1:]):.3f})")
    print(f"  limit {median(theirs[1:]):.3f} ({min(theirs[1:]):.3f}-{max(theirs[1:]):.3f})")
    ratio = median(ratios[1:])
    verdict = "met" if ratio <= ANALYSIS_GOAL else "MISSED"
    print(f"  goal: ours <= {ANALYSIS_GOAL} x limit: {ratio:.2f} {verdict}")


def memory_of(process: int) -> int:
    """Bytes of one process: its own pages, and its share of the pages it shares."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text("ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def family(process: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield process
    for thread in Path(f"/proc/{process}/task").iterdir():
        for each in (thread / "children").read_text("ascii").split():
            yield from family(int(each))


@contextmanager
def watched(process: int) -> Iterator[dict[str, int]]:
    """Note the most memory that a process, and it with its children, ever had."""
    peak = {"parent": 0, "all": 0, "processes": 0}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            try:
                sizes = [memory_of(each) for each in family(process)]
            except OSError:
                continue  # one of them has just ended
            peak["parent"] = max(peak["parent"], sizes[0])
            peak["all"] = max(peak["all"], sum(sizes))
            peak["processes"] = max(peak["processes"], len(sizes))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def command(rounds: int) -> None:
    """Measure the command from the shell, cold, beside the loop as a program; and its memory."""
    walls: dict[str, list[float]] = {"ours": [], "limit": []}
    peak = {"parent": 0, "all": 0, "processes": 0}
    path = [] if corpus().title != str(corpus().root) else [str(corpus().root)]
    with tempfile.TemporaryDirectory() as folder:
        report = ["--report", f"{folder}/r.html", "--workers", str(WORKERS), "--json"]
        programs = {
            "ours": [sys.executable, "-m", "aiopatterns", "run", *path, *report],
            "limit": [sys.executable, "-m", "benchmarks.processor.serial", *path],
        }
        # As installed: with compiled modules, which the first run of each makes.
        compiled = {**os.environ, "PYTHONPYCACHEPREFIX": f"{folder}/compiled"}
        compiled.pop("PYTHONDONTWRITEBYTECODE", None)
        for argv in programs.values():
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=compiled)
        for _ in range(rounds):
            for name, argv in programs.items():
                begun = time.perf_counter()
                subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=compiled)
                walls[name].append(time.perf_counter() - begun)
        # Watching costs time, so the memory is that of a run which is not timed.
        with (
            subprocess.Popen(programs["ours"], stdout=subprocess.DEVNULL, env=compiled) as process,
            watched(process.pid) as found,
        ):
            process.wait()
        peak = found
    ratio = median(a / b for a, b in zip(walls["ours"], walls["limit"], strict=True))
    print(f"\nthe command from the shell, cold, report and all, {rounds} rounds (s/run, wall time)")
    for name, values in walls.items():
        print(f"  {name:<6}{median(values):.3f} ({min(values):.3f}-{max(values):.3f})")
    print(f"  ours = {ratio:.2f} x the loop as a program of its own, which draws no report")
    print(f"\nmemory, the most at any time, {peak['processes']} processes (MB, proportional)")
    for name, limit in (("parent", PARENT_MB), ("all", ALL_MB)):
        value = peak[name] / 1e6
        print(f"  goal: {name} <= {limit}: {value:.0f} {'met' if value <= limit else 'MISSED'}")


if __name__ == "__main__":
    try:
        expected()  # before anything is timed
        bench.main()
        quick = "--quick" in sys.argv
        asyncio.run(analysis_alone(1 if quick else 7))
        if Path("/proc/self/smaps_rollup").exists():
            command(1 if quick else 5)
    finally:
        if corpus().title == str(corpus().root):
            shutil.rmtree(corpus().root)
