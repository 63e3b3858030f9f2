"""Five stores that are written, synchronised, purged and cut off from each other, by chance.

Runs are interrupted at any call: by a partition, which comes and goes, or by an end of patience.
After the storm all synchronise with all, until a round changes nothing.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from aiopatterns.core import clock
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.data import reconcile
from aiopatterns.data.memorystore import MemorySyncStore
from aiopatterns.data.sync import Synchronizer
from tests.data.syncplaces import Frail, leaves

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from aiopatterns.data import Strategy, Versioned

NODES = "abcde"
KEYS = "xyz"
# A pair of stores that is not equal after so many rounds of all pairs never will be.
ROUNDS = 8


class Storm:
    """The stores, who can talk to whom, and all versions that were written."""

    def __init__(self, strategy: Strategy, *, forgetful: bool) -> None:
        self.rng: random.Random = clock.rng()
        self.strategy = strategy
        self.forgetful = forgetful
        self.stores = {name: MemorySyncStore(name) for name in NODES}
        self.sides = dict.fromkeys(NODES, 0)
        self.written: list[Versioned] = []

    def line(self, left: str, right: str) -> Callable[[], None]:
        def fault() -> None:
            if self.sides[left] != self.sides[right]:
                raise BackendUnavailableError(f"{left} and {right} are parted")

        return fault

    def between(self, left: str, right: str, batch: int) -> Synchronizer:
        ends = (Frail(self.stores[name], self.line(left, right)) for name in (left, right))
        return Synchronizer(*ends, strategy=self.strategy, batch=batch)

    async def write(self, name: str) -> None:
        store, key = self.stores[name], self.rng.choice(KEYS)
        if self.rng.random() < 0.25:
            made = await store.delete(key)
        else:
            made = await store.put(key, [self.rng.randrange(9)])
        if made is not None:
            self.written.append(made)

    async def purge(self, name: str) -> None:
        if self.forgetful and self.rng.random() < 0.5:
            await self.stores[name].forget(self.rng.choice(NODES))
        await self.stores[name].purge()

    async def node(self, name: str, steps: int) -> None:
        """One node's life: it writes, talks to another one, or purges; now and then all part."""
        for _ in range(steps):
            await clock.sleep(self.rng.choice([0.0, 0.0005, 0.5]))
            chance = self.rng.random()
            if chance < 0.1:
                self.sides = {each: self.rng.randrange(2) for each in NODES}
            elif chance < 0.2:
                await self.purge(name)
            elif chance < 0.5:
                await self.write(name)
            else:
                await self.talk(name)

    async def talk(self, name: str) -> None:
        other = self.rng.choice([each for each in NODES if each != name])
        sync = self.between(name, other, self.rng.randint(1, 3))
        direction: Any = self.rng.choice(["both", "push", "pull"])
        with suppress(BackendError), anyio.move_on_after(self.rng.choice([0.0, 1.0])):
            await sync.run(direction)

    async def all_with_all(self) -> int:
        """Synchronise all pairs, in an order of chance; returns how many records were changed."""
        pairs = [(left, right) for left in NODES for right in NODES if left < right]
        self.rng.shuffle(pairs)
        changed = 0
        for left, right in pairs:
            report = await self.between(left, right, 2).run()
            assert report.quarantined == ()
            changed += report.pushed + report.pulled
        return changed

    async def settle(self) -> None:
        self.sides = dict.fromkeys(NODES, 0)
        for _ in range(ROUNDS):
            if await self.all_with_all() == 0:
                return
        raise AssertionError(f"not at rest after {ROUNDS} rounds")


async def storm(strategy: Strategy, *, steps: int = 12, forgetful: bool = False) -> int:
    """Let stores write and talk, then compare them; returns how many versions were written.

    Args:
        strategy: Of all.
        steps: Of each node.
        forgetful: Whether peers are forgotten, so that tombstones are purged too early. Then all
            must end with the same, though not with what an edit that was slept over would be.
    """
    made = Storm(strategy, forgetful=forgetful)
    await made.all_with_all()  # each knows of all others: whom a purge must wait for
    async with anyio.create_task_group() as group:
        for name in NODES:
            group.start_soon(made.node, name, steps)
    await made.settle()
    first, *others = [await leaves(store, tombstones=False) for store in made.stores.values()]
    for other in others:
        assert other == first
    if not forgetful:
        for key in KEYS:
            written = [each for each in made.written if each.key == key]
            expected = reconcile(written, strategy=strategy) if written else ()
            if expected and expected[0].deleted:
                expected = ()
            assert first.get(key, ()) == expected
    return len(made.written)
