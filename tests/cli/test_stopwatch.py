from __future__ import annotations

from aiopatterns.cli.stopwatch import Stopwatch
from aiopatterns.core.clock import sleep
from aiopatterns.testing import simulate


def test_it_counts_from_start_to_stop():
    async def scene() -> list[float]:
        watch = Stopwatch()
        seen = [watch.seconds]
        await sleep(1)
        watch.start()
        await sleep(2)
        seen.append(watch.seconds)
        watch.stop()
        await sleep(4)
        return [*seen, watch.seconds]

    assert simulate(scene) == [0.0, 2.0, 2.0]
