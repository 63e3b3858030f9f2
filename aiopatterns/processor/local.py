"""The engine of one program: each stage by the pattern that fits its work, in one executor.

    stage       pattern
    ingestion   Pipeline      the order is free; what is found is collected as it comes
    processing  WorkerPool    the largest chunks go first, so that no worker ends long after the others
    analysis    map_reduce    vocabularies are added up while the next chunks are counted

Guarantees: a worker process that dies, or an error that may pass, costs its chunk a new attempt.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, final

from aiopatterns.core.clock import yield_now
from aiopatterns.core.errors import WorkerCrashedError
from aiopatterns.core.lifecycle import OwnerState
from aiopatterns.flow.mapreduce import map_reduce
from aiopatterns.flow.pipeline import Pipeline
from aiopatterns.flow.pool import WorkerPool
from aiopatterns.processor import stages, tokens
from aiopatterns.processor.analysis import add, add_counted
from aiopatterns.processor.engine import Lexicon, Words
from aiopatterns.processor.stages import Volume
from aiopatterns.resilience.backoff import Exponential
from aiopatterns.resilience.retry import Retry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from aiopatterns.flow.executors import Executor
    from aiopatterns.processor.corpus import Chunk, Trouble
    from aiopatterns.processor.progress import Progress
    from aiopatterns.processor.stages import Counted, Facts, Processed, Timed

__all__ = ["CHUNK_TIMEOUT", "LocalEngine"]

T = TypeVar("T")

CHUNK_TIMEOUT: Final = 300.0
"""Seconds for one chunk: ten thousand times the usual, enough for a file of gigabytes."""
_AGAIN: Final = Retry(
    on=(WorkerCrashedError, OSError), attempts=3, backoff=Exponential(initial=0.05, cap=1.0)
)
"""What may pass: a process that was killed, a file system that hiccuped, a timeout."""


@final
class LocalEngine:
    """Works on chunks in an executor.

    Args:
        executor: Where; opened for the run, unless it is open already.
    """

    __slots__ = ("_executor",)

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    @property
    def capacity(self) -> int:
        """How many chunks are worked on at once."""
        return self._executor.capacity

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Have the executor open."""
        async with AsyncExitStack() as stack:
            if self._executor.state is not OwnerState.RUNNING:
                await stack.enter_async_context(self._executor)
            yield

    async def ingest(self, chunks: Sequence[Chunk], progress: Progress) -> list[Facts]:
        """Read, decode, hash and measure by a pipeline."""
        facts: list[Facts] = []

        async def keep(found: tuple[Facts, ...]) -> None:
            facts.extend(found)

        read = partial(self._call, progress, "ingestion", stages.ingest)
        pipeline = Pipeline(chunks, name="ingestion").map(
            read, workers=2 * self.capacity, retry=_AGAIN, timeout=CHUNK_TIMEOUT
        )
        await pipeline.run(into=keep)
        return facts

    async def process(self, chunks: Sequence[Chunk], progress: Progress) -> Lexicon:
        """Take code and prose apart by a pool; the largest chunks go first."""
        names: dict[str, int] = {}
        volumes: list[Volume] = []
        troubles: list[Trouble] = []
        async with WorkerPool(
            partial(self._call, progress, "processing", stages.process),
            workers=2 * self.capacity,  # the next is at hand when one ends
            queue=max(1, len(chunks)),
            retry=_AGAIN,
            timeout=CHUNK_TIMEOUT,
        ) as pool:
            for handle in [await pool.submit(each, priority=each.size) for each in chunks]:
                part: Processed = await handle
                add(names, tokens.unpack(part.names))
                volumes.append(part.volume)
                troubles += part.troubles
        return Lexicon(names, Volume(*map(sum, zip(*volumes, strict=True))), tuple(troubles))

    async def count(self, chunks: Sequence[Chunk], progress: Progress) -> Words:
        """Count words by map-reduce."""
        troubles: list[Trouble] = []
        packages = await map_reduce(
            _fed(chunks, progress),
            partial(stages.timed, stages.count),
            partial(_fold, chunks, progress, troubles),
            initial=dict[str, dict[str, int]],
            chunk=1,
            executor=self._executor,
        )
        return Words(packages, tuple(troubles))

    async def _call(
        self, progress: Progress, stage: str, fn: Callable[[Chunk], T], chunk: Chunk
    ) -> T:
        """Run one task in the executor, and keep the record of it."""
        progress.start(stage)
        try:
            timed = await self._executor.run(stages.timed, fn, chunk)
        except BaseException:
            progress.drop(stage)
            raise
        progress.finish(stage, chunk, timed)
        return timed.value


def _fed(chunks: Sequence[Chunk], progress: Progress) -> Iterator[Chunk]:
    """Give map-reduce its items, and note that they are under way."""
    for each in chunks:
        progress.start("analysis")
        yield each


async def _fold(
    chunks: Sequence[Chunk],
    progress: Progress,
    troubles: list[Trouble],
    packages: dict[str, dict[str, int]],
    timed: Timed[Counted],
) -> dict[str, dict[str, int]]:
    """Add one task's vocabularies to the total, and keep the record of the task.

    The turn before lets the process that has just ended a task have its next one; to fold first
    would leave it idle for that long.
    """
    await yield_now()
    progress.finish("analysis", chunks[timed.task], timed)
    troubles += timed.value.troubles
    return add_counted(packages, timed.value)
