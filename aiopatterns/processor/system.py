"""The data-processing system: real files through four stages, on all processors or machines.

One graph orders the stages; an engine (:mod:`aiopatterns.processor.engine`) works on the chunks::

    Dag        ingestion ---------> processing ---------> analysis ---------> report
    here       list the files       cut into chunks       look at the whole   one HTML page
    engine     facts of each file   names, volume         frequencies,
               duplicates           of code and prose     key words, outliers
               -- paths -->         -- paths -->          -- paths -->
               <-- facts --         <-- vocabularies --   <-- vocabularies --

All three need the processor, ingestion too: reading in threads, with the interpreter's lock
going to and fro at every small file, took twice the time of one process (measured). They send
paths to worker processes and get facts or vocabularies back.

Guarantees: the result equals that of a plain serial loop, whatever the engine, the number of
workers and whichever ends first. The same content is read once in each stage and counted for each
copy. An error of one file is a line of the result, not the end of the run; a worker process that
dies costs its chunk a new attempt. A cancelled run leaves no process, no thread and no file behind.

Non-guarantees: files that change during the run are counted in the state each stage saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core import validate
from aiopatterns.flow.dag import Dag
from aiopatterns.flow.executors import Executor
from aiopatterns.processor.analysis import analyse, catalogue, entries
from aiopatterns.processor.corpus import CHUNK_BYTES, Corpus, cut, plan
from aiopatterns.processor.fleet import Fleet
from aiopatterns.processor.local import LocalEngine
from aiopatterns.processor.progress import Progress
from aiopatterns.processor.report import render_report

if TYPE_CHECKING:
    from aiopatterns.processor.analysis import Analysis, Catalogue
    from aiopatterns.processor.corpus import Chunk, Listing
    from aiopatterns.processor.engine import Engine, Lexicon
    from aiopatterns.processor.output import Output
    from aiopatterns.processor.stages import Facts

__all__ = ["DataProcessor"]

_STAGE_TIMEOUT: Final = 24 * 3600.0
"""Seconds for one stage: a run that takes a day hangs."""


@dataclass(frozen=True, slots=True)
class _Processed:
    """What processing gives: the chunks it went by, and what was in them."""

    chunks: tuple[Chunk, ...]
    lexicon: Lexicon


@final
class DataProcessor:
    """One run of the system over a corpus.

    Args:
        corpus: Which files.
        executor: Where the stages run: ``Processes(n)``, ``Inline()`` for all in this task, or a
            ``Fleet(url)`` of workers here and on other machines. Opened for the run, unless it is
            an executor that is open already.
        report: Where the page goes; None makes none.
        chunk_bytes: Bytes of files in one task.

    Example::

        processor = DataProcessor(Corpus.standard_library(), executor=Processes(2))
        analysis = await processor.run()
        print(analysis.top_words[:10])
    """

    __slots__ = ("_chunk_bytes", "_engine", "_report", "corpus", "progress")

    def __init__(
        self,
        corpus: Corpus,
        *,
        executor: Executor | Fleet,
        report: Output | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.corpus: Corpus = validate.instance("corpus", corpus, Corpus, "a Corpus")
        allowed = "an executor such as Processes(2), or a Fleet"
        validate.instance("executor", executor, (Executor, Fleet), allowed)
        self._engine: Engine = executor if isinstance(executor, Fleet) else LocalEngine(executor)
        self._report = report
        self._chunk_bytes = validate.count("chunk_bytes", chunk_bytes)
        self.progress: Progress = Progress(self._engine.capacity)

    async def run(self) -> Analysis:
        """Run the four stages.

        Returns:
            The result; how it came about is in :attr:`progress`.

        Raises:
            OSError: The report cannot be written.
            ValueError: The corpus holds no text.
            WorkerCrashedError: A chunk killed every process that tried it.
            JobFailedError: The same in a fleet, or a chunk failed for good.
            TimeoutExceededError: A stage or a task took unreasonably long.

        Cancellation: processes and threads have ended, and the report's place is as before.
        """
        self.progress = Progress(self._engine.capacity)
        async with self._engine.opened():
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
            return self._sorted_out(listing, await self._engine.ingest(chunks, self.progress))

    def _sorted_out(self, listing: Listing, facts: list[Facts]) -> Catalogue:
        found = catalogue(facts, skipped=listing.skipped, troubles=listing.troubles)
        if not found.texts:
            what = f"{len(found.binary)} binary and {len(found.troubles)} unreadable files"
            held = what if facts or found.troubles else "no files"
            msg = f"path must hold at least one text: {self.corpus.title} holds {held}"
            raise ValueError(msg)
        return found

    async def _processing(self, ingestion: Catalogue) -> _Processed:
        """Take code and prose apart."""
        chunks = (*cut(entries(ingestion), str(self.corpus.root), self._chunk_bytes),)
        with self.progress.stage("processing"):
            self.progress.expect("processing", chunks)
            return _Processed(chunks, await self._engine.process(chunks, self.progress))

    async def _analysis(self, ingestion: Catalogue, processing: _Processed) -> Analysis:
        """Count words, then look at the whole."""
        lexicon = processing.lexicon
        with self.progress.stage("analysis"):
            self.progress.expect("analysis", processing.chunks)
            packages, troubles = await self._engine.count(processing.chunks, self.progress)
            with self.progress.here("analysis"):
                return analyse(
                    ingestion,
                    packages,
                    lexicon.names,
                    volume=lexicon.volume,
                    troubles=dict.fromkeys((*lexicon.troubles, *troubles)),
                )

    async def _publish(self, analysis: Analysis) -> None:
        """Draw the page and put it in its place."""
        if self._report is None:
            return
        with self.progress.stage("report"), self.progress.here("report"):
            page = render_report(analysis, self.progress, title=self.corpus.title)
            self._report.write(page)
