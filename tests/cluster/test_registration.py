"""A registration: renewals, states, outages, being superseded, leaving; in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from itertools import count, pairwise
from typing import Any

import anyio
import pytest

from aiopatterns.cluster import InstanceState, ServiceInstance, ServiceRegistry
from aiopatterns.cluster.contact import RegistryInterrupted, RegistryResumed
from aiopatterns.cluster.record import read, written
from aiopatterns.cluster.registration import (
    FAREWELL,
    RegistrationRestored,
    RegistrationStatistics,
    RegistrationSuperseded,
)
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError
from aiopatterns.testing import (
    Trial,
    cancel_everywhere,
    capture_events,
    explore,
    simulate,
)
from tests.cluster.weather import Server, way_to

TTL = 15.0
STARTING, READY, DRAINING = InstanceState.STARTING, InstanceState.READY, InstanceState.DRAINING


def who(name: str = "a", **fields: Any) -> ServiceInstance:
    return ServiceInstance("users", "localhost", 80, id=name, **fields)


@asynccontextmanager
async def served(**options: Any):
    """A server, one process's way to it, and its registry."""
    async with Server() as server:
        way = way_to(server)
        async with ServiceRegistry(way, **{"ttl": TTL, "propagation": 0} | options) as registry:
            way.calls.clear()
            yield server, way, registry


async def listed(server: Server) -> dict[str, str]:
    """Return the state of every record, as text."""
    records = {}
    for name, data in (await server.members()).items():
        state = read("users", name, data).state
        records[name] = "left" if state is None else state.value
    return records


def test_a_renewal_is_one_call_every_third_of_the_ttl():
    async def main():
        async with served() as (server, way, registry):
            async with registry.register(who()) as registration:
                assert await listed(server) == {"a": "ready"}
                assert way.calls == ["acquire", "snapshot", "put", "release"]
                way.calls.clear()
                await sleep(100 * TTL / 3)
                assert set(way.calls) == {"put"}
                assert 95 <= len(way.calls) <= 105
                assert registration.statistics() == RegistrationStatistics(
                    registered=True,
                    lost=False,
                    epoch=registration.statistics().epoch,
                    renewals=1 + len(way.calls),
                    failures=0,
                    restored=0,
                    age=registration.statistics().age,
                )
                assert 0 <= registration.statistics().age <= TTL / 3 * 1.1

    explore(main, range(10))


def test_renewals_spread():
    async def main():
        async with served() as (_, way, registry), registry.register(who()):
            times = []
            way.calls.clear()
            for _ in range(50):
                while not way.calls:
                    await sleep(0.01)
                way.calls.clear()
                times.append(monotonic())
            pauses = [late - early for early, late in pairwise(times)]
            assert TTL / 3 * 0.89 < min(pauses) < TTL / 3 * 0.95
            assert TTL / 3 * 1.05 < max(pauses) < TTL / 3 * 1.11

    simulate(main)


def test_a_state_is_told_at_once_and_waited_for():
    async def main():
        async with served() as (server, way, registry):
            async with registry.register(who(), state="starting") as registration:
                assert registration.state is STARTING
                assert await listed(server) == {"a": "starting"}
                await registration.set_state("ready")
                assert registration.state is READY
                assert await listed(server) == {"a": "ready"}
                begun = monotonic()
                way.away = True
                with anyio.move_on_after(3):
                    await registration.set_state("draining")
                assert monotonic() == begun + 3
                assert await listed(server) == {"a": "ready"}
                way.away = False
                await sleep(1.1)  # it is told though nobody waits for it any more
                assert await listed(server) == {"a": "draining"}
                assert registration.state is DRAINING

    explore(main, range(20))


def test_states_asked_for_at_once_end_as_the_last():
    async def main():
        async with served() as (server, way, registry):
            way.delay = 0.05
            async with registry.register(who()) as registration:
                async with anyio.create_task_group() as tasks:
                    for state in ("starting", "ready", "draining", "ready", "starting"):
                        tasks.start_soon(registration.set_state, state)
                        await sleep(0.01)
                assert await listed(server) == {"a": registration.state.value}
                assert registration.state is STARTING

    explore(main, range(50))


