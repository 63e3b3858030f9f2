"""Shared circuits: votes and quorum, who follows and for how long, outages, leaving."""

from __future__ import annotations

import math
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import BackendUnavailableError, CircuitOpenError
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.circuitstate import CircuitState
from aiopatterns.resilience.sharing import (
    GRACE,
    INTERVAL,
    RETRY,
    TTL,
    CircuitOpenedByFleet,
    CircuitSharingInterrupted,
    CircuitSharingResumed,
    SharedCircuits,
    SharedCircuitsStatistics,
    Vote,
    share_circuits,
)
from aiopatterns.resilience.trip import Consecutive, Trip
from aiopatterns.testing import Trial, cancel_everywhere, capture_events, explore, simulate

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
BREAK = 30.0


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


def breaker(name: str = "db", open_for: float = BREAK) -> CircuitBreaker:
    return CircuitBreaker(name, trip=Trip(Consecutive(1)), open_for=open_for)


def fail(circuit: CircuitBreaker) -> None:
    circuit.try_acquire().record("failure")


def succeed(circuit: CircuitBreaker) -> None:
    circuit.try_acquire().record("success")


@asynccontextmanager
async def fleet(size: int, **options: Any):
    """So many processes, each with a circuit and a sharing of its own, that know each other."""
    async with open_backend("memory://") as backend, AsyncExitStack() as stack:
        circuits = [breaker() for _ in range(size)]
        shared = [
            await stack.enter_async_context(share_circuits(backend, [each], **options))
            for each in circuits
        ]
        await sleep(0.001)
        assert all(each.statistics().members == {"db": size} for each in shared)
        yield circuits, shared


async def settle() -> None:
    """Let live messages arrive."""
    await sleep(0.001)


def states(circuits) -> list[CircuitState]:
    return [each.state for each in circuits]


def test_a_quorum_opens_for_all():
    async def main():
        async with fleet(4) as (circuits, shared):
            fail(circuits[0])
            await settle()
            assert states(circuits) == [OPEN, CLOSED, CLOSED, CLOSED]
            assert shared[2].statistics() == SharedCircuitsStatistics(
                connected=True, members={"db": 4}, votes={"db": 1}, followed=frozenset()
            )
            with capture_events() as events:
                fail(circuits[1])
                await settle()
            assert states(circuits) == [OPEN] * 4
            assert shared[2].statistics().followed == {"db"}
            assert shared[0].statistics().followed == frozenset()
            assert [each for each in events if isinstance(each, CircuitOpenedByFleet)] == [
                CircuitOpenedByFleet("db", wrong(pytest.approx(BREAK + GRACE, abs=0.1)), 2, 4)
            ] * 2
            with pytest.raises(CircuitOpenError) as e:
                circuits[3].try_acquire()
            assert e.value.retry_after == pytest.approx(BREAK + GRACE, abs=0.1)

    explore(main, range(50))


@pytest.mark.parametrize(("quorum", "opened"), [(0.01, 1), (0.25, 1), (0.5, 2), (0.51, 3), (1, 4)])
def test_the_quorum_is_a_share_of_the_members(quorum, opened):
    async def main():
        async with fleet(4, quorum=quorum) as (circuits, _):
            for at in range(opened):
                assert circuits[3].state is CLOSED or at == 3
                fail(circuits[at])
                await settle()
            assert states(circuits) == [OPEN] * 4

    simulate(main)


def test_what_the_fleet_opened_is_no_vote():
    async def main():
        async with fleet(4) as (circuits, shared):
            fail(circuits[0])
            fail(circuits[1])
            await settle()
            await sleep(INTERVAL * 3)
            assert shared[3].statistics().votes == {"db": 2}

    simulate(main)


@pytest.mark.promise("resilience-shared-circuits")
def test_when_the_voters_probes_succeed_all_close():
    async def main():
        async with fleet(4) as (circuits, shared):
            fail(circuits[0])
            fail(circuits[1])
            await settle()
            await sleep(BREAK)
            assert states(circuits) == [HALF_OPEN, HALF_OPEN, OPEN, OPEN]
            succeed(circuits[0])
            await settle()
            assert states(circuits) == [CLOSED, HALF_OPEN, CLOSED, CLOSED]
            assert shared[3].statistics().followed == frozenset()

    simulate(main)


