"""The network in memory: loss, delay, partitions and pauses, the same for the same seed."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest

from aiopatterns.cluster import MemoryNetwork, MemoryTransport
from aiopatterns.cluster.secret import Secret
from aiopatterns.cluster.transport import RETRANSMIT
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import ClosedError, SecretMismatchError, TimeoutExceededError
from aiopatterns.testing import Trial, cancel_everywhere, simulate


class Ends:
    """Open places on one network, and what arrives at each, with the time."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.at: dict[str, MemoryTransport] = {}
        self.got: dict[str, list[tuple[float, bytes]]] = {}

    async def open(self, stack: AsyncExitStack, name: str, **options) -> None:
        transport = self.at[name] = MemoryTransport(self.network)
        got = self.got[name] = []

        async def answer(data: bytes) -> bytes:
            if data == b"refuse":
                raise ValueError(data)
            if data == b"slow":
                await sleep(1)
            return name.encode() + b":" + data

        serving = transport.serve(
            name, receive=lambda data: got.append((monotonic(), data)), answer=answer, **options
        )
        await stack.enter_async_context(serving)


@asynccontextmanager
async def ends(names: str, **options):
    async with AsyncExitStack() as stack:
        made = Ends(MemoryNetwork(**options))
        for name in names:
            await made.open(stack, name)
        yield made


async def test_packets_and_answers_come_through():
    async with ends("ab") as network:
        a = network.at["a"]
        assert (a.address, a.public) == ("a", False)
        a.send("b", b"one")
        a.send("b", b"two")
        assert network.network.in_flight == 2
        assert await a.exchange("b", b"ask", timeout=5) == b"b:ask"
        while len(network.got["b"]) < 2:
            await sleep(0.001)
        assert [data for _, data in network.got["b"]] == [b"one", b"two"]


async def test_nobody_there_and_refused_are_errors_of_their_own():
    async with ends("ab") as network:
        a = network.at["a"]
        a.send("nobody", b"lost")
        with pytest.raises(ConnectionRefusedError, match="nobody listens at 'nobody'"):
            await a.exchange("nobody", b"ask", timeout=5)
        with pytest.raises(ConnectionAbortedError, match="'b' refused to answer"):
            await a.exchange("b", b"refuse", timeout=5)


async def test_a_name_is_taken_once_and_free_again_afterwards():
    async with ends("a") as network:
        with pytest.raises(OSError, match="'a' is taken"):
            async with AsyncExitStack() as stack:
                await Ends(network.network).open(stack, "a")
    async with AsyncExitStack() as stack:
        await network.open(stack, "a")


async def test_a_transport_serves_one_node_at_a_time_and_has_its_address_then():
    network = Ends(MemoryNetwork())
    transport = MemoryTransport(network.network)
    with pytest.raises(ClosedError, match="open that first"):
        _ = transport.address

    async def answer(data: bytes) -> bytes:
        return data

    for name in "ab":
        async with transport.serve(name, receive=lambda _: None, answer=answer):
            assert transport.address == name
            with pytest.raises(RuntimeError, match="serves a node already"):
                async with transport.serve("c", receive=lambda _: None, answer=answer):
                    raise AssertionError
        assert transport.address == name


def test_delays_are_between_half_and_one_and_a_half_of_the_mean():
    async def run() -> list[float]:
        async with ends("ab", seed=3, delay=0.1) as network:
            for _ in range(200):
                network.at["a"].send("b", b"x")
            began = monotonic()
            assert await network.at["a"].exchange("b", b"y", timeout=5) == b"b:y"
            assert 0.1 <= monotonic() - began <= 0.3
            await sleep(1)
            return [at for at, _ in network.got["b"]]

    delays = simulate(run)
    assert len(delays) == 200
    assert 0.05 <= min(delays) < 0.06
    assert 0.14 < max(delays) <= 0.15


def test_a_packet_that_is_sent_later_may_overtake():
    async def run() -> list[bytes]:
        async with ends("ab", seed=1, delay=0.1) as network:
            for number in range(10):
                network.at["a"].send("b", b"%d" % number)
            await sleep(1)
            return [data for _, data in network.got["b"]]

    arrived = simulate(run)
    assert len(arrived) == 10
    assert arrived != sorted(arrived)


@pytest.mark.parametrize(("loss", "least", "most"), [(0.0, 1_000, 1_000), (0.1, 850, 950)])
def test_packets_are_lost_with_the_chance_given_and_exchanges_are_not(loss, least, most):
    async def run() -> tuple[int, float]:
        async with ends("ab", seed=1, loss=loss) as network:
            for _ in range(1_000):
                network.at["a"].send("b", b"x")
            for _ in range(100):
                await network.at["a"].exchange("b", b"y", timeout=5)
            return len(network.got["b"]), monotonic()

    arrived, took = simulate(run)
    assert least <= arrived <= most
    assert took == pytest.approx(100 * 2 * loss * RETRANSMIT, rel=0.5)


def test_where_all_is_lost_exchanges_are_slow():
    async def run() -> int:
        async with ends("ab", loss=1.0) as network:
            network.at["a"].send("b", b"x")
            with pytest.raises(TimeoutExceededError):
                await network.at["a"].exchange("b", b"y", timeout=0.1)
            return len(network.got["b"])

    assert simulate(run) == 0


def test_equal_seeds_have_equal_faults():
    def arrivals(seed: int) -> list[tuple[float, bytes]]:
        async def run() -> list[tuple[float, bytes]]:
            async with ends("ab", seed=seed, loss=0.3, delay=0.05) as network:
                for number in range(50):
                    network.at["a"].send("b", b"%d" % number)
                await sleep(1)
                return network.got["b"]

        return simulate(run)

    assert arrivals(1) == arrivals(1)
    assert arrivals(1) != arrivals(2)