def test_an_outage_is_survived_and_told():
    async def main():
        async with served(name="mine") as (server, way, registry):
            async with registry.register(who()) as registration:
                await sleep(7)
                with capture_events() as events:
                    way.away = True
                    await sleep(TTL)
                    assert await listed(server) == {}
                    assert registration.statistics().failures > 5
                    assert not registration.statistics().registered
                    way.away = False
                    await sleep(1.1)
                    assert await listed(server) == {"a": "ready"}
                    statistics = registration.statistics()
                    assert (statistics.registered, statistics.restored) == (True, 1)
                interrupted, resumed, restored = events
                assert interrupted == RegistryInterrupted("mine", "writing", "nobody answers")
                assert isinstance(resumed, RegistryResumed)
                assert isinstance(restored, RegistrationRestored)
                assert (restored.service, restored.id) == ("users", "a")
                assert restored.seconds > TTL

    explore(main, range(50))


def test_an_outage_shorter_than_the_ttl_is_no_lapse():
    async def main():
        async with served() as (_, way, registry):
            async with registry.register(who()) as registration:
                way.away = True
                await sleep(TTL / 3 * 1.1 + 2)
                way.away = False
                await sleep(1.1)
                assert registration.statistics().failures >= 2
                assert registration.statistics().restored == 0

    explore(main, range(20))


def test_any_refusal_of_the_backend_is_survived():
    async def main():
        async with served() as (server, way, registry):
            async with registry.register(who()):
                way.refuses = BackendError("OOM command not allowed")
                await sleep(2 * TTL)
                way.refuses = None
                await sleep(1.1)
                assert await listed(server) == {"a": "ready"}

    simulate(main)


def test_lost_data_come_back_within_a_second():
    async def main():
        async with served() as (server, way, registry):
            async with registry.register(who()), registry.register(who("b")):
                await sleep(1)
                await server.lose_all()
                assert await listed(server) == {}
                await sleep(0.01)
                assert await listed(server) == {"a": "ready", "b": "ready"}
            assert way.entered == 1

    explore(main, range(20))


def test_a_process_that_stood_still_comes_back():
    async def main():
        async with served() as (server, way, registry):
            async with registry.register(who()) as registration:
                way.hangs = True
                await sleep(3 * TTL)
                assert await listed(server) == {}
                way.hangs = False
                with capture_events() as events:
                    await sleep(0.2)
                assert await listed(server) == {"a": "ready"}
                assert isinstance(events[0], RegistrationRestored)
                assert not registration.lost

    simulate(main)


@pytest.mark.promise("cluster-fenced")
def test_a_new_process_takes_the_place_of_the_old_one():
    async def main():
        async with Server() as server:
            ways = way_to(server), way_to(server)
            async with (
                ServiceRegistry(ways[0], ttl=TTL, propagation=0) as old,
                ServiceRegistry(ways[1], ttl=TTL, propagation=0) as new,
                old.register(who(version="1")) as before,
            ):
                async with new.register(who(version="2")) as after:
                    await check_superseded(server, before, after)
                    ways[0].calls.clear()
                with pytest.raises(ClosedError, match="a newer process has taken its id"):
                    await before.set_state("ready")
                assert await listed(server) == {"a": "left"}
                await sleep(2 * TTL)
            assert ways[0].calls == [], "who is lost asks for nothing more, not even to leave"

    async def check_superseded(server, before, after):
        with capture_events() as events:
            with anyio.fail_after(TTL / 3 * 1.1):
                await before.wait_lost()
            assert events == [RegistrationSuperseded("users", "a")]
        assert before.lost
        assert not before.statistics().registered
        assert not after.lost
        await sleep(2 * TTL)
        (data,) = (await server.members()).values()
        record = read("users", "a", data)
        assert record.instance.version == "2"
        assert record.epoch == after.statistics().epoch > before.statistics().epoch

    explore(main, range(50))


