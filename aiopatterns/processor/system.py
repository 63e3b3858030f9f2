"""The data-processing system: real files through four stages, on all processors.

One graph orders the stages; inside, each uses the pattern that fits its work::

    Dag        ingestion ---------> processing ---------> analysis ---------> report
    pattern    Pipeline             WorkerPool            map_reduce          -
    runs in    processes            processes             processes           here
    gives      facts of each file   names, volume         frequencies,        one HTML page
               duplicates           of code and prose     key words, outliers
               -- paths -->         -- paths -->          -- paths -->
               <-- facts --         <-- vocabularies --   <-- vocabularies --

All three need the processor, ingestion too: reading in threads, with the interpreter's lock
going to and fro at every small file, took twice the time of one process (measured). They send
paths to worker processes and get facts or vocabularies back. Where order is free the largest
parts go first, so that no worker ends long after the others.

Guarantees: the result equals that of a plain serial loop, whatever the number of workers and
whichever ends first. The same content is read once in each stage and counted for each copy. An
error of one file is a line of the result, not the end of the run; a worker process that dies
costs its chunk a new attempt. A cancelled run leaves no process, no thread and no file behind.

Non-guarantees: files that change during the run are counted in the state each stage saw.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, final

from aiopatterns.core import validate
from aiopatterns.core.clock import yield_now
from aiopatterns.core.errors import WorkerCrashedError
from aiopatterns.core.lifecycle import OwnerState
from aiopatterns.flow.dag import Dag
from aiopatterns.flow.executors import Executor
from aiopatterns.flow.mapreduce import map_reduce
from aiopatterns.flow.pipeline import Pipeline
from aiopatterns.flow.pool import WorkerPool
from aiopatterns.processor import stages, tokens
from aiopatterns.processor.analysis import add, add_counted, analyse, catalogue, entries
from aiopatterns.processor.corpus import CHUNK_BYTES, Corpus, cut, plan
from aiopatterns.processor.progress import Progress
from aiopatterns.processor.report import render_report
from aiopatterns.processor.stages import Volume
from aiopatterns.resilience.backoff import Exponential
from aiopatterns.resilience.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiopatterns.processor.analysis import Analysis, Catalogue
    from aiopatterns.processor.corpus import Chunk, Listing, Trouble
    from aiopatterns.processor.output import Output
    from aiopatterns.processor.stages import Counted, Facts, Processed, Timed

__all__ = ["DataProcessor"]

T = TypeVar("T")

_CHUNK_TIMEOUT: Final = 300.0
"""Seconds for one chunk: ten thousand times the usual, enough for a file of gigabytes."""
_STAGE_TIMEOUT: Final = 24 * 3600.0
"""Seconds for one stage: a run that takes a day hangs."""
_AGAIN: Final = Retry(
    on=(WorkerCrashedError, OSError), attempts=3, backoff=Exponential(initial=0.05, cap=1.0)
)
"""What may pass: a process that was killed, a file system that hiccuped, a timeout."""


@dataclass(frozen=True, slots=True)
class _Lexicon:
    """What processing gives: the chunks it went by, and what was in them."""

    chunks: tuple[Chunk, ...]
    names: dict[str, int]
    volume: Volume
    troubles: tuple[Trouble, ...]


@final
class DataProcessor:
    """One run of the system over a corpus.

    Args:
        corpus: Which files.
        executor: Where the stages run: ``Processes(n)``, or ``Inline()`` for all in this task.
            Opened for the run, unless it is open already.
        report: Where the page goes; None makes none.
        chunk_bytes: Bytes of files in one task.

    Example::

        processor = DataProcessor(Corpus.standard_library(), executor=Processes(2))
        analysis = await processor.run()
        print(analysis.top_words[:10])
    """

    __slots__ = ("_chunk_bytes", "_executor", "_report", "corpus", "progress")

    def __init__(
        self,
        corpus: Corpus,
        *,
        executor: Executor,
        report: Output | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.corpus: Corpus = validate.instance("corpus", corpus, Corpus, "a Corpus")
        allowed = "an executor such as Processes(2)"
        self._executor = validate.instance("executor", executor, Executor, allowed)
        self._report = report
        self._chunk_bytes = validate.count("chunk_bytes", chunk_bytes)
        self.progress: Progress = Progress(executor.capacity)

    async def run(self) -> Analysis:
        """Run the four stages.

        Returns:
            The result; how it came about is in :attr:`progress`.

        Raises:
            OSError: The report cannot be written.
            ValueError: The corpus holds no text.
            WorkerCrashedError: A chunk killed every process that tried it.
            TimeoutExceededError: A stage or a task took unreasonably long.

        Cancellation: processes and threads have ended, and the report's place is as before.
        """
        self.progress = Progress(self._executor.capacity)
        async with AsyncExitStack() as stack:
            if self._executor.state is not OwnerState.RUNNING:
                await stack.enter_async_context(self._executor)
            run = await self._graph().run()
            analysis: Analysis = run["analysis"]
            return analysis

    def _graph(self) -> Dag:
        """The stages as a graph; a parameter's name says whose result it takes.

        A later stage goes first where two could run, so that what was begun is finished.
        """
        graph = Dag("data-processing", limit=1)
        graph.add(self._ingestion, id="ingestion", priority=0, timeout=_STAGE_TIMEOUT)
        graph.add(self._processing, id="processing", priority=1, timeout=_STAGE_TIMEOUT)
        graph.add(self._analysis, id="analysis", priority=2, timeout=_STAGE_TIMEOUT)
        graph.add(self._publish, id="report", priority=3, timeout=_STAGE_TIMEOUT)
        return graph

    async def _ingestion(self) -> Catalogue:
        """Walk, read, decode, hash; find copies."""
        with self.progress.stage("ingestion"):
            listing = self.corpus.walk()
            chunks = plan(listing.documents, self.corpus.root, chunk_bytes=self._chunk_bytes)
            self.progress.expect("ingestion", chunks)
            facts: list[Facts] = []

            async def keep(found: tuple[Facts, ...]) -> None:
                facts.extend(found)

            read = partial(self._call, "ingestion", stages.ingest)
            pipeline = Pipeline(chunks, name="ingestion").map(
                read, workers=2 * self._executor.capacity, retry=_AGAIN, timeout=_CHUNK_TIMEOUT
            )
            await pipeline.run(into=keep)
            return self._sorted_out(listing, facts)

    def _sorted_out(self, listing: Listing, facts: list[Facts]) -> Catalogue:
        found = catalogue(facts, skipped=listing.skipped, troubles=listing.troubles)
        if not found.texts:
            what = f"{len(found.binary)} binary and {len(found.troubles)} unreadable files"
            held = what if facts or found.troubles else "no files"
            msg = f"path must hold at least one text: {self.corpus.title} holds {held}"
            raise ValueError(msg)
        return found

    async def _processing(self, ingestion: Catalogue) -> _Lexicon:
        """Take code and prose apart; the largest chunks go first."""
        chunks = (*cut(entries(ingestion), str(self.corpus.root), self._chunk_bytes),)
        with self.progress.stage("processing"):
            self.progress.expect("processing", chunks)
            names: dict[str, int] = {}
            volumes: list[Volume] = []
            troubles: list[Trouble] = []
            async with WorkerPool(
                partial(self._call, "processing", stages.process),
                workers=2 * self._executor.capacity,  # the next is at hand when one ends
                queue=max(1, len(chunks)),
                retry=_AGAIN,
                timeout=_CHUNK_TIMEOUT,
            ) as pool:
                for handle in [await pool.submit(each, priority=each.size) for each in chunks]:
                    part: Processed = await handle
                    add(names, tokens.unpack(part.names))
                    volumes.append(part.volume)
                    troubles += part.troubles
            volume = Volume(*map(sum, zip(*volumes, strict=True)))
            return _Lexicon(chunks, names, volume, tuple(troubles))

    async def _analysis(self, ingestion: Catalogue, processing: _Lexicon) -> Analysis:
        """Count words by map-reduce, then look at the whole."""
        with self.progress.stage("analysis"):
            self.progress.expect("analysis", processing.chunks)
            troubles = [*processing.troubles]
            packages = await map_reduce(
                self._fed(processing.chunks),
                partial(stages.timed, stages.count),
                partial(self._fold, processing.chunks, troubles),
                initial=dict[str, dict[str, int]],
                chunk=1,
                executor=self._executor,
            )
            with self.progress.here("analysis"):
                return analyse(
                    ingestion,
                    packages,
                    processing.names,
                    volume=processing.volume,
                    troubles=dict.fromkeys(troubles),
                )

    async def _publish(self, analysis: Analysis) -> None:
        """Draw the page and put it in its place."""
        if self._report is None:
            return
        with self.progress.stage("report"), self.progress.here("report"):
            page = render_report(analysis, self.progress, title=self.corpus.title)
            self._report.write(page)

    async def _call(self, stage: str, fn: Callable[[Chunk], T], chunk: Chunk) -> T:
        """Run one task in the executor, and keep the record of it."""
        self.progress.start(stage)
        try:
            timed = await self._executor.run(stages.timed, fn, chunk)
        except BaseException:
            self.progress.drop(stage)
            raise
        self.progress.finish(stage, chunk, timed)
        return timed.value

    def _fed(self, chunks: tuple[Chunk, ...]) -> Iterator[Chunk]:
        """Give map-reduce its items, and note that they are under way."""
        for each in chunks:
            self.progress.start("analysis")
            yield each

    async def _fold(
        self,
        chunks: tuple[Chunk, ...],
        troubles: list[Trouble],
        packages: dict[str, dict[str, int]],
        timed: Timed[Counted],
    ) -> dict[str, dict[str, int]]:
        """Add one task's vocabularies to the total, and keep the record of the task.

        The turn before lets the process that has just ended a task have its next one; to fold
        first would leave it idle for that long.
        """
        await yield_now()
        self.progress.finish("analysis", chunks[timed.task], timed)
        troubles += timed.value.troubles
        return add_counted(packages, timed.value)