def test_an_island_is_cut_off_until_it_heals():
    async def run() -> None:
        async with ends("abcd") as network:
            at, got = network.at, network.got
            at["a"].send("c", b"on the way")
            network.network.isolate("c", "d")
            at["a"].send("c", b"over")
            at["a"].send("b", b"same side")
            at["d"].send("c", b"same island")
            began = monotonic()
            with pytest.raises(TimeoutExceededError, match="'c' did not answer in time"):
                await at["a"].exchange("c", b"ask", timeout=2)
            assert monotonic() - began == pytest.approx(2)
            assert await at["c"].exchange("d", b"ask", timeout=2) == b"d:ask"
            network.network.isolate("d")  # an island of its own
            at["c"].send("d", b"not any more")
            await sleep(1)
            network.network.heal()
            at["a"].send("c", b"healed")
            await sleep(1)
            assert [data for _, data in got["c"]] == [b"same island", b"healed"]
            assert ([data for _, data in got["b"]], got["d"]) == ([b"same side"], [])

    simulate(run)


def test_a_pause_holds_what_comes_and_goes_and_loses_nothing():
    async def run() -> None:
        async with ends("abc") as network:
            at, got = network.at, network.got
            at["b"].send("a", b"on the way")
            network.network.pause("a", 0.5)
            network.network.pause("a", 0.3)
            at["a"].send("b", b"out")
            at["b"].send("a", b"in")
            at["b"].send("c", b"elsewhere")
            began = monotonic()
            assert await at["b"].exchange("a", b"ask", timeout=2) == b"a:ask"
            assert monotonic() - began == pytest.approx(0.5)
            await sleep(0.1)
            assert sorted(data for _, data in got["a"]) == [b"in", b"on the way"]
            assert all(when == pytest.approx(0.5) for when, _ in [*got["a"], *got["b"]])
            assert got["c"][0][0] == 0.0
            network.network.pause("a", 60)
            with pytest.raises(TimeoutExceededError):
                await at["b"].exchange("a", b"ask", timeout=2)
            network.network.heal()
            assert await at["b"].exchange("a", b"ask", timeout=2) == b"a:ask"

    simulate(run)


def test_an_answer_that_takes_too_long_is_not_waited_for():
    async def run() -> float:
        async with ends("ab") as network:
            with pytest.raises(TimeoutExceededError):
                await network.at["a"].exchange("b", b"slow", timeout=0.5)
            return monotonic()

    assert simulate(run) == pytest.approx(0.5)


def test_strangers_hear_nothing_of_each_other():
    async def run() -> None:
        async with AsyncExitStack() as stack:
            network = Ends(MemoryNetwork())
            for name, secret in (("a", "one"), ("b", "other"), ("c", "one")):
                await network.open(stack, name, secret=Secret(secret))
            for name in "bc":
                network.at["a"].send(name, b"x")
            with pytest.raises(SecretMismatchError, match="'b' has another secret"):
                await network.at["a"].exchange("b", b"ask", timeout=2)
            assert await network.at["a"].exchange("c", b"ask", timeout=2) == b"c:ask"
            await sleep(1)
            assert (len(network.got["b"]), len(network.got["c"])) == (0, 1)

    simulate(run)


async def test_who_leaves_with_packets_on_the_way_leaves_no_timer():
    async with ends("ab", delay=30.0) as network:
        for _ in range(3):
            network.at["a"].send("b", b"x")
        assert network.network.in_flight == 3
    assert network.network.in_flight == 0


def test_packets_to_who_has_left_are_lost():
    async def run() -> None:
        async with ends("a", delay=0.1) as network:
            async with AsyncExitStack() as stack:
                await network.open(stack, "b")
                network.at["a"].send("b", b"x")
            await sleep(1)
            assert (network.got["b"], network.network.in_flight) == ([], 0)

    simulate(run)


def test_an_exchange_is_cancelled_at_every_await():
    def scenario() -> Trial:
        async def work() -> None:
            async with ends("ab", delay=0.1) as network:
                await network.at["a"].exchange("b", b"slow", timeout=5)

        return Trial(work())

    cancel_everywhere(scenario, minimum=3)


async def test_a_timer_for_an_earlier_packet_takes_the_place_of_a_later_one():
    async with ends("abc", delay=0.0) as network:
        network.network.pause("a", 0.05)
        network.at["a"].send("b", b"held")
        network.at["b"].send("c", b"at once")
        with anyio.fail_after(5):
            while not network.got["b"]:
                await sleep(0.001)
        assert network.got["c"][0][0] < network.got["b"][0][0]


@pytest.mark.promise("cluster-bad-input")
@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": "x"}, TypeError, "seed"),
        ({"loss": 1.1}, ValueError, "loss"),
        ({"loss": -0.1}, ValueError, "loss"),
        ({"delay": -1}, ValueError, "delay"),
        ({"delay": math.inf}, ValueError, "delay"),
    ],
)
def test_wrong_values_are_refused(options, error, named):
    with pytest.raises(error, match=named):
        MemoryNetwork(**options)


@pytest.mark.promise("cluster-bad-input")
def test_wrong_arguments_are_refused():
    network = MemoryNetwork()
    wrong: Any = "a"
    with pytest.raises(ValueError, match="names"):
        network.isolate("")
    with pytest.raises(ValueError, match="seconds"):
        network.pause("a", 0)
    with pytest.raises(ValueError, match="name"):
        network.pause("", 1)
    with pytest.raises(TypeError, match="network must be a MemoryNetwork"):
        MemoryTransport(wrong)