@pytest.mark.promise("cluster-fenced")
def test_an_old_process_that_leaves_takes_nothing_from_the_new_one():
    async def main():
        async with Server() as server:
            async with ServiceRegistry(way_to(server), ttl=TTL, propagation=1) as new:
                async with ServiceRegistry(way_to(server), ttl=TTL, propagation=1) as old:
                    async with old.register(who(version="1")) as before:
                        stack = new.register(who(version="2"))
                        after = await stack.__aenter__()
                    # The old one has drained and left, and learned on the way that it is lost.
                    assert before.lost
                assert await listed(server) == {"a": "ready"}
                await sleep(2 * TTL)
                assert not after.lost
                await stack.__aexit__(None, None, None)

    explore(main, range(50))


@pytest.mark.promise("cluster-fenced")
def test_of_many_that_start_with_one_id_exactly_one_stays():
    async def main():
        async with Server() as server:
            kept = []

            async def process() -> None:
                way = way_to(server, delay=0.01)
                async with ServiceRegistry(way, ttl=TTL, propagation=0) as registry:
                    async with registry.register(who()) as registration:
                        await sleep(TTL)
                        kept.append((registration.lost, registration.statistics().epoch))
                        await sleep(1)

            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(process)
            assert len({epoch for _, epoch in kept}) == 5
            (winner,) = [epoch for lost, epoch in kept if not lost]
            assert winner == max(epoch for _, epoch in kept)

    explore(main, range(50))


@pytest.mark.promise("cluster-fenced")
def test_the_epoch_is_above_that_of_a_living_record_though_the_clock_went_back():
    async def main():
        async with served() as (server, _, registry):
            future = 2**52
            await server.memory.directory("svc:users").put(
                "a", written(who(version="0"), "ready", epoch=future), ttl=TTL, fence=future
            )
            async with registry.register(who()) as registration:
                assert registration.statistics().epoch == future + 1
                assert not registration.lost
            await server.memory.directory("svc:users").put("b", b"of tomorrow", ttl=TTL)
            async with registry.register(who("b")):
                assert await listed(server) == {"a": "left", "b": "ready"}

    simulate(main)


def test_superseded_between_claim_and_put():
    async def main():
        async with served() as (server, way, registry):
            real = way.directory

            def raced(name):
                directory = real(name)
                put = directory.put

                async def overtaken(member, data, **options):
                    other = written(who(version="2"), "ready", epoch=2**53)
                    await server.memory.directory(name).put(member, other, ttl=TTL, fence=2**53)
                    return await put(member, data, **options)

                directory.put = overtaken
                return directory

            way.directory = raced
            with capture_events() as events:
                async with registry.register(who()) as registration:
                    assert registration.lost
                    await registration.wait_lost()
            assert events == [RegistrationSuperseded("users", "a")]

    simulate(main)


def test_leaving_drains_first():
    async def main():
        async with served(propagation=2) as (server, _, registry):
            async with registry.register(who()):
                begun = monotonic()
                asyncio.get_running_loop().call_later(1.9, lambda: seen.append(monotonic()))
                seen: list[float] = []
                watching = asyncio.create_task(states(server))
            assert monotonic() == begun + 2
            assert await watching == {"draining"}
            assert await listed(server) == {"a": "left"}
            await sleep(TTL)
            assert await listed(server) == {}

    async def states(server):
        found = set()
        for _ in range(10):
            await sleep(0.1)
            found |= {*(await listed(server)).values()}
        return found

    simulate(main)


def test_leaving_by_an_error_leaves_at_once():
    async def main():
        async with served(propagation=2) as (server, _, registry):
            begun = monotonic()
            with pytest.raises(KeyError):
                async with registry.register(who()):
                    raise KeyError
            assert monotonic() == begun
            assert await listed(server) == {"a": "left"}

    explore(main, range(20))


def test_leaving_waits_for_a_backend_that_is_away_only_so_long():
    async def main():
        async with served(propagation=2) as (_, way, registry):
            async with registry.register(who()):
                way.hangs = True
                begun = monotonic()
            assert monotonic() == begun + FAREWELL + 2 + FAREWELL
            way.hangs = False
            async with registry.register(who()):
                way.away = True
                begun = monotonic()
            assert monotonic() == begun + FAREWELL + 2
            way.away = False

    simulate(main)