def test_when_the_voters_probes_fail_all_stay_open():
    async def main():
        async with fleet(4) as (circuits, _):
            fail(circuits[0])
            fail(circuits[1])
            await settle()
            await sleep(BREAK)
            fail(circuits[0])
            await settle()
            await sleep(BREAK - 1)
            assert states(circuits) == [OPEN, HALF_OPEN, OPEN, OPEN]

    simulate(main)


def test_without_news_who_followed_finds_out_by_itself():
    async def main():
        async with fleet(4) as (circuits, shared):
            fail(circuits[0])
            fail(circuits[1])
            await settle()
            await sleep(BREAK + GRACE)
            assert states(circuits) == [HALF_OPEN] * 4
            succeed(circuits[2])
            await sleep(5)
            assert states(circuits)[2:] == [CLOSED, HALF_OPEN]
            fail(circuits[3])  # its own call: from now on a vote
            await settle()
            assert circuits[3].state is OPEN
            assert shared[0].statistics().votes == {"db": 3}
            assert circuits[2].state is OPEN

    simulate(main)


def test_who_joins_later_follows_for_the_rest():
    async def main():
        async with open_backend("memory://") as backend:
            first, late = breaker(), breaker()
            async with share_circuits(backend, [first]):
                fail(first)
                await sleep(10)
                async with share_circuits(backend, [late]):
                    await settle()
                    assert late.state is OPEN
                    assert late.retry_after == pytest.approx(BREAK + GRACE - 10, abs=0.1)

    simulate(main)


def test_a_circuit_that_is_open_already_votes_from_the_start():
    async def main():
        async with open_backend("memory://") as backend:
            first, other = breaker(), breaker()
            fail(first)
            async with share_circuits(backend, [other]), share_circuits(backend, [first]):
                await settle()
                assert other.state is OPEN

    simulate(main)


def test_a_process_that_dies_is_no_vote_any_more():
    async def main():
        async with fleet(2) as (circuits, shared):
            # What a process leaves that is gone: nothing renews it, nobody takes it back.
            directory = shared[0]._backend.directory("circuit:db")
            await directory.put("dead", MSGPACK.encode(Vote(until=4e9)), ttl=TTL)
            await sleep(TTL - 1)
            assert shared[1].statistics().members == {"db": 3}
            assert shared[1].statistics().votes == {"db": 1}
            await sleep(1 + INTERVAL + 0.1)
            assert shared[1].statistics().members == {"db": 2}
            assert shared[1].statistics().votes == {"db": 0}
            assert states(circuits) == [CLOSED, CLOSED]

    simulate(main)


def test_leaving_takes_the_vote_back():
    async def main():
        async with open_backend("memory://") as backend:
            first, other = breaker(), breaker()
            async with share_circuits(backend, [other]) as shared:
                async with share_circuits(backend, [first]):
                    fail(first)
                    await settle()
                    assert other.state is OPEN
                await settle()
                assert other.state is CLOSED
                assert shared.statistics().members == {"db": 1}
            assert first.state is OPEN  # its own affair

    simulate(main)


def test_circuits_of_other_names_are_apart():
    async def main():
        async with open_backend("memory://") as backend:
            one, two = [breaker("db"), breaker("api")], [breaker("db"), breaker("api")]
            async with share_circuits(backend, one), share_circuits(backend, two):
                fail(one[1])
                await settle()
                assert states(two) == [CLOSED, OPEN]

    simulate(main)


def test_a_forced_circuit_takes_no_part():
    async def main():
        async with fleet(3) as (circuits, shared):
            circuits[0].force("isolated")
            circuits[1].force("disabled")
            await settle()
            assert shared[2].statistics().votes == {"db": 0}
            fail(circuits[2])
            circuits[0].force(None)
            await settle()
            assert states(circuits) == [CLOSED, CLOSED, OPEN]

    simulate(main)


