"""The jobs of the demo's chaos act, and the ledger in which each notes its end.

Worker processes import this module; the environment tells them where the queue and the ledger are.
The ledger is a plain file to which all append, one unbuffered write for each end, so it knows what
was done whatever becomes of the store.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.clock import sleep
from aiopatterns.jobs.queue import JobQueue
from aiopatterns.resilience.retry import Retry

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend

__all__ = ["CONCURRENCY", "LEDGER", "TARGET", "URL", "Ledger", "define"]

#: Names of the variables that tell a worker process where to work.
URL: Final = "AIOPATTERNS_CHAOS_URL"
LEDGER: Final = "AIOPATTERNS_CHAOS_LEDGER"
#: The queue, as ``aiopatterns worker`` names it.
TARGET: Final = "aiopatterns.cli.chaosjobs:jobs"
#: Jobs that a worker runs at once.
CONCURRENCY: Final = 10
# Seconds after which the jobs of a worker that was killed go to others.
_LEASE: Final = 1.0
# A job whose worker is killed has been started once; it may be unlucky again, and must not give up.
_UNLUCKY: Final = Retry(on=OSError, attempts=1_000)


def define(backend: Backend | str, ledger: Path, *, who: int | None = None) -> JobQueue:
    """Make the queue with its one job, ``work(number, seconds)``.

    Args:
        backend: Where the jobs are kept.
        ledger: The file in which each notes its end.
        who: What tells this worker from the others; by default its process.
    """
    queue = JobQueue("chaos", backend, lease=_LEASE)
    mark = os.getpid() if who is None else who

    @queue.job(name="work", retry=_UNLUCKY, result_ttl=0)
    async def work(number: int, seconds: float) -> None:
        await sleep(seconds)
        with ledger.open("ab", buffering=0) as file:
            file.write(f"{number} {mark}\n".encode())

    return queue


@final
class Ledger:
    """What the ledger says.

    Args:
        path: The file; an empty one is made.
    """

    __slots__ = ("_read", "by", "ended", "path", "twice")

    def __init__(self, path: Path) -> None:
        path.touch()
        self.path: Path = path
        self.ended: set[int] = set()
        self.twice: int = 0
        self.by: Counter[int] = Counter()
        self._read = 0

    def look(self) -> None:
        """Read what is new. O(new lines)."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            number, mark = map(int, line.split())
            self.by[mark] += 1
            self.twice += number in self.ended
            self.ended.add(number)


if URL in os.environ:
    jobs: JobQueue = define(os.environ[URL], Path(os.environ[LEDGER]))
