"""The jobs of a distributed run: what workers do with chunks, on whatever machine they are.

One queue holds the chunks of all runs on a backend. A worker knows nothing of a run: it takes a
chunk, opens the files, leaves what it found under a key with a life, and returns the key::

    job          does                                      after             returns
    ingestion    facts of each file                        -                 key of the facts
    processing   names in code, volume                     -                 key of a vocabulary
    names        adds up the vocabularies of a group       its processing    key of a vocabulary
    analysis     words of each package                     processing        key of vocabularies
    words        adds up the vocabularies of a group       its analysis      key of vocabularies

Workers on other machines need the same files at the same path. Each chunk brings a stamp of its
files (path, size, time of change); a machine whose files are others gives the chunk back, and an
error of a file there counts as a failed attempt: only the machine that listed the files is
believed that one of them cannot be read.

Each worker has a circuit breaker for each stage, shared with the other workers. Where a stage
fails again and again its chunks go back until the break is over, without costing an attempt.

Guarantees: a chunk that is worked on twice, because its worker died or was thought dead, leaves
the same value under the same key. Chunks and values are data, never code.
"""

from __future__ import annotations

import os
import platform
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import get_native_id
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, final

import msgspec
from anyio import to_thread

from aiopatterns.core.clock import monotonic
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import BackendUnavailableError, CircuitOpenError, Reject, RetryLater
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.processor import stages, tokens, wire
from aiopatterns.processor.analysis import add, add_counted
from aiopatterns.processor.local import CHUNK_TIMEOUT
from aiopatterns.processor.progress import STAGES
from aiopatterns.processor.stages import Counted, Processed, Timed, Volume
from aiopatterns.resilience.backoff import Exponential
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.sharing import share_circuits
from aiopatterns.resilience.trip import Consecutive, Trip

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.jobs.context import Context
    from aiopatterns.processor.corpus import Chunk
    from aiopatterns.processor.tokens import Bag

__all__ = [
    "HOST",
    "QUEUE",
    "TTL",
    "FilesDiffer",
    "Made",
    "Sum",
    "Task",
    "key_of",
    "run_queue",
    "stamp",
]

T = TypeVar("T")
V = TypeVar("V")


def _host() -> str:
    """Return the name of this machine, with a digest of its boot and of its mounts where it has one."""
    name = platform.node()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        mounts = bytes(Path("/proc/self/ns/mnt").readlink())
    except OSError:
        return name
    return f"{name}/{sha256(boot + mounts).hexdigest()[:8]}"


QUEUE: Final = "aiopatterns.run"
"""Name of the queue in which all runs have their jobs."""
HOST: Final = _host()
"""This machine, as it sees its files: containers of one name are not the same."""
TTL: Final = 6 * 3600.0
"""Seconds for which what was found is kept; a run that waits longer for a group begins it anew."""

_LEASE: Final = 3.0
"""Seconds after which a worker that is not heard of counts as dead. A chunk is quickly done again."""
_MAX_BYTES: Final = 64 << 20
"""Bytes of a task: paths of millions of empty files are one chunk."""
_SOON: Final = 1.0
"""Seconds after which a chunk that was given back may be taken again."""
_AGAIN: Final = Retry(on=OSError, attempts=8, backoff=Exponential(initial=0.05, cap=1.0))
_TRIP: Final = Trip(Consecutive(5))
_BREAK: Final = 5.0


@final
class Task(msgspec.Struct, frozen=True, array_like=True):
    """One chunk in one stage; new fields go to the end.

    Args:
        key: Where what is found is left.
        host: The machine that listed the files.
        stamp: What :func:`stamp` says of the files there.
        chunk: The chunk.
    """

    key: str
    host: str
    stamp: bytes
    chunk: bytes


@final
class Sum(msgspec.Struct, frozen=True, array_like=True):
    """Values of one stage that are added up; new fields go to the end.

    Args:
        key: Where the sum is left.
        parts: Where the values are.
    """

    key: str
    parts: list[str]


@final
class Made(msgspec.Struct, frozen=True, array_like=True):
    """Where a value is, and who made it when; new fields go to the end.

    Args:
        key: Where it is.
        host: The machine.
        process: Id of the process there.
        thread: Id of the thread in it.
        start: Begin on the machine's monotonic clock.
        end: End on the same clock.
    """

    key: str
    host: str
    process: int
    thread: int
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class FilesDiffer(Event):
    """A worker gave a chunk back, since the files on its machine are not those of the run.

    Args:
        root: The folder.
        host: The machine that listed the files.
    """

    name: ClassVar[str] = "aiopatterns.run.files_differ"
    level: ClassVar[str] = "warning"

    root: str
    host: str


def run_queue(backend: Backend | str) -> JobQueue:
    """Return the queue of the runs on a backend, with its jobs; for both sides.

    Args:
        backend: A backend or its URL.

    Example (a worker on another machine; one chunk keeps a processor busy)::

        aiopatterns worker aiopatterns.processor.runjobs:run_queue --backend URL --concurrency 1
    """
    queue = JobQueue(
        QUEUE,
        backend,
        lease=_LEASE,
        lifespan=lambda: _circuits(queue),
        codec=MSGPACK,
        max_bytes=_MAX_BYTES,
    )
    work = _Work(queue)
    for fn in (work.ingestion, work.processing, work.names, work.analysis, work.words):
        queue.job(retry=_AGAIN, timeout=CHUNK_TIMEOUT, result_ttl=TTL, demote=True)(fn)
    return queue


def key_of(job_id: str) -> str:
    """Return the key under which a job leaves what it found."""
    return f"run:{job_id}"


