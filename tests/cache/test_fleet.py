"""Turns: one loads, the others are told; whoever dies is followed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

from anyio import create_task_group, move_on_after

from aiopatterns.backends.memory import MemoryBackend
from aiopatterns.cache.fleet import LEASE, Fleet
from aiopatterns.cache.gate import Gate
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.testing import Trial, cancel_everywhere, explore, simulate
from tests.cache.shaky import Shaky


async def never():
    return False


@asynccontextmanager
async def fleets(count=2, *, keepers=True, **network):
    """Processes with a keeper each."""
    server = MemoryBackend()
    made = []
    for _ in range(count):
        gate = Gate("n")
        gate.back()
        backend: Any = Shaky(server, **network)
        made.append(Fleet(backend, gate))

    async def keep(fleet):
        while True:
            with move_on_after(1):
                await fleet.due()
            await fleet.keep()

    async with server, create_task_group() as tasks:
        for fleet in made if keepers else ():
            tasks.start_soon(keep, fleet)
        yield made
        tasks.cancel_scope.cancel()


async def test_one_has_the_turn():
    async with fleets() as (here, there):
        token = await here.take("k")
        assert token is not None
        assert await there.take("k") is None
        assert await here.take("k") is None
        assert await there.take("l") is not None
        here.give_back(token)
        here.give_back(token)
        await sleep(0.01)
        assert await there.take("k") is not None


def test_who_waits_is_told_at_once():
    async def scenario():
        async with fleets(delay=0.001) as (here, there):
            token = await here.take("k")
            got = []

            async def wait():
                got.append((await there.wait("k", never), monotonic()))

            async with create_task_group() as tasks:
                tasks.start_soon(wait)
                await sleep(2)
                here.give_back(token)
                given = monotonic()
            [(taken, at)] = got
            assert taken is not None
            assert at - given < 0.02
            assert len(here._backend.calls) < 10
            assert len(there._backend.calls) < 30

    simulate(scenario)


def test_there_may_be_no_need_any_more():
    async def scenario():
        async with fleets() as (here, there):
            await here.take("k")
            end = monotonic() + 1

            async def look():
                return monotonic() > end

            assert await there.wait("k", look) is None
            assert end < monotonic() < end + 0.4

    simulate(scenario)


def test_a_turn_is_renewed_as_long_as_it_is_held():
    async def scenario():
        async with fleets() as (here, there):
            token = await here.take("k")
            await sleep(10 * LEASE)
            assert await there.take("k") is None
            here.give_back(token)
            await sleep(0.01)
            assert await there.take("k") is not None

    simulate(scenario)


def test_a_dead_process_is_followed():
    async def scenario():
        async with fleets(keepers=False) as (here, there):
            await here.take("k")
            began = monotonic()
            assert await there.wait("k", never) is not None
            assert LEASE - 0.01 < monotonic() - began < LEASE + 0.4

    simulate(scenario)


async def test_without_a_server_everybody_has_every_turn():
    async with fleets() as (here, there):
        here._gate.lost("gone")
        tokens = [await here.take("k"), await here.take("k"), await here.wait("k", never)]
        assert None not in tokens
        for token in tokens:
            here.give_back(token)
        there._gate.back()
        assert await there.take("k") is not None


def test_a_server_that_is_lost_while_somebody_waits():
    async def scenario():
        async with fleets() as (here, there):
            await here.take("k")
            async with create_task_group() as tasks:
                tasks.start_soon(there.wait, "k", never)
                await sleep(1)
                there._gate.lost("gone")

    simulate(scenario)


async def test_all_turns_are_given_back_at_the_end():
    async with fleets(keepers=False) as (here, there):
        for name in "abc":
            await here.take(name)
        here.give_all_back()
        await here.keep()
        await here.keep()
        for name in "abc":
            assert await there.take(name) is not None


def test_one_at_a_time_under_many_seeds():
    async def scenario():
        async with fleets(3, delay=0.01) as all_of_them:
            inside, done = [], []

            async def load(fleet):
                token = await fleet.take("k") or await fleet.wait("k", never)
                inside.append(fleet)
                assert len(inside) == 1
                await sleep(0.05)
                inside.remove(fleet)
                fleet.give_back(token)
                done.append(fleet)

            async with create_task_group() as tasks:
                for fleet in all_of_them:
                    tasks.start_soon(load, fleet)
                    tasks.start_soon(load, fleet)
            assert len(done) == 6

    explore(scenario, range(100))


def test_a_cancelled_wait_leaves_no_subscription():
    def scenario() -> Trial:
        seen = []

        async def work():
            async with fleets(delay=0.01) as (here, there):
                seen.append(there._backend.server)
                token = await here.take("k")
                with move_on_after(0.2):
                    await there.wait("k", never)
                here.give_back(token)

        def check():
            for server in seen:
                assert not server.pubsub._channels

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=5)


def test_a_turn_whose_taker_was_cancelled_holds_up_nobody():
    """Else a caller who is in a hurry shuts a cold key for as long as a lease lasts."""

    async def scenario():
        async with fleets() as (here, there):

            class Late:
                async def change_many(self, changes):
                    done = await kv.change_many(changes)
                    await sleep(0.1)
                    return done

            kv, here._backend.kv = here._backend.kv, Late()
            with move_on_after(0.05) as scope:
                await here.take("k")
            assert scope.cancelled_caught
            began = monotonic()
            assert await there.wait("k", never) is not None
            assert monotonic() - began < LEASE / 4

    simulate(scenario)
