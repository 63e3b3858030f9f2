"""The keeper: opens, listens, asks again, tells what is owed, and leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import create_task_group

from aiopatterns.backends.memory import MemoryBackend
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, simulate
from tests.cache.shaky import Deaf, Shaky, tier


class Closed(Shaky):
    """A server that does not let anybody in, by one error or another, so many times."""

    def __init__(self, *errors, **network):
        super().__init__(MemoryBackend(), **network)
        self.errors = list(errors)
        self.opened = 0

    async def __aenter__(self):
        await self.way()
        if self.errors:
            raise self.errors.pop(0)
        self.opened += 1
        return await super().__aenter__()


def test_a_server_that_is_not_there_yet():
    async def scenario():
        backend = Closed(BackendUnavailableError("gone"), BackendUnavailableError("gone"))
        far = tier(backend)
        with capture_events() as events:
            async with create_task_group() as tasks:
                await tasks.start(far.run)
                assert monotonic() <= 1.0
                assert not far.up
                await sleep(5)
                assert far.up
                tasks.cancel_scope.cancel()
        assert [each.name.rpartition(".")[2] for each in events] == ["tier_lost", "tier_back"]
        assert not far.up

    simulate(scenario)


async def test_a_server_that_refuses_us_is_an_error():
    far = tier(Closed(BackendError("WRONGPASS")))
    async with create_task_group() as tasks:
        with pytest.raises(BackendError, match="WRONGPASS"):
            await tasks.start(far.run)


def test_a_server_that_refuses_us_later_is_none():
    """The subscription ends, and the backend does not let us in again at first."""

    async def scenario():
        backend = Closed()
        far = tier(backend)
        async with create_task_group() as tasks:
            await tasks.start(far.run)
            backend.errors.append(BackendError("LOADING"))
            [reader] = backend.server.pubsub._channels["cache:n"]
            reader.close()
            await sleep(5)
            assert far.up
            assert backend.opened == 2
            tasks.cancel_scope.cancel()

    simulate(scenario)


def test_the_clock_is_set_again_every_minute():
    async def scenario():
        backend: Any = Shaky(MemoryBackend())
        far, asked = tier(backend), []
        time = backend.time

        async def counted():
            asked.append(monotonic())
            return await time()

        backend.time = counted
        async with create_task_group() as tasks:
            await tasks.start(far.run)
            await sleep(200)
            tasks.cancel_scope.cancel()
        assert 3 <= len(asked) <= 5

    simulate(scenario)


async def gone():
    raise BackendUnavailableError("gone")


async def test_a_server_that_is_asked_again_stays_as_it_was():
    backend: Any = Shaky(MemoryBackend())
    far = tier(backend)
    async with create_task_group() as tasks:
        await tasks.start(far.run)
        await far._keeper._ask()
        assert far.up
        backend.time = gone
        await far._keeper._ask()
        assert not far.up
        tasks.cancel_scope.cancel()


def test_a_quiet_cache_asks_for_nothing():
    async def scenario():
        backend = Shaky(MemoryBackend())
        far = tier(backend)
        async with create_task_group() as tasks:
            await tasks.start(far.run)
            await sleep(50)
            assert backend.calls == []
            await far.invalidate(["k"])
            await sleep(50)
            assert backend.calls == ["change_many", "publish"]
            tasks.cancel_scope.cancel()

    simulate(scenario)


def test_a_server_that_is_lost_while_its_time_is_asked():
    async def scenario():
        backend = Shaky(MemoryBackend())
        far = tier(backend)
        async with create_task_group() as tasks:
            await tasks.start(far.run)
            backend.hangs = True
            await sleep(70)
            assert not far.up
            backend.hangs = False
            await sleep(2)
            assert far.up
            tasks.cancel_scope.cancel()

    simulate(scenario)


def test_a_gap_clears_what_is_near():
    async def scenario():
        backend, local = Shaky(MemoryBackend()), Deaf()
        far = tier(backend, local)
        async with create_task_group() as tasks:
            await tasks.start(far.run)
            assert local.told == ["all"]
            [reader] = backend.server.pubsub._channels["cache:n"]
            reader.report_gap()
            assert local.told == ["all", "all"]
            tasks.cancel_scope.cancel()

    simulate(scenario)


def test_it_leaves_by_telling_what_it_owes():
    async def scenario():
        server = MemoryBackend()
        backend = Shaky(server, delay=0.01)
        far = tier(backend)
        async with server, server.pubsub.subscribe("cache:n") as notices:
            async with create_task_group() as tasks:
                await tasks.start(far.run)
                far._gate.lost("gone")
                await far.invalidate(["k"])
                far._gate.back()
                turn = await far.lead("l", (await far.read(["l"]))["l"])
                assert not turn.answered
                tasks.cancel_scope.cancel()
            assert notices._inbox
            assert not far._outbox.owed
            assert await server.kv.get("cache:n:l:sl:") is None

    simulate(scenario)


def test_a_cancelled_opening_leaves_nothing():
    def scenario() -> Trial:
        server = MemoryBackend()
        far = tier(Shaky(server, delay=0.01))

        async def work():
            async with create_task_group() as tasks:
                await tasks.start(far.run)
                await sleep(0.1)
                tasks.cancel_scope.cancel()

        def check():
            assert not server._home.is_open
            assert not server.pubsub._channels

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=2)
