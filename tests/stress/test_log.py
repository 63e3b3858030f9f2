"""A log under fire: the server is killed while producers append and consumers work off."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.records import GroupTurn
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError
from aiopatterns.testing import FaultProxy

pytestmark = [pytest.mark.stress, pytest.mark.real, pytest.mark.timeout(180)]

ENTRIES = 20_000
KILLS = 3
ALWAYS = {"appendonly": "yes", "appendfsync": "always"}


class Work:
    """Producers that note what was acknowledged to them, consumers that note what they did."""

    def __init__(self, log) -> None:
        self.log = log
        self.appended: dict[str, bytes] = {}
        self.done: dict[str, int] = {}
        self.errors = 0

    async def produce(self, part: int) -> None:
        number = part
        while number < ENTRIES:
            batch = [b"%d" % each for each in range(number, min(number + 40, ENTRIES), 4)]
            token = f"{part}-{number}"
            try:
                ids = await self.log.append_many(batch, token=token)
            except BackendError:
                self.errors += 1
                await sleep(0.05)
                continue
            self.appended.update(zip(ids, batch, strict=True))
            number += 40

    async def consume(self, consumer: str) -> None:
        acks: list[str] = []
        while len(self.appended) < ENTRIES or len(self.done) < len(self.appended):
            try:
                turned = await self.log.turn("g", consumer, GroupTurn(acks=acks, limit=50, idle=2))
            except BackendError:
                self.errors += 1
                await sleep(0.05)
                with suppress(BackendError):
                    held = [each.id for each in await self.log.held("g", consumer)]
                    self._note(set(acks) - set(held))
                    acks = held
                continue
            self._note(set(acks) - set(turned.lost))
            acks = [each.id for each in turned.claimed]
            if not acks:
                await sleep(0.01)

    def _note(self, ids: set[str]) -> None:
        for each in ids:
            self.done[each] = self.done.get(each, 0) + 1


async def run(log, disturb) -> Work:
    work = Work(log)
    await log.create_group("g")
    began = monotonic()
    async with anyio.create_task_group() as tasks:
        for part in range(4):
            tasks.start_soon(work.produce, part)
        for consumer in "abc":
            tasks.start_soon(work.consume, consumer)
        await disturb()
    print(
        f"{len(work.done)} of {len(work.appended)} acknowledged in {monotonic() - began:.1f} s,"
        f" {sum(work.done.values()) - len(work.done)} twice, {work.errors} errors met"
    )
    return work


def check(work: Work, entries) -> None:
    assert {each.id: each.payload for each in entries} == work.appended
    assert sorted(map(int, work.appended.values())) == list(range(ENTRIES))
    assert set(work.done) == set(work.appended)


@pytest.mark.promise("backends-log-conserved")
async def test_a_server_killed_and_restarted_loses_nothing_acknowledged():
    async with (
        RedisServer(private=True, config=ALWAYS) as server,
        open_backend(server.url) as backend,
    ):

        async def disturb() -> None:
            for _ in range(KILLS):
                await sleep(0.5)
                await anyio.to_thread.run_sync(server.kill)
                await sleep(0.3)
                await anyio.to_thread.run_sync(server.restart)

        log = backend.log("x")
        work = await run(log, disturb)
        check(work, await log.read(limit=2 * ENTRIES))
        assert work.errors > 0


@pytest.mark.promise("backends-log-conserved")
async def test_a_storm_on_the_way_loses_nothing():
    async with (
        RedisServer(private=True) as server,
        FaultProxy(server.url) as proxy,
        open_backend(proxy.url) as backend,
    ):

        async def disturb() -> None:
            proxy.storm(
                drop_reply_ratio=0.02,
                drop_request_ratio=0.02,
                duplicate_ratio=0.01,
                refuse_ratio=0.05,
            )

        log = backend.log("x")
        work = await run(log, disturb)
        proxy.calm()
        check(work, await log.read(limit=2 * ENTRIES))
