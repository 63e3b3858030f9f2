"""The main job beside the same work done serially: wall time, the analysis alone, memory.

The corpus is the standard library with its tests; where an interpreter's is smaller than 31 MB,
its files are copied until they are that much. Both sides use the same fast functions, and every
run checks that the results are equal. Each repeat of the whole job includes starting the worker
processes; the fork server behind them runs already, as it does in a program that runs two jobs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from aiopatterns.flow.executors import Processes
from aiopatterns.processor.analysis import Analysis
from aiopatterns.processor.corpus import Corpus
from aiopatterns.processor.system import DataProcessor
from benchmarks.harness import Bench, Figure
from benchmarks.processor import serial

WORKERS = 2
WANTED = 31_000_000
PRELOAD = ("aiopatterns.processor.stages",)


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


def repeated() -> bool:
    """Whether the corpus is made of copies, which are to be removed."""
    return corpus().title == str(corpus().root)


bench = Bench("processor/system", loops=("uvloop",))
whole = bench.case(
    f"the whole job, 31 MB, {WORKERS} processes", clock="wall", unit="s/run", part="Main job"
)


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


alone = bench.case(
    "the analysis alone, processes running", clock="wall", unit="s/run", part="Main job"
)


@alone.ours("DataProcessor")
async def analysis() -> Figure:
    executor = Processes(WORKERS, preload=PRELOAD)
    processor = DataProcessor(corpus(), executor=executor)
    async with executor:
        found = await processor._ingestion()
        processed = await processor._processing(found)
        for _ in range(2):  # the first time is that of processes that have not done it yet
            begun = time.perf_counter()
            same(await processor._analysis(found, processed))
        return Figure(time.perf_counter() - begun)


@alone.limit("serial loop")
async def plain_analysis() -> Figure:
    executor = Processes(WORKERS, preload=PRELOAD)
    processor = DataProcessor(corpus(), executor=executor)
    async with executor:
        found = await processor._ingestion()
        lexicon = (await processor._processing(found)).lexicon
    begun = time.perf_counter()
    same(serial.analysis(corpus(), found, lexicon.names, lexicon.volume))
    return Figure(time.perf_counter() - begun)


alone.at_most(0.65, of="serial loop")


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


def environment(folder: str) -> dict[str, str]:
    """As installed: with compiled modules, which the first run makes."""
    found = {**os.environ, "PYTHONPYCACHEPREFIX": f"{folder}/compiled"}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


def program(folder: str) -> list[str]:
    """The command, report and all."""
    path = [str(corpus().root)] if repeated() else []
    report = ["--report", f"{folder}/r.html", "--workers", str(WORKERS), "--json"]
    return [sys.executable, "-m", "aiopatterns", "run", *path, *report]


cold = bench.case(
    "the command from the shell, report and all", clock="wall", unit="s/run", warm=False
)


def timed(argv: list[str], folder: str) -> Figure:
    """Run a program once so that its modules are compiled, then measure it."""
    for _ in range(2):
        begun = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=environment(folder))
    return Figure(time.perf_counter() - begun)


@cold.ours("aiopatterns run")
async def shell() -> Figure:
    with tempfile.TemporaryDirectory() as folder:
        return timed(program(folder), folder)


@cold.limit("serial loop as a program, no report")
async def plain_shell() -> Figure:
    path = [str(corpus().root)] if repeated() else []
    with tempfile.TemporaryDirectory() as folder:
        return timed([sys.executable, "-m", "benchmarks.processor.serial", *path], folder)


if Path("/proc/self/smaps_rollup").exists():
    memory = bench.case(
        "memory, the most at any time", clock="count", unit="MB", warm=False, part="Main job"
    )
    peaks: dict[str, int] = {}

    async def peak(of: str) -> Figure:
        """Watch one run, which is not timed, for both figures."""
        if of not in peaks:
            with tempfile.TemporaryDirectory() as folder:
                process = subprocess.Popen(
                    program(folder), stdout=subprocess.DEVNULL, env=environment(folder)
                )
                with process, watched(process.pid) as found:
                    process.wait()
            peaks.update(found)
        return Figure(peaks.pop(of) / 1e6)

    memory.ours("the parent")(partial(peak, "parent"))
    memory.ours("all processes, pages they share counted once")(partial(peak, "all"))
    memory.under(200, ours="the parent")
    memory.under(450, ours="all processes, pages they share counted once")

if __name__ == "__main__":
    try:
        expected()  # before anything is timed
        bench.main()
    finally:
        if repeated():
            shutil.rmtree(corpus().root)
