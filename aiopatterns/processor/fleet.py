"""A fleet: the engine whose workers are processes here and on other machines.

The program that runs the system enqueues chunks as jobs (:mod:`aiopatterns.processor.runjobs`)
and adds up what comes back. All chunks of a stage are enqueued at once, with their dependencies,
so that no worker waits for this program between two of them::

    ingestion 0, 1, ...                       here: find copies, cut anew
    processing 0, 1, ... 7  --> names 0       a group of chunks is added up by a job of its own
        |      |         |
    analysis 0, 1, ...   7  --> words 0       a chunk is counted when it has been processed

The ids of the jobs follow from the id of the run and from what the chunks hold. Enqueueing them
again is therefore no second run of them: a program that was killed goes on where it was when it
runs again with the same id, and so does one whose server forgot what it knew.

Guarantees:

* Any worker may be killed at any time, and so may the server, if it keeps what it acknowledged;
  the result is that of a serial run. A server that forgets costs its chunks anew.
* What this program leaves, when it ends or is cancelled, are outcomes and values with a life of
  hours; jobs that have not ended are cancelled. When it is killed, its jobs wait for it, or for a
  worker.
* An outage longer than :data:`PATIENCE` seconds ends the run by an error, and leaves all for the
  next with the same id.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar, final
from zlib import crc32

from anyio import move_on_after, to_thread

from aiopatterns.backends.names import check_name
from aiopatterns.core.clock import monotonic
from aiopatterns.core.context import new_id
from aiopatterns.core.errors import (
    BackendError,
    BackendUnavailableError,
    JobNotFoundError,
    TimeoutExceededError,
)
from aiopatterns.core.validate import count
from aiopatterns.jobs.worker import Worker
from aiopatterns.processor import tokens, wire
from aiopatterns.processor.analysis import add, add_counted
from aiopatterns.processor.engine import Lexicon, Words
from aiopatterns.processor.hands import Hands
from aiopatterns.processor.local import LocalEngine
from aiopatterns.processor.runjobs import HOST, Sum, Task, key_of, run_queue, stamp
from aiopatterns.processor.stages import Timed, Volume
from aiopatterns.resilience.backoff import Exponential
from aiopatterns.resilience.retry import Retry, Until

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
        Callable,
        Iterator,
        Sequence,
    )

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.flow.executors import Executor
    from aiopatterns.jobs.handle import Handle
    from aiopatterns.jobs.job import Job, UnsentJob
    from aiopatterns.jobs.queue import JobQueue
    from aiopatterns.processor.corpus import Chunk, Trouble
    from aiopatterns.processor.progress import Progress
    from aiopatterns.processor.runjobs import Made
    from aiopatterns.processor.stages import Facts

__all__ = ["PATIENCE", "Fleet"]

T = TypeVar("T")

PATIENCE: Final = 60.0
"""Seconds that a backend may be away before a run gives up."""

_GROUP: Final = 8
"""Chunks that are added up by one job."""
_LOOK: Final = 5.0
"""Seconds of silence after which it is asked whether anybody is there."""
_GENERATIONS: Final = 5
"""How often jobs are made anew whose values a server has forgotten."""
_AT_ONCE: Final = 500
"""Keys that are removed by one call."""
_FAREWELL: Final = 2.0
# The later stage first, so that what was begun is finished.
_PRIORITIES: Final = MappingProxyType(
    {"ingestion": 2, "processing": 4, "names": 5, "analysis": 6, "words": 7}
)
_SUMS: Final = MappingProxyType({"processing": "names", "analysis": "words"})

_PATIENT: Final = Retry(
    on=BackendUnavailableError,
    attempts=None,
    backoff=Exponential(initial=0.1, cap=2.0),
    until=Until(elapsed=PATIENCE),
)


@final
class Fleet:
    """Works on chunks by jobs.

    Args:
        backend: Where the jobs are: a URL, or a backend in memory.
        processes: Worker processes here, for as long as the run lasts; in memory so many jobs at
            once in this process. 0: others do the work.
        run: Id of the run; None makes one. Runs of one id over the same files are one run.
        executor: Where the words are counted instead, by map-reduce: for work that has outgrown
            these workers, such as a ``DaskExecutor``.

    Raises:
        ValueError: A value is out of its range, or worker processes cannot open the backend.

    Example::

        fleet = Fleet("redis://localhost", processes=4)
        analysis = await DataProcessor(Corpus.at("/data"), executor=fleet).run()
    """

    __slots__ = ("_backend", "_books", "_counter", "_processes", "_queue", "run")

    def __init__(
        self,
        backend: Backend | str,
        *,
        processes: int = 2,
        run: str | None = None,
        executor: Executor | None = None,
    ) -> None:
        self._processes = count("processes", processes, minimum=0)
        self.run: str = new_id() if run is None else check_name("run", run)
        self._backend = backend
        self._queue: JobQueue = run_queue(backend)
        if processes and self._queue.backend.scheme != "memory" and not isinstance(backend, str):
            msg = f"backend must be a URL, which worker processes can open, not {backend!r}"
            raise ValueError(msg)
        self._books: list[_Book] = []
        self._counter = None if executor is None else LocalEngine(executor)

    @property
    def capacity(self) -> int:
        """How many chunks are worked on at once, as far as is known here."""
        return max(1, self._processes)

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Have the queue open, and the workers of this machine running."""
        self._books = []
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._queue)
            if self._processes:
                await stack.enter_async_context(self._workers())
            if self._counter is not None:
                await stack.enter_async_context(self._counter.opened())
            try:
                yield
            finally:
                await self._leave()

    async def ingest(self, chunks: Sequence[Chunk], progress: Progress) -> list[Facts]:
        """Read, decode, hash and measure; facts come chunk by chunk."""
        book = await self._book(chunks, ("ingestion",))
        facts: list[Facts] = []
        for number in book.begun("ingestion", progress):
            await book.finished("ingestion", number, progress)
            facts += wire.read_facts(await book.value("ingestion", number))
        return facts

    async def process(self, chunks: Sequence[Chunk], progress: Progress) -> Lexicon:
        """Take code and prose apart; the words are counted meanwhile."""
        ahead = ("analysis",) if self._counter is None else ()
        book = await self._book(chunks, ("processing", *ahead))
        names: dict[str, int] = {}
        volumes: list[Volume] = []
        troubles: list[Trouble] = []
        for number in book.begun("processing", progress):
            await book.finished("processing", number, progress)
            if book.completes(number):
                part = wire.read_processed(await book.value("names", number // _GROUP))
                add(names, tokens.unpack(part.names))
                volumes.append(part.volume)
                troubles += part.troubles
        return Lexicon(names, Volume(*map(sum, zip(*volumes, strict=True))), tuple(troubles))

    async def count(self, chunks: Sequence[Chunk], progress: Progress) -> Words:
        """Count the words of the chunks that are processed."""
        if self._counter is not None:
            return await self._counter.count(chunks, progress)
        book = self._books[-1]
        packages: dict[str, dict[str, int]] = {}
        troubles: list[Trouble] = []
        for number in book.begun("analysis", progress):
            await book.finished("analysis", number, progress)
            if book.completes(number):
                part = wire.read_counted(await book.value("words", number // _GROUP))
                add_counted(packages, part)
                troubles += part.troubles
        return Words(packages, tuple(troubles))

    def _workers(self) -> Hands | Worker:
        """Return the workers of this machine."""
        if self._queue.backend.scheme == "memory":
            return Worker(self._queue, concurrency=self._processes, grace=0.0)
        assert isinstance(self._backend, str)
        return Hands(self._backend, self._processes)

    async def _book(self, chunks: Sequence[Chunk], stages: Sequence[str]) -> _Book:
        """Enqueue the chunks of some stages."""
        book = await to_thread.run_sync(_Book, self._queue, self.run, chunks, stages)
        self._books.append(book)
        await book.send()
        return book

    async def _leave(self) -> None:
        """Cancel what has not ended and remove what was found, if the backend is there."""
        with move_on_after(_FAREWELL, shield=True), suppress(BackendError):
            for book in self._books:
                await book.close()


@final
class _Book:
    """The jobs of some stages over the same chunks.

    Args:
        queue: Where they are.
        run: Id of the run.
        chunks: The chunks.
        stages: The stages, in their order.
    """

    __slots__ = (
        "_chunks",
        "_generation",
        "_handles",
        "_queue",
        "_stages",
        "_stem",
        "_tasks",
    )

    def __init__(
        self, queue: JobQueue, run: str, chunks: Sequence[Chunk], stages: Sequence[str]
    ) -> None:
        self._queue = queue
        self._chunks = chunks
        self._stages = stages
        self._tasks = [(stamp(each), wire.write_chunk(each)) for each in chunks]
        # Of the files as they are now: when one has changed, what was found before is of no use.
        digest = sha256(b"".join(part for task in self._tasks for part in task)).hexdigest()
        self._stem = f"{run}.{digest[:16]}"
        self._generation = 0
        self._handles: dict[str, Handle[Made]] = {}

    async def send(self) -> None:
        """Enqueue the jobs; those of a run that was broken off are found again.

        Jobs that have ended without a value are made anew under other ids, and with them all
        that depends on them.
        """
        while True:
            handles = await _patiently(self._enqueue)
            self._handles = {each.job_id: each for each in handles}
            old = [each.job_id for each in handles if not each.created]
            if not old:
                return
            states = await _patiently(partial(self._queue.desk().states, old))
            if not {"dead", "cancelled"}.intersection(states.values()):
                return
            self._generation += 1

    def begun(self, stage: str, progress: Progress) -> range:
        """Note that all chunks of a stage are under way; return their numbers."""
        for _ in self._chunks:
            progress.start(stage)
        return range(len(self._chunks))

    async def finished(self, stage: str, number: int, progress: Progress) -> None:
        """Wait for a chunk, and keep the record of it."""
        made = await self._made(stage, number)
        progress.finish(stage, self._chunks[number], _timed(made, number))

    def completes(self, number: int) -> bool:
        """Whether a chunk is the last of its group."""
        return number % _GROUP == _GROUP - 1 or number == len(self._chunks) - 1

    async def value(self, name: str, number: int) -> bytes:
        """Wait for a job and return what it found."""
        while True:
            made = await self._made(name, number)
            found = await _patiently(partial(self._queue.backend.kv.get, made.key))
            if found is not None:
                return found
            await self._renew()

    async def close(self) -> None:
        """Cancel what has not ended, and remove what was found."""
        ids = [*self._ids()]
        await self._queue.cancel(ids)
        for start in range(0, len(ids), _AT_ONCE):
            await self._queue.backend.kv.delete(*map(key_of, ids[start : start + _AT_ONCE]))

    async def _made(self, name: str, number: int) -> Made:
        """Wait for a job, also while the backend is away, but not for ever."""
        while True:
            try:
                return await self._handles[self._id(name, number)].result(timeout=_LOOK)
            except TimeoutExceededError:
                await _patiently(self._queue.backend.time)
            except JobNotFoundError:
                await self._renew()

    async def _renew(self) -> None:
        """Make the jobs anew: the server has forgotten some, or what they found."""
        self._generation += 1
        if self._generation > _GENERATIONS:
            raise BackendError(
                f"{self._queue.backend.url} has forgotten the jobs of run {self._stem}"
                f" {_GENERATIONS} times; is it restarted, or short of memory?"
            )
        await self.send()

    async def _enqueue(self) -> list[Handle[Made]]:
        return await self._queue.enqueue_many(self._calls())

    def _calls(self) -> list[UnsentJob[Made]]:
        """Return all calls: a job after those that it waits for, large chunks first."""
        calls: list[UnsentJob[Made]] = []
        before: Sequence[str] = ()
        order = sorted(range(len(self._chunks)), key=lambda each: -self._chunks[each].size)
        for stage in self._stages:
            for number in order:
                task = Task(key_of(self._id(stage, number)), HOST, *self._tasks[number])
                after = [self._id(each, number) for each in before]
                calls.append(self._call(stage, number, task, after))
            before = (stage,)
        for stage in self._stages:
            calls += self._sums(stage)
        return calls

    def _sums(self, stage: str) -> Iterator[UnsentJob[Made]]:
        """Add up the groups of a stage, if it has something to add up."""
        name = _SUMS.get(stage)
        if name is None:
            return
        for number, start in enumerate(range(0, len(self._chunks), _GROUP)):
            stop = min(start + _GROUP, len(self._chunks))
            after = [self._id(stage, each) for each in range(start, stop)]
            task = Sum(key_of(self._id(name, number)), [*map(key_of, after)])
            yield self._call(name, number, task, after)

    def _call(
        self, name: str, number: int, task: Task | Sum, after: Sequence[str]
    ) -> UnsentJob[Made]:
        job: Job[[Task | Sum], Made] = self._queue.jobs[name]
        return job.using(id=self._id(name, number), priority=_PRIORITIES[name], after=after).job(
            task
        )

    def _ids(self) -> Iterator[str]:
        """All ids, also of jobs whose enqueue was cut off."""
        for stage in self._stages:
            for number in range(len(self._chunks)):
                yield self._id(stage, number)
                if stage in _SUMS and self.completes(number):
                    yield self._id(_SUMS[stage], number // _GROUP)

    def _id(self, name: str, number: int) -> str:
        return f"{self._stem}.{self._generation}.{name}.{number}"


def _timed(made: Made, number: int) -> Timed[None]:
    """Return who made something when, on this machine's clock."""
    if made.host != HOST:
        process, now = crc32(f"{made.host} {made.process}".encode()), monotonic()
        return Timed(None, number, process, process, now - (made.end - made.start), now)
    # One of the threads of a worker process is that process; of this one, it is itself.
    thread = made.thread if made.process == os.getpid() else made.process
    return Timed(None, number, made.process, thread, made.start, made.end)


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask the backend, and again while it is away, up to :data:`PATIENCE` seconds."""
    return await _PATIENT.call(ask)
