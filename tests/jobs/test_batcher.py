from __future__ import annotations

from typing import Any, cast

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.jobs.batcher import Batcher
from aiopatterns.testing import simulate


def test_a_batch_is_full_or_its_first_has_waited():
    async def main() -> None:
        found: list[tuple[float, list[Any]]] = []

        def full(calls: list[tuple[Any, Any]]) -> None:
            found.append((monotonic(), [each for each, _ in calls]))

        batcher = Batcher(3, 0.5, full)

        def add(*numbers: Any) -> None:
            for each in numbers:
                batcher.add(each, cast("Any", None))

        add(1, 2, 3, 4)
        assert found == [(0.0, [1, 2, 3])]
        await sleep(0.3)
        add(5)
        await sleep(1)
        assert found[1:] == [(0.5, [4, 5])]
        batcher.flush()
        add(6)
        batcher.flush()
        await sleep(1)
        assert found[2:] == [(1.3, [6])]

    simulate(main)