def test_leaving_the_registry_takes_its_registrations_along():
    async def main():
        async with Server() as server:
            registry = ServiceRegistry(way_to(server), ttl=TTL)
            async with registry:
                registration = registry.register(who())
                await registration.__aenter__()
                waiting = asyncio.create_task(registration.wait_lost())
                await sleep(1)
            assert await listed(server) == {"a": "left"}
            with pytest.raises(ClosedError, match="its block is over"):
                await waiting
            with pytest.raises(ClosedError, match="'a' is not registered in 'users' any more"):
                await registration.set_state("ready")
            await registration.__aexit__(None, None, None)  # nothing is left to do
            assert not registration.statistics().registered

    explore(main, range(20))


def test_an_instance_registers_again_under_its_id():
    async def main():
        async with served() as (server, _, registry):
            epochs = []
            for _ in range(3):
                async with registry.register(who()) as registration:
                    epochs.append(registration.statistics().epoch)
                    assert await listed(server) == {"a": "ready"}
            assert epochs == sorted(set(epochs))

    explore(main, range(20))


def test_bad_input_and_wrong_order():
    async def main():
        async with served() as (_, _, registry):
            wrong: Any = registry.register
            with pytest.raises(ValueError, match="state must be one of"):
                wrong(who(), state="gone")
            with pytest.raises(TypeError, match="instance must be a ServiceInstance"):
                wrong("users")
            async with registry.register(who()) as registration:
                with pytest.raises(ValueError, match="'a' of service 'users' is registered by"):
                    await registry.register(who()).__aenter__()
                async with registry.register(ServiceInstance("orders", "h", 1, id="a")):
                    pass
                with pytest.raises(RuntimeError, match="was entered before"):
                    await registration.__aenter__()
                wrong = registration.set_state
                with pytest.raises(ValueError, match="state must be one of"):
                    await wrong("left")
                assert registration.state is READY
            with pytest.raises(RuntimeError, match="was entered before"):
                await registration.__aenter__()
        with pytest.raises(ClosedError, match="is not open"):
            await registry.register(who()).__aenter__()

    simulate(main)


def test_a_backend_that_is_away_at_the_beginning_is_an_error():
    async def main():
        async with served() as (_, way, registry):
            way.away = True
            with pytest.raises(BackendUnavailableError):
                async with registry.register(who()):
                    raise AssertionError
            way.away = False
            async with registry.register(who()):  # the id is free again
                pass

    simulate(main)


def test_the_registry_closes_while_a_registration_begins():
    async def main():
        async with Server() as server:
            way = way_to(server)
            registry = ServiceRegistry(way, ttl=TTL)
            async with registry:
                way.hangs = True
                task = asyncio.create_task(enter(registry))
                await sleep(0.1)
                asyncio.get_running_loop().call_later(0.01, setattr, way, "hangs", False)
            with pytest.raises(ClosedError, match="closed while 'a' registered"):
                await task

    async def enter(registry):
        async with registry.register(who()):
            raise AssertionError

    explore(main, range(20))


@pytest.mark.promise("cluster-bad-input")
def test_before_its_block_it_has_no_state_to_tell():
    async def main():
        async with served() as (server, _, registry):
            registration = registry.register(who(), state="starting")
            for ask in (partial(registration.set_state, "ready"), registration.wait_lost):
                with pytest.raises(ClosedError, match="'a' is not registered yet; use it inside"):
                    await ask()
            async with registration:
                assert await listed(server) == {"a": "starting"}
            with pytest.raises(ClosedError, match="its block is over"):
                await registration.set_state("ready")
            assert registration.state is STARTING
            assert not registration.lost

    simulate(main)


def test_leaving_ends_though_a_host_cancels_its_task_in_its_goodbye():
    async def main():
        async with served() as (_, way, registry):
            before = asyncio.all_tasks()
            async with registry.register(who()):
                (task,) = asyncio.all_tasks() - before
                way.hangs = True
                asyncio.get_running_loop().call_later(0.1, task.cancel)
            way.hangs = False

    simulate(main)