def test_forcing_ends_a_vote_and_a_following():
    async def main():
        async with fleet(2) as (circuits, shared):
            fail(circuits[0])
            await settle()
            assert states(circuits) == [OPEN, OPEN]
            circuits[1].force("disabled")
            circuits[0].force("observe")
            await settle()
            assert shared[1].statistics().votes == {"db": 0}
            assert shared[1].statistics().followed == frozenset()
            assert states(circuits) == [CLOSED, CLOSED]
            circuits[0].force(None)
            fail(circuits[0])
            await settle()
            assert circuits[1].forced == "disabled"
            assert circuits[1].state is CLOSED

    simulate(main)


def test_an_operator_who_opens_votes():
    async def main():
        async with fleet(2) as (circuits, _):
            circuits[0].open(7.0)
            await settle()
            assert circuits[1].retry_after == pytest.approx(7.0 + GRACE, abs=0.1)
            circuits[0].reset()
            await settle()
            assert states(circuits) == [CLOSED, CLOSED]

    simulate(main)


def test_votes_of_a_newer_release_are_none():
    async def main():
        async with fleet(2) as (circuits, shared):
            async with open_backend("memory://"):
                backend = shared[0]._backend
                await backend.directory("circuit:db").put("new", b"\xc1", ttl=60)
                await settle()
            assert shared[0].statistics().members == {"db": 3}
            assert shared[0].statistics().votes == {"db": 0}
            assert states(circuits) == [CLOSED, CLOSED]

    simulate(main)


class Weather:
    """A backend that may be away."""

    def __init__(self, backend):
        self.backend = backend
        self.kv = backend.kv
        self.away = False

    def check(self):
        if self.away:
            raise BackendUnavailableError("nobody answers")

    async def __aenter__(self):
        self.check()
        return await self.backend.__aenter__()

    async def __aexit__(self, *error):
        await self.backend.__aexit__(*error)

    async def time(self):
        self.check()
        return await self.backend.time()

    def directory(self, name):
        return Place(self, self.backend.directory(name))


class Place:
    def __init__(self, weather, inner):
        self.weather = weather
        self.watch = inner.watch
        self.inner = inner

    async def put(self, member, data, *, ttl, fence=0):
        self.weather.check()
        return await self.inner.put(member, data, ttl=ttl, fence=fence)

    async def remove(self, member, *, fence=None):
        self.weather.check()
        return await self.inner.remove(member, fence=fence)


@pytest.mark.promise("resilience-shared-circuits")
def test_an_outage_is_no_error_and_sharing_goes_on_after_it():
    async def main():
        async with open_backend("memory://") as backend:
            weather = Weather(backend)
            weather.away = True
            mine, other = breaker(), breaker()
            with capture_events() as events:
                async with (
                    share_circuits(wrong(weather), [mine]) as shared,
                    share_circuits(backend, [other]),
                ):
                    await sleep(5)
                    assert not shared.statistics().connected
                    fail(mine)
                    await sleep(0.1)
                    assert states([mine, other]) == [OPEN, CLOSED]
                    weather.away = False
                    await sleep(RETRY)
                    assert shared.statistics().connected
                    assert states([mine, other]) == [OPEN, OPEN]
                    weather.away = True
                    await sleep(TTL)
                    assert not shared.statistics().connected
                    weather.away = False
                    await sleep(RETRY)
                    weather.away = True  # also while it is left
            told = [each for each in events if "sharing" in each.name]
            assert (
                told
                == [
                    CircuitSharingInterrupted("nobody answers"),
                    CircuitSharingResumed(),
                ]
                * 2
            )

    simulate(main)


async def test_it_can_be_entered_again():
    async with open_backend("memory://") as backend:
        mine, other = breaker(), breaker()
        again = share_circuits(backend, [mine])
        async with share_circuits(backend, [other]) as shared:
            for members in (2, 2):
                async with again:
                    with anyio.fail_after(5):
                        while shared.statistics().members != {"db": members}:
                            await sleep(0.01)
        assert again.statistics().connected is False


async def test_it_opens_its_backend():
    mine = breaker()
    shared = share_circuits("memory://", [mine])
    async with shared:
        with anyio.fail_after(5):
            while not shared.statistics().connected:
                await sleep(0.01)
        fail(mine)
        assert mine.state is OPEN


async def test_the_body_s_own_error_leaves_bare():
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as e:
        async with share_circuits("memory://", [breaker()]):
            raise error
    assert e.value is error


