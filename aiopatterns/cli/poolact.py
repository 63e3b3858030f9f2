"""The first act: a worker pool calls a flaky service, tries again, and keeps to a rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aiopatterns.cli.scene import Bar, Figure, Scene
from aiopatterns.cli.stopwatch import Stopwatch
from aiopatterns.core.clock import seeded, sleep
from aiopatterns.flow.pool import WorkerPool
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.ratelimit import Rate, TokenBucket
from aiopatterns.resilience.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PoolAct"]

_WORKERS: Final = 8
_QUEUE: Final = 50
_RATE: Final = 80
_BURST: Final = 10
_WORK: Final = (0.02, 0.1)  # seconds that a call takes, by chance between these
_SHARE: Final = 0.2  # of calls that fail
_FAILURES: Final = 3  # of one item, at most


@final
class PoolAct:
    """Flaky calls are made again, and never too many a second.

    Args:
        calls: How many items there are.
        seed: Decides which calls fail, and how long they take.
    """

    __slots__ = (
        "_attempts",
        "_bad",
        "_calls",
        "_failed",
        "_pool",
        "_rng",
        "_watch",
        "name",
        "title",
    )

    def __init__(self, *, calls: int = 250, seed: int = 0) -> None:
        self.name: str = "pool"
        self.title: str = f"worker pool: flaky calls, tried again, at most {_RATE} a second"
        self._calls = calls
        self._rng = seeded(seed)
        self._bad = [self._failures() for _ in range(calls)]
        self._attempts = self._failed = 0
        self._watch = Stopwatch()
        self._pool = WorkerPool(
            self._call,
            workers=_WORKERS,
            queue=_QUEUE,
            retry=Retry(on=ConnectionError, attempts=_FAILURES + 1, backoff=Constant(0.1)),
            rate=TokenBucket(Rate(_RATE), burst=_BURST),
        )

    async def run(self) -> None:
        """Play to the end."""
        self._watch.start()
        async with self._pool:
            async with self._pool.stream(range(self._calls)) as outcomes:
                async for _ in outcomes:
                    pass
            self._watch.stop()

    def scene(self) -> Scene:
        """Return what is to be seen now."""
        seen = self._pool.statistics()
        figures = (
            Figure("done", f"{seen.done}", "good"),
            Figure("attempts failed", f"{self._failed}", "bad"),
            Figure("given up", f"{seen.failed}", "bad" if seen.failed else "good"),
            Figure("attempts a second", f"{self._rate():.0f}"),
            Figure("seconds", f"{self._watch.seconds:.1f}", "dim"),
        )
        bars = (
            Bar("done", seen.done / self._calls, f"{seen.done} of {self._calls}", "good"),
            Bar("workers", seen.running / _WORKERS, f"{seen.running} of {_WORKERS} busy"),
            Bar("queue", seen.queued / _QUEUE, f"{seen.queued} wait, {_QUEUE} at most", "dim"),
        )
        return Scene(figures, bars)

    def facts(self) -> Mapping[str, object]:
        """Return how it went."""
        return {
            "calls": self._calls,
            "done": self._pool.statistics().done,
            "attempts": self._attempts,
            "attempts_failed": self._failed,
            "rate_limit": _RATE,
            "rate": round(self._rate(), 1),
            "seconds": round(self._watch.seconds, 2),
        }

    def ending(self) -> str:
        """Say how it went."""
        done = self._pool.statistics().done
        return (
            f"{done} of {self._calls} calls done, {self._failed} failed attempts made again,"
            f" {self._rate():.0f} attempts a second of {_RATE} allowed"
        )

    def well(self) -> bool:
        """Whether all is done, and not too fast."""
        allowed = _BURST + _RATE * self._watch.seconds
        return self._pool.statistics().done == self._calls and self._attempts <= allowed + 1

    def _failures(self) -> int:
        """How often an item's call fails before it succeeds."""
        failures = 0
        while failures < _FAILURES and self._rng.random() < _SHARE:
            failures += 1
        return failures

    async def _call(self, item: int) -> None:
        self._attempts += 1
        await sleep(self._rng.uniform(*_WORK))
        if self._bad[item]:
            self._bad[item] -= 1
            self._failed += 1
            raise ConnectionError(item)

    def _rate(self) -> float:
        """Attempts a second, what had been saved up at the beginning left out."""
        seconds = self._watch.seconds
        return max(0, self._attempts - _BURST) / seconds if seconds else 0.0