def test_leaving_ends_though_its_goodbye_meets_a_defect_of_the_backend():
    async def main():
        with pytest.raises(RuntimeError, match="a defect"):
            async with served() as (_, way, registry), registry.register(who()):
                way.refuses = RuntimeError("a defect")

    simulate(main)


@pytest.mark.promise("cluster-cancel-everywhere")
def test_cancelled_anywhere_it_leaves_nothing_behind():
    def scenario() -> Trial:
        server = Server()
        way = way_to(server, delay=0.01)
        registry = ServiceRegistry(way, ttl=TTL, propagation=0.5)
        others = ServiceRegistry(way_to(server), ttl=TTL, propagation=0)

        async def work() -> None:
            async with server, others, others.register(who("b")), registry:
                async with registry.register(who(), state="starting") as registration:
                    await registration.set_state("ready")
                    await registry.instances("users")
                    await sleep(TTL)

        def check() -> None:
            assert way.entered == 0
            assert not registry.statistics().registrations
            assert not way.gaps

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=15)


@pytest.mark.promise("cluster-cancel-everywhere")
def test_cancelled_anywhere_its_record_is_left_or_expires():
    def scenario() -> Trial:
        server = Server()

        async def work() -> None:
            way = way_to(server, delay=0.01)
            async with ServiceRegistry(way, ttl=TTL, propagation=0.5) as registry:
                async with registry.register(who()) as registration:
                    await registration.set_state("draining")

        async def opened() -> None:
            async with server:
                try:
                    await work()
                finally:
                    with anyio.CancelScope(shield=True):
                        assert set((await listed(server)).values()) <= {"left"}

        return Trial(opened())

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout"), minimum=8)


def test_every_call_may_fail():
    for at in range(40):
        simulate(partial(fail_one, at))


async def fail_one(at: int) -> None:
    """Let the call of that number fail, in between the numbers of before and after it happened."""
    async with Server() as server:
        way = way_to(server)
        real, numbers = way.way, count()

        async def counted() -> None:
            if next(numbers) == at:
                raise BackendUnavailableError("nobody answers")
            await real()

        way.way = counted
        try:
            async with ServiceRegistry(way, ttl=TTL, propagation=0.5) as registry:
                async with registry.register(who()) as registration:
                    await registration.set_state("draining")
                    await sleep(TTL)
                    assert await listed(server) == {"a": "draining"}
                    assert not registration.lost
        except BackendUnavailableError:
            assert at < 10, "only the beginning may fail"
        assert set((await listed(server)).values()) <= {"left", "draining"}
        await sleep(TTL)
        assert await listed(server) == {}


def test_a_block_that_outlives_its_registry_takes_nothing_of_the_next():
    async def main():
        async with Server() as server:
            registry = ServiceRegistry(way_to(server), ttl=TTL, propagation=0)
            async with registry:
                old = registry.register(who())
                await old.__aenter__()
            async with registry, registry.register(who()):
                await old.__aexit__(None, None, None)
                assert registry.statistics().registrations == 1
                assert await listed(server) == {"a": "ready"}

    simulate(main)


def test_a_faulty_network_over_many_seeds():
    async def main():
        async with Server() as server:
            way = way_to(server, delay=0.05, faults=0.2)
            async with ServiceRegistry(way_to(server), ttl=TTL) as reader:
                while True:
                    try:
                        async with ServiceRegistry(way, ttl=TTL, propagation=0.5) as registry:
                            async with registry.register(who()) as registration:
                                for state in ("draining", "ready"):
                                    await sleep(TTL / 2)
                                    await registration.set_state(state)
                                    assert await listed(server) == {"a": state}
                                    assert not registration.lost
                                way.faults = 0
                    except BackendUnavailableError:
                        continue
                    break
                assert (await reader.instances("users")).instances == ()
                assert await listed(server) == {"a": "left"}

    explore(main, range(60))
