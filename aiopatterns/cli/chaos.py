"""The chaos act: jobs, worker processes, a Redis, and ``kill -9`` every two seconds.

::

    t = 2 s   4 s   6 s ...   one worker is killed; a new one comes at once
    t =  3 s   5 s   7 s ...  Redis is killed, and is back over its append-only file 0.3 s later

    job: sleeps about 0.1 s, then notes its end in a file         <- the ledger, no store
    done        jobs that have noted an end
    lost        jobs of which there is no end, and of which the queue knows nothing either
    twice       ends beyond the first of a job: at least once means that there may be some

What is lost is asked, not reckoned: the queue is asked for the state of each job that has no end
yet, and then the ledger is read again, which hears of an end before the queue does.
"""

from __future__ import annotations

from collections import deque
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from anyio import create_task_group, move_on_after, to_thread

from aiopatterns.backends.opening import open_backend
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.cli.chaoscrew import ProcessPlace, TaskPlace
from aiopatterns.cli.chaosjobs import Ledger, define
from aiopatterns.cli.scene import Bar, Figure, Scene
from aiopatterns.cli.stopwatch import Stopwatch
from aiopatterns.core.clock import seeded, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.cli.chaoscrew import Place
    from aiopatterns.jobs.queue import JobQueue

__all__ = ["ChaosAct"]

# What was acknowledged is on the disk, not only with the kernel.
_DURABLE: Final = MappingProxyType({"appendonly": "yes", "appendfsync": "always"})
_WORKERS: Final = 4
# Seconds that a job takes, by chance between these.
_WORK: Final = (0.05, 0.2)
_AWAY: Final = 0.3  # seconds without a Redis
_LOOK: Final = 0.1  # seconds between two looks at the ledger
_ASK: Final = 0.5  # seconds between two questions to the queue
_NOTES: Final = 6
_KEPT: Final = frozenset({"queued", "scheduled", "waiting", "running"})
_BATCH: Final = 500


