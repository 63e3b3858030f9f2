"""The second act: a pipeline whose last stage is slow, so that the first ones wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aiopatterns.cli.scene import Bar, Figure, Scene
from aiopatterns.cli.stopwatch import Stopwatch
from aiopatterns.core.clock import seeded, sleep
from aiopatterns.flow.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from aiopatterns.flow.run import PipelineRun

__all__ = ["PipelineAct"]

_CAPACITY: Final = 20
#: Name, workers, seconds an item takes.
_STAGES: Final = (("read", 8, 0.01), ("parse", 4, 0.02), ("store", 2, 0.02))
# What fits in: each stage has its workers and its capacity, and one item waits at the door.
_MOST: Final = 1 + sum(workers + _CAPACITY for _, workers, _ in _STAGES)


@final
class PipelineAct:
    """A slow stage holds the fast ones back; memory stays bounded, and order is kept.

    Args:
        items: How many items the source has.
        seed: Decides how long each takes.
    """

    __slots__ = (
        "_items",
        "_most",
        "_read",
        "_rng",
        "_run",
        "_stored",
        "_watch",
        "name",
        "title",
    )

    def __init__(self, *, items: int = 300, seed: int = 0) -> None:
        self.name: str = "pipeline"
        self.title: str = "pipeline: a slow stage holds the fast ones back"
        self._items = items
        self._rng = seeded(seed)
        self._read = self._most = 0
        self._stored: list[int] = []
        self._run: PipelineRun[int] | None = None
        self._watch = Stopwatch()

    async def run(self) -> None:
        """Play to the end."""
        pipeline = Pipeline(self._source(), capacity=_CAPACITY, name="demo")
        for name, workers, seconds in _STAGES:
            pipeline = pipeline.map(self._work(seconds), workers=workers).named(name)
        self._watch.start()
        async with pipeline.open() as self._run:
            async for item in self._run:
                self._stored.append(item)
        self._watch.stop()

    def scene(self) -> Scene:
        """Return what is to be seen now."""
        held = self._read - len(self._stored)
        figures = (
            Figure("read", f"{self._read}"),
            Figure("stored", f"{len(self._stored)}", "good"),
            Figure("inside now", f"{held}"),
            Figure("inside at most", f"{self._most}", "good" if self._most <= _MOST else "bad"),
            Figure("seconds", f"{self._watch.seconds:.1f}", "dim"),
        )
        return Scene(figures, tuple(self._bars()))

    def facts(self) -> Mapping[str, object]:
        """Return how it went."""
        return {
            "items": self._items,
            "stored": len(self._stored),
            "in_order": self._stored == [*range(len(self._stored))],
            "inside_at_most": self._most,
            "inside_bound": _MOST,
            "seconds": round(self._watch.seconds, 2),
        }

    def ending(self) -> str:
        """Say how it went."""
        return (
            f"{len(self._stored)} of {self._items} items through {len(_STAGES)} stages, in order;"
            f" at most {self._most} inside, of {_MOST} allowed"
        )

    def well(self) -> bool:
        """Whether all came through, in order, and never too many were inside."""
        return self._stored == [*range(self._items)] and self._most <= _MOST

    def _source(self) -> Iterator[int]:
        for item in range(self._items):
            self._read += 1
            self._most = max(self._most, self._read - len(self._stored))
            yield item

    def _work(self, seconds: float) -> Callable[[int], Awaitable[int]]:
        """Return a stage's function, which takes so long, more or less."""

        async def work(item: int) -> int:
            await sleep(seconds * self._rng.uniform(0.5, 1.5))
            return item

        return work

    def _bars(self) -> Iterator[Bar]:
        """A bar for all, and one for what each stage holds."""
        done = len(self._stored)
        yield Bar("stored", done / self._items, f"{done} of {self._items}", "good")
        stages = () if self._run is None else self._run.statistics().stages
        for each, (_, workers, _) in zip(stages, _STAGES, strict=False):
            held = each.queued + each.in_flight
            text = f"{each.in_flight} of {workers} busy, {each.queued} wait"
            yield Bar(each.name, held / (workers + _CAPACITY), text)