def stamp(chunk: Chunk) -> bytes:
    """Return a digest of the paths, sizes and times of change of a chunk's files on this machine."""
    digest = sha256()
    for path, _ in chunk.entries:
        try:
            found = Path(chunk.root, path).stat()
            digest.update(f"{path!r} {found.st_size} {found.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path!r}\n".encode())
    return digest.digest()[:16]


@asynccontextmanager
async def _circuits(queue: JobQueue) -> AsyncGenerator[Mapping[str, CircuitBreaker]]:
    """Have one breaker for each stage, shared with the other workers."""
    breakers = {
        name: CircuitBreaker(f"run.{name}", trip=_TRIP, open_for=_BREAK) for name in STAGES[:3]
    }
    async with share_circuits(queue.backend, breakers.values()):
        yield breakers


@final
class _Work:
    """The functions of the jobs.

    Args:
        queue: Whose backend keeps the values; it is open while they run.
    """

    __slots__ = ("_queue",)

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    async def ingestion(self, ctx: Context, task: Task) -> Made:
        """Read, decode, hash and measure the files of a chunk."""
        return await self._chunk(ctx, _ingest, task)

    async def processing(self, ctx: Context, task: Task) -> Made:
        """Take code and prose of a chunk apart."""
        return await self._chunk(ctx, _process, task)

    async def analysis(self, ctx: Context, task: Task) -> Made:
        """Count the words of a chunk."""
        return await self._chunk(ctx, _count, task)

    async def names(self, task: Sum) -> Made:
        """Add up what processing found in a group of chunks."""
        return await self._sum(_add_names, task)

    async def words(self, task: Sum) -> Made:
        """Add up what analysis found in a group of chunks."""
        return await self._sum(_add_words, task)

    async def _chunk(
        self, ctx: Context, fn: Callable[[Chunk], tuple[bytes, bool]], task: Task
    ) -> Made:
        """Work on a chunk in a thread, while the loop tells the queue that this worker lives."""
        chunk = wire.read_chunk(task.chunk)
        foreign = task.host != HOST
        if foreign and await to_thread.run_sync(stamp, chunk) != task.stamp:
            if listening():
                emit(FilesDiffer(chunk.root, task.host))
            raise RetryLater(_SOON)
        breaker: CircuitBreaker = ctx.state[ctx.name]
        try:
            async with breaker.guard():
                made = await _in_thread(fn, chunk)
                found, complete = made.value
                if foreign and not complete:
                    raise OSError(f"a file of {chunk.root} cannot be read on {HOST}")
        except CircuitOpenError as error:
            raise RetryLater(max(_SOON, error.retry_after or 0.0)) from error
        return await self._keep(task.key, found, made)

    async def _sum(self, fn: Callable[[Sequence[bytes]], bytes], task: Sum) -> Made:
        """Add up values that other jobs have left."""
        values = await _unless_away(self._queue.backend.kv.get_many(task.parts))
        if missing := [each for each in task.parts if each not in values]:
            raise Reject(f"what was found is not kept any more: {missing[0]}")
        made = await _in_thread(fn, [*values.values()])
        return await self._keep(task.key, made.value, made)

    async def _keep(self, key: str, value: bytes, made: Timed[Any]) -> Made:
        """Leave a value under its key."""
        await _unless_away(self._queue.backend.kv.set(key, value, ttl=TTL))
        return Made(key, HOST, made.process, made.thread, made.start, made.end)


async def _in_thread(fn: Callable[[T], V], value: T) -> Timed[V]:
    """Run a function in a thread; one that is cut off is abandoned."""
    return await to_thread.run_sync(_measured, fn, value, abandon_on_cancel=True)


def _measured(fn: Callable[[T], V], value: T) -> Timed[V]:
    """Run a function, and note who did it when."""
    start = monotonic()
    return Timed(fn(value), 0, os.getpid(), get_native_id(), start, monotonic())


async def _unless_away(asked: Awaitable[T]) -> T:
    """Ask the backend; while it is away the job goes back, without costing an attempt."""
    try:
        return await asked
    except BackendUnavailableError as error:
        raise RetryLater(_SOON) from error


def _ingest(chunk: Chunk) -> tuple[bytes, bool]:
    """Do the work of ingestion; returns what was found, and whether all files could be read."""
    facts = stages.ingest(chunk)
    return wire.write_facts(facts), all(each.kind != "unreadable" for each in facts)


def _process(chunk: Chunk) -> tuple[bytes, bool]:
    found = stages.process(chunk)
    return wire.write_processed(found), not found.troubles


def _count(chunk: Chunk) -> tuple[bytes, bool]:
    found = stages.count(chunk)
    return wire.write_counted(found), not found.troubles


def _add_names(values: Sequence[bytes]) -> bytes:
    """Add up what processing found in several chunks."""
    names: dict[str, int] = {}
    parts = [*map(wire.read_processed, values)]
    for each in parts:
        add(names, tokens.unpack(each.names))
    volume = Volume(*map(sum, zip(*(each.volume for each in parts), strict=True)))
    troubles = tuple(trouble for each in parts for trouble in each.troubles)
    return wire.write_processed(Processed(_packed(names), volume, troubles))


def _add_words(values: Sequence[bytes]) -> bytes:
    """Add up what analysis found in several chunks."""
    packages: dict[str, dict[str, int]] = {}
    parts = [*map(wire.read_counted, values)]
    for each in parts:
        add_counted(packages, each)
    words = tuple((name, _packed(found)) for name, found in packages.items())
    troubles = tuple(trouble for each in parts for trouble in each.troubles)
    return wire.write_counted(Counted(words, troubles))


def _packed(found: Mapping[str, int]) -> Bag:
    return tokens.pack({term.encode(): number for term, number in found.items()})