@final
class ChaosAct:
    """Jobs outlive their workers and their store.

    Args:
        jobs: How many.
        every: Seconds between two kills of a worker, and between two of Redis.
        seed: Decides who is killed, and how long jobs take.
        within: Seconds after which the act gives up.
        memory: Whether to play it in this process alone, also where a Redis can be started.
    """

    __slots__ = (
        "_accepted",
        "_every",
        "_jobs",
        "_ledger",
        "_lost",
        "_memory",
        "_notes",
        "_places",
        "_rng",
        "_server",
        "_server_kills",
        "_store",
        "_watch",
        "_within",
        "_worker_kills",
        "name",
        "title",
    )

    def __init__(
        self,
        *,
        jobs: int = 2_000,
        every: float = 2.0,
        seed: int = 0,
        within: float = 90.0,
        memory: bool = False,
    ) -> None:
        self.name: str = "chaos"
        self.title: str = f"chaos: {jobs:,} jobs, kill -9 every {every:g} s"
        self._jobs = jobs
        self._every = every
        self._rng = seeded(seed)
        self._within = within
        self._memory = memory
        self._server: RedisServer | None = None
        self._ledger: Ledger | None = None
        self._places: list[Place] = []
        self._accepted = self._lost = self._worker_kills = self._server_kills = 0
        self._store = ""  # what is to be seen of Redis
        self._watch = Stopwatch()
        self._notes: deque[str] = deque(maxlen=_NOTES)

    async def run(self) -> None:
        """Play to the end.

        Raises:
            BackendUnavailableError: Redis was killed and does not start again.
        """
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="ap-chaos-")))
            self._ledger = ledger = Ledger(folder / "ledger")
            backend = await self._prepare(stack, folder)
            queue = await stack.enter_async_context(define(backend, ledger.path))
            await self._enqueue(queue)
            self._watch.start()
            with move_on_after(self._within):
                await self._play(queue)
            self._watch.stop()
            self._store = "ended"

    def scene(self) -> Scene:
        """Return what is to be seen now."""
        done = 0 if self._ledger is None else len(self._ledger.ended)
        twice = 0 if self._ledger is None else self._ledger.twice
        figures = (
            Figure("done", f"{done:,}", "good"),
            Figure("lost", f"{self._lost:,}", "bad" if self._lost else "good"),
            Figure("twice", f"{twice:,}", "dim"),
            Figure("workers killed", f"{self._worker_kills}", "bad"),
            Figure("Redis killed", f"{self._server_kills}", "bad"),
            Figure("seconds", f"{self._watch.seconds:.1f}", "dim"),
        )
        bars = [Bar("done", done / self._jobs, f"{done:,} of {self._jobs:,}", "good")]
        bars += [self._bar(number, place) for number, place in enumerate(self._places, 1)]
        if self._server is not None:
            alive = self._store.startswith("pid")
            bars.append(Bar("Redis", float(alive), self._store, "busy" if alive else "bad"))
        return Scene(figures, tuple(bars), tuple(self._notes), _NOTES)

    def facts(self) -> Mapping[str, object]:
        """Return how it went."""
        ledger = self._ledger
        return {
            "store": "memory" if self._server is None else f"Redis {self._server.version}",
            "jobs": self._accepted,
            "done": 0 if ledger is None else len(ledger.ended),
            "lost": self._lost,
            "twice": 0 if ledger is None else ledger.twice,
            "workers": _WORKERS,
            "workers_killed": self._worker_kills,
            "redis_killed": self._server_kills,
            "seconds": round(self._watch.seconds, 2),
        }

    def ending(self) -> str:
        """Say how it went."""
        facts = self.facts()
        kills = f"workers {self._worker_kills} times"
        kills += f", Redis {self._server_kills} times" if self._server is not None else ""
        return (
            f"{facts['done']:,} of {self._accepted:,} jobs done, {self._lost} lost,"
            f" {facts['twice']} twice; killed: {kills}; {self._watch.seconds:.1f} s"
        )

    def well(self) -> bool:
        """Whether all is done and nothing is lost."""
        return self._ledger is not None and len(self._ledger.ended) == self._jobs

    # --------------------------------------------------------------------------- private core

    async def _prepare(self, stack: AsyncExitStack, folder: Path) -> Backend:
        """Start a Redis and make places for processes; without one, places for tasks."""
        ledger, log = folder / "ledger", folder / "log"
        backend = None if self._memory else await self._start_server(stack)
        if backend is None:
            backend = open_backend("memory://")
            self._places = [TaskPlace(backend, ledger, each) for each in range(_WORKERS)]
            self._note("without a Redis: workers are tasks, cancelled instead of killed")
            return backend
        words = stack.enter_context(log.open("ab"))
        self._places = [ProcessPlace(backend.url, ledger, words) for _ in range(_WORKERS)]
        stack.callback(self._explain, log)
        return backend

    async def _start_server(self, stack: AsyncExitStack) -> Backend | None:
        """Start a Redis; None where that cannot be."""
        try:
            server = await stack.enter_async_context(RedisServer(config=_DURABLE))
            backend = open_backend(server.url)
        except (BackendUnavailableError, ImportError) as error:
            self._note(str(error))
            return None
        self._server, self._store = server, f"pid {server.pid}"
        return backend

    def _explain(self, log: Path) -> None:
        """If it did not go well, note the last words of the workers."""
        words = log.read_text("utf-8", "replace").split("\n")[-2:]
        if not self.well():
            self._note(f"a worker said: {' '.join(words).strip() or 'nothing'}")

    async def _enqueue(self, queue: JobQueue) -> None:
        """Hand in all jobs; they count once the queue has acknowledged them."""
        work = queue.jobs["work"]
        for start in range(0, self._jobs, _BATCH):
            numbers = range(start, min(start + _BATCH, self._jobs))
            await queue.enqueue_many(
                [
                    work.using(id=_id(each)).job(each, round(self._rng.uniform(*_WORK), 3))
                    for each in numbers
                ]
            )
            self._accepted += len(numbers)

    async def _play(self, queue: JobQueue) -> None:
        async with create_task_group() as tasks:
            for place in self._places:
                tasks.start_soon(place.run)
            tasks.start_soon(self._strike_workers)
            if self._server is not None:
                tasks.start_soon(self._strike_server, self._server)
            tasks.start_soon(self._read)
            while await self._ask(queue):
                await sleep(_ASK)
            tasks.cancel_scope.cancel()

    async def _strike_workers(self) -> None:
        """Kill a worker, again and again: one that has done something, and never the last one.

        On a machine on which a start takes longer than it is until the next kill, nothing would be
        done otherwise.
        """
        assert self._ledger is not None
        while True:
            await sleep(self._every)
            by = self._ledger.by
            working = [each for each in self._places if each.marks and by[each.marks[-1]]]
            if len(working) < 2:
                continue
            place = self._rng.choice(working)
            if place.kill():
                self._worker_kills += 1
                self._note(f"worker {self._places.index(place) + 1} killed")

    async def _strike_server(self, server: RedisServer) -> None:
        """Kill Redis, half way between two workers, and start it again."""
        await sleep(self._every / 2)
        while True:
            await sleep(self._every - _AWAY)
            server.kill()
            self._store, self._server_kills = "killed", self._server_kills + 1
            self._note("Redis killed")
            await sleep(_AWAY)
            await to_thread.run_sync(server.restart)
            self._store = f"pid {server.pid}"
            self._note("Redis is back, over its append-only file")

    async def _read(self) -> None:
        """Follow the ledger."""
        assert self._ledger is not None
        while True:
            self._ledger.look()
            await sleep(_LOOK)

    async def _ask(self, queue: JobQueue) -> bool:
        """Ask what has become of what has not ended; whether there is more to wait for."""
        assert self._ledger is not None
        ended = self._ledger.ended
        missing = [each for each in range(self._accepted) if each not in ended]
        try:
            (store,) = queue.stores
            states = await store.states([_id(each) for each in missing])
            counts = await store.counts()
        except BackendError:
            return True  # nobody can be asked now
        self._ledger.look()
        self._lost = sum(states[_id(each)] not in _KEPT and each not in ended for each in missing)
        return bool(counts.queued + counts.scheduled + counts.waiting + counts.running)

    def _bar(self, number: int, place: Place) -> Bar:
        """What one place has done."""
        assert self._ledger is not None
        ends = sum(self._ledger.by[mark] for mark in place.marks)
        text = f"{ends:,} done"
        if len(place.marks) > 1:
            text += f" by {len(place.marks)} processes"
        return Bar(f"worker {number}", ends / self._jobs, text)

    def _note(self, text: str) -> None:
        self._notes.append(f"{self._watch.seconds:5.1f} s  {text}")


def _id(number: int) -> str:
    return f"job-{number}"