def test_a_vote_that_changes_while_it_is_told():
    """The circuit closes between the server's time and the telling of it."""

    async def main():
        async with open_backend("memory://") as backend:
            mine = breaker()

            class Slow(Weather):
                async def time(self):
                    await sleep(1)
                    return await self.backend.time()

            async with share_circuits(wrong(Slow(backend)), [mine]) as shared:
                fail(mine)
                await sleep(0.5)
                mine.reset()
                await sleep(1)
                assert shared.statistics().votes == {"db": 0}
                await sleep(5)
                assert mine.state is CLOSED

    simulate(main)


@pytest.mark.promise("resilience-bad-input")
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"quorum": 0}, ValueError, "quorum must be"),
        ({"quorum": 1.1}, ValueError, "quorum must be above 0 and at most 1"),
        ({"quorum": math.nan}, ValueError, "quorum must be"),
        ({"breakers": []}, ValueError, "breakers must hold at least one"),
        ({"breakers": ["db"]}, TypeError, "breakers must be CircuitBreakers"),
        ({"breakers": [breaker(), breaker()]}, ValueError, "two are 'db'"),
        ({"backend": 7}, TypeError, "backend must be"),
    ],
)
def test_bad_input(arguments, error, text):
    good: dict[str, Any] = {"backend": "memory://", "breakers": [breaker()]}
    with pytest.raises(error, match=text):
        SharedCircuits(**{**good, **arguments})


@pytest.mark.promise("resilience-cancel-everywhere")
def test_cancelled_anywhere_it_leaves_nothing():
    def scenario() -> Trial:
        backend = open_backend("memory://")
        mine, other = breaker(), breaker()

        async def work():
            async with backend, share_circuits(backend, [mine]), share_circuits(backend, [other]):
                await sleep(0.1)
                fail(mine)
                await sleep(0.1)

        async def check():
            async with backend:
                assert (await backend.directory("circuit:db").snapshot()).members == {}
            fail(other) if other.state is CLOSED else None

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout"), minimum=2)


CHILD = """
import sys, anyio
from aiopatterns.backends import open_backend
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.sharing import share_circuits
from aiopatterns.resilience.trip import Consecutive, Trip

async def main():
    api = CircuitBreaker("api", trip=Trip(Consecutive(1)))
    async with share_circuits(sys.argv[1], [api]) as shared:
        while shared.statistics().members["api"] < 4:
            await anyio.sleep(0.01)
        if sys.argv[2] == "fail":
            api.try_acquire().record("failure")
        with anyio.fail_after(20):
            while api.state.value != "open":
                await anyio.sleep(0.01)
        print(*sorted(shared.statistics().followed), "open", flush=True)
        await anyio.sleep(0.5)

anyio.run(main)
"""


@pytest.mark.real
@pytest.mark.promise("resilience-shared-circuits")
async def test_processes_share_circuits_over_redis(redis_url):
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, redis_url, how], stdout=subprocess.PIPE)
        for how in ("fail", "fail", "follow", "follow")
    ]
    outputs = [await anyio.to_thread.run_sync(child.communicate) for child in children]
    assert [output.split() for output, _ in outputs] == [
        [b"open"],
        [b"open"],
        [b"api", b"open"],
        [b"api", b"open"],
    ]


@pytest.mark.real
async def test_a_server_that_dies_interrupts_the_sharing_alone(monkeypatch):
    monkeypatch.setattr("aiopatterns.resilience.sharing.TTL", 0.3)
    monkeypatch.setattr("aiopatterns.resilience.sharing.RETRY", 0.1)
    with RedisServer(private=True) as server:
        mine, other = breaker(), breaker()
        async with (
            share_circuits(server.url, [mine]) as shared,
            share_circuits(server.url, [other]),
        ):
            with anyio.fail_after(20):
                while shared.statistics().members != {"db": 2}:
                    await sleep(0.01)
                server.kill()
                while shared.statistics().connected:
                    await sleep(0.01)
                began = monotonic()
                for _ in range(100):
                    succeed(mine)
                assert monotonic() - began < 0.1
                server.restart()
                while not shared.statistics().connected:
                    await sleep(0.01)
                fail(mine)
                while other.state is not OPEN:
                    await sleep(0.01)
