"""Synchronisation by chance, with merges that fail and stores that lose answers: nothing is lost.

Stronger than being equal in the end: each store holds exactly those of all versions that were ever
written of which no other one knows, though records wait in quarantine and tombstones are purged.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from aiopatterns.core import clock
from aiopatterns.core.errors import BackendError
from aiopatterns.data import Manual, Merge, frontier
from aiopatterns.data.memorystore import MemorySyncStore
from aiopatterns.data.record import unpacked
from aiopatterns.data.sync import Synchronizer, SyncReport
from aiopatterns.testing import simulate
from tests.data.syncplaces import Frail

if TYPE_CHECKING:
    from aiopatterns.data import Strategy, SyncStore, Versioned

SEEDS = 3_000
ROUNDS = 5


class Quarrel:
    """Stores that know each other, and a merge that fails as long as there is a quarrel."""

    def __init__(self) -> None:
        self.rng = clock.rng()
        self.stores: list[SyncStore] = [
            MemorySyncStore(f"s{number}") for number in range(self.rng.randint(2, 4))
        ]
        self.keys = self.rng.choice(["a", "abc"])
        self.written: dict[str, list[Versioned]] = {key: [] for key in self.keys}
        self.quarrel = True
        strategies: list[Strategy] = [Manual(), Merge(self.merge)]
        self.strategy = self.rng.choice(strategies)
        self.held = 0

    def merge(self, _base: Any, left: list[int], right: list[int]) -> list[int]:
        if self.quarrel and self.rng.random() < 0.4:
            raise LookupError("not now")
        return sorted({*left, *right})

    def fault_once(self) -> Any:
        """Return what makes two stores fail at one call, before or after its effect."""
        left = self.rng.randint(1, 80)

        def fault() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise BackendError("the answer is lost")

        return fault

    async def step(self) -> None:
        chance = self.rng.random()
        store, key = self.rng.choice(self.stores), self.rng.choice(self.keys)
        made: Versioned | None = None
        if chance < 0.3:
            made = await store.put(key, [self.rng.randrange(10**9)])
        elif chance < 0.42:
            made = await store.delete(key)
        elif chance < 0.55:
            await store.purge()
        else:
            await self.talk()
        if made is not None:
            self.written[key].append(made)

    async def talk(self) -> None:
        fault = self.fault_once()
        left, right = (Frail(each, fault) for each in self.rng.sample(self.stores, 2))
        direction: Any = self.rng.choice(["both", "push", "pull"])
        batch = self.rng.choice([1, 2, 10])
        sync = Synchronizer(left, right, strategy=self.strategy, batch=batch)
        with suppress(BackendError):
            self.held += len((await sync.run(direction)).quarantined)

    async def all_with_all(self) -> list[SyncReport]:
        return [
            await Synchronizer(left, right, strategy=self.strategy).run()
            for left in self.stores
            for right in self.stores
            if left is not right
        ]

    async def check(self, key: str) -> None:
        wanted = frontier(self.written[key])
        for store in self.stores:
            row = (await store.fetch([key])).get(key)
            if row is None:
                assert all(each.deleted for each in wanted)
            else:
                leaves = frontier(unpacked(row).leaves)
                assert {each.stamp for each in leaves} == {each.stamp for each in wanted}


async def quarrel() -> int:
    made = Quarrel()
    await made.all_with_all()
    for _ in range(made.rng.randint(5, 60)):
        await made.step()
    made.quarrel = False
    for _ in range(ROUNDS):
        await made.all_with_all()
    assert all(each == SyncReport() for each in await made.all_with_all())
    for key, versions in made.written.items():
        if versions:
            await made.check(key)
    return made.held


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.untraced
@pytest.mark.promise("data-sync-quarantine")
def test_what_waits_in_quarantine_is_not_lost_whatever_fails():
    held = sum(simulate(quarrel, seed=seed) for seed in range(1, SEEDS + 1))
    assert held > SEEDS // 10  # there was a quarrel
