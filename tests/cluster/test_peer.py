"""Peers: they find each other, talk, and see who is gone and who is back."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from aiopatterns.cluster import (
    MemberState,
    MemoryNetwork,
    MemoryTransport,
    PeerChanged,
    PeerHandlerFailed,
    PeerNode,
    PeerStatistics,
    Swim,
)
from aiopatterns.cluster.messages import MAX_BROADCAST, MAX_MESSAGE
from aiopatterns.cluster.rumours import KEEP_COUNT
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.errors import (
    ClosedError,
    CodecError,
    NoEndpointError,
    QueueFullError,
    RejectedError,
    SecretMismatchError,
    TimeoutExceededError,
)
from aiopatterns.testing import (
    Trial,
    cancel_everywhere,
    capture_events,
    explore,
    fail_everywhere,
    simulate,
)
from tests.cluster.crowd import Crowd, Elsewhere, crowd, until

# For tests that run in real time as well: probes hardly matter there, gossip is quick.
QUICK = Swim(probe=1.0, timeout=0.5, gossip=0.01)


async def test_peers_find_each_other_and_talk():
    async with crowd("abc", swim=QUICK) as peers:
        a, b = peers.nodes["a"], peers.nodes["b"]
        assert a.address == "a"
        assert {name: each.address for name, each in b.members.items()} == {
            "a": "a",
            "b": "b",
            "c": "c",
        }
        await a.send("b", {"to": "b"})
        await until(lambda: peers.heard["b"])
        assert peers.heard["b"] == [("a", {"to": "b"})]
        await b.broadcast(["to", "all"])
        await until(lambda: peers.heard["a"] and peers.heard["c"])
        assert peers.heard["a"] == peers.heard["c"] == [("b", ["to", "all"])]
        await a.send("a", "to itself")
        await until(lambda: len(peers.heard["a"]) == 2)
        assert peers.heard["a"][1] == ("a", "to itself")
        assert len(peers.heard["b"]) == 1  # not one's own broadcast


def test_a_flood_of_broadcasts_waits_for_room_and_arrives_whole():
    number = 3 * KEEP_COUNT

    async def run() -> None:
        async with crowd("abc") as peers:
            for each in range(number):
                await peers.nodes["a"].broadcast(each)
                assert len(peers.nodes["a"]._run().rumours.news) <= KEEP_COUNT
            with anyio.fail_after(60):
                await until(lambda: all(len(peers.heard[name]) == number for name in "bc"))
            for name in "bc":
                assert {message for _, message in peers.heard[name]} == set(range(number))

    simulate(run)


async def test_a_node_that_is_alone_floods_nobody():
    async with PeerNode("a", transport=MemoryTransport(MemoryNetwork())) as node:
        for each in range(KEEP_COUNT + 10):
            await node.broadcast(each)
        assert node.statistics().broadcasts == KEEP_COUNT


async def test_who_leaves_has_left_for_the_others_and_can_come_again():
    async with crowd("abc", swim=QUICK) as peers:
        node = peers.nodes["c"]
        await peers.leave("c")
        await until(lambda: peers.states("c") == {"left"})
        with pytest.raises(NoEndpointError, match="peer 'c' is left to 'a'"):
            await peers.nodes["a"].send("c", "too late")
        async with node:
            await until(lambda: peers.states("c") == {"alive"})
            assert node.statistics().alive == 3
        await until(lambda: peers.states("c") == {"left"})


async def test_a_node_that_is_closed_says_how_to_open_it():
    node = PeerNode("a", transport=MemoryTransport(MemoryNetwork()))
    assert node.statistics() == PeerStatistics()
    for _ in range(2):
        with pytest.raises(ClosedError, match="use it inside 'async with PeerNode"):
            await node.broadcast("x")
        with pytest.raises(ClosedError):
            await node.send("b", "x")
        with pytest.raises(ClosedError):
            _ = node.members
        with pytest.raises(ClosedError):
            _ = node.address
        async with node:
            assert node.address == "a"
    assert (node.statistics().alive, node.statistics().left) == (0, 1)


async def test_what_was_accepted_is_handled_before_a_node_ends():
    heard = []

    async def slow(_sender: str, message: object) -> None:
        await sleep(0.01)
        heard.append(message)

    async with crowd("a", swim=QUICK) as peers:
        node = PeerNode("b", transport=MemoryTransport(peers.network), seeds=["a"], swim=QUICK)
        node.on_message(slow)
        async with node:
            for number in range(5):
                await peers.nodes["a"].send("b", number)
        assert heard == [0, 1, 2, 3, 4]


def test_a_node_that_leaves_takes_nothing_more():
    async def run() -> None:
        async with crowd("ab") as peers:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(peers.leave, "b")
                await sleep(0.0001)
                with pytest.raises(NoEndpointError, match="peer 'b' is leaving"):
                    await peers.nodes["a"].send("b", "x")

    simulate(run)


async def test_changes_are_told_and_an_error_in_a_watcher_stops_nothing():
    seen = []

    def broken(_member: object) -> None:
        msg = "broken"
        raise ValueError(msg)

    with capture_events() as events:
        async with crowd("a", swim=QUICK) as peers:
            node = peers.nodes["a"]
            node.on_change(broken)
            watching = node.on_change(lambda member: seen.append((member.name, member.state)))
            await peers.open("b", swim=QUICK)
            await peers.leave("b")
            await until(lambda: peers.states("b") == {"left"})
            watching.close()
            await peers.open("c", swim=QUICK)
            assert node.statistics().handler_errors == 3
    assert seen == [("b", MemberState.ALIVE), ("b", MemberState.LEFT)]
    assert PeerChanged("a", "b", "alive", "", "b") in events
    assert PeerChanged("a", "b", "left", "alive", "b") in events
    failed = [each for each in events if isinstance(each, PeerHandlerFailed)]
    assert failed[0] == PeerHandlerFailed("a", "b", "ValueError('broken')")


@pytest.mark.promise("cluster-peer-detects")
def test_a_crash_is_seen_by_all_and_the_node_is_back_at_once():
    async def run() -> None:
        async with crowd("abcde") as peers:
            await peers.crash("e")
            assert await until(lambda: peers.states("e") == {"dead"}) < 6
            with pytest.raises(NoEndpointError, match="peer 'e' is dead to 'a'"):
                await peers.nodes["a"].send("e", "x")
            assert peers.nodes["a"].statistics().dead == 1
            await peers.open("e")
            assert await until(peers.agree) < 1

    simulate(run)


@pytest.mark.promise("cluster-peer-detects")
def test_a_node_that_starts_anew_before_its_crash_is_seen_takes_its_place():
    async def run() -> None:
        async with crowd("abc") as peers:
            before = peers.nodes["a"].members["c"].incarnation
            await peers.crash("c")
            await peers.open("c")
            await until(lambda: peers.nodes["b"].members["c"].incarnation > before)
            await sleep(10)
            assert peers.agree()

    simulate(run)


@pytest.mark.promise("cluster-peer-detects")
def test_when_all_start_anew_at_once_nobody_is_taken_for_its_former_self():
    async def run() -> None:
        async with crowd("abcde") as peers:
            await peers.nodes["b"].broadcast("of the former run")
            await sleep(1)
            for name in "abcde":
                await peers.crash(name)
            dead = []
            for name in "abcde":
                node = await peers.open(name)
                node.on_change(lambda member: dead.append(member) if not member.living else None)
            await until(peers.agree, within=5)
            await peers.nodes["b"].broadcast("of this run")
            await sleep(60)
            assert peers.agree()
            assert dead == []
            assert peers.heard["c"] == [("b", "of the former run"), ("b", "of this run")]

    simulate(run)


@pytest.mark.promise("cluster-peer-broadcast")
def test_a_broadcast_goes_through_a_partition():
    async def run() -> None:
        async with crowd("abcde") as peers:
            network, nodes = peers.network, peers.nodes
            network.isolate("d", "e")
            await until(lambda: {nodes["a"].members[n].state.value for n in "de"} == {"dead"})
            await until(lambda: {nodes["d"].members[n].state.value for n in "abc"} == {"dead"})
            await nodes["a"].broadcast("from the many")
            await nodes["d"].broadcast("from the few")
            await sleep(20)
            assert peers.heard["e"] == [("d", "from the few")]
            assert peers.heard["b"] == peers.heard["c"] == [("a", "from the many")]
            network.heal()
            assert await until(peers.agree) < 10
            await until(lambda: sum(map(len, peers.heard.values())) == 8)
            await sleep(60)
            for name, heard in peers.heard.items():
                wanted = {("a", "from the many"), ("d", "from the few")}
                assert len(heard) == len(set(heard))
                assert set(heard) == {each for each in wanted if each[0] != name}

    simulate(run)


@pytest.mark.promise("cluster-peer-broadcast")
def test_broadcasts_reach_all_once_under_200_seeds():
    """Of five nodes with one packet in five lost, while one is cut off for a while."""

    async def run() -> None:
        network = MemoryNetwork(seed=rng().getrandbits(32), loss=0.2, delay=0.01)
        async with crowd("abcd", network=network) as peers:
            network.isolate("d")
            for name in "abcd":
                for number in range(3):
                    await peers.nodes[name].broadcast(number)
            await sleep(3)
            network.heal()
            wanted = {(name, number) for name in "abcd" for number in range(3)}
            await until(lambda: sum(map(len, peers.heard.values())) >= 36, within=120)
            for name, heard in peers.heard.items():
                assert sorted(heard) == sorted(each for each in wanted if each[0] != name)

    explore(run, range(200))


@pytest.mark.promise("cluster-peer-agree")
def test_after_any_trouble_all_agree_again():
    """Nodes crash, leave, start anew, are cut off and paused; then there is peace."""

    async def run() -> None:
        network = MemoryNetwork(seed=rng().getrandbits(32), loss=0.1, delay=0.01)
        async with crowd("abcde", network=network, seeds=list("abcde")) as peers:
            for _ in range(8):
                name, trouble = rng().choice("abcde"), rng().randrange(5)
                if trouble == 0 and name in peers.nodes:
                    await peers.crash(name)
                elif trouble == 1 and name in peers.nodes:
                    await peers.leave(name)
                elif trouble == 2:
                    network.isolate(name, rng().choice("abcde"))
                elif trouble == 3:
                    network.pause(name, 5 * rng().random())
                else:
                    network.heal()
                await sleep(3 * rng().random())
                for each in sorted(set("abcde") - set(peers.nodes)):
                    if rng().random() < 0.5:
                        await peers.open(each, seeds=list("abcde"))
            network.heal()
            for each in sorted(set("abcde") - set(peers.nodes)):
                await peers.open(each, seeds=list("abcde"))
            await until(peers.agree, within=120)
            await sleep(10)  # longer than any suspicion
            assert peers.agree()

    explore(run, range(30))


@pytest.mark.promise("cluster-bad-input")
async def test_a_message_that_cannot_be_sent_is_refused():
    async with crowd("ab", swim=QUICK) as peers:
        node = peers.nodes["a"]
        with pytest.raises(NoEndpointError, match="peer 'x' is not known to 'a'") as caught:
            await node.send("x", "hello")
        assert caught.value.name == "x"
        with pytest.raises(TypeError, match=r"peer must be a non-empty string, not \['b'\]"):
            await node.send(["b"], "hello")
        with pytest.raises(ValueError, match=f"message must have at most {MAX_MESSAGE} bytes"):
            await node.send("b", bytes(MAX_MESSAGE))
        with pytest.raises(ValueError, match=f"message must have at most {MAX_BROADCAST} bytes"):
            await node.broadcast(bytes(MAX_BROADCAST))
        with pytest.raises(CodecError):
            await node.send("b", object())
        with pytest.raises(CodecError):
            await node.broadcast(object())
        for timeout in (0, -1, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                await node.send("b", "x", timeout=timeout)
        await node.send("b", bytes(MAX_MESSAGE - 5))
        await node.broadcast(bytes(MAX_BROADCAST - 3))
        await until(lambda: len(peers.heard["b"]) == 2)


def test_a_full_inbox_refuses_messages_and_takes_broadcasts_later():
    async def run() -> None:
        async with crowd("a") as peers:
            gate, heard = anyio.Event(), []

            async def handler(_sender: str, message: object) -> None:
                heard.append(message)
                await gate.wait()

            node = PeerNode("b", transport=MemoryTransport(peers.network), seeds=["a"], inbox=2)
            node.on_message(handler)
            async with node:
                a = peers.nodes["a"]
                for number in range(3):  # one is at work, two wait
                    await a.send("b", number)
                    await sleep(0.01)
                with pytest.raises(QueueFullError, match="the inbox of peer 'b' is full"):
                    await a.send("b", 3)
                await a.broadcast("news")
                await until(lambda: node.statistics().deferred)
                assert node.statistics().queued == 2
                gate.set()
                await until(lambda: "news" in heard, within=100)
                assert heard == [0, 1, 2, "news"]

    simulate(run)


def test_messages_to_who_is_cut_off_time_out():
    async def run() -> None:
        async with crowd("ab") as peers:
            peers.network.isolate("b")
            began = monotonic()
            with pytest.raises(TimeoutExceededError):
                await peers.nodes["a"].send("b", "x", timeout=0.5)
            assert monotonic() - began == pytest.approx(0.5)

    simulate(run)


def test_a_message_is_not_given_to_who_has_the_address_now():
    async def run() -> None:
        async with crowd("a") as peers:
            await peers.open("b", transport=Elsewhere(peers.network, "b:1"))
            await peers.crash("b")
            await peers.open("c", transport=Elsewhere(peers.network, "b:1"))
            with pytest.raises(NoEndpointError, match="at 'b:1' is 'c' and not peer 'b'"):
                await peers.nodes["a"].send("b", "x")
            assert await until(lambda: peers.nodes["a"].members["b"].state is MemberState.DEAD) < 6

    simulate(run)


@pytest.mark.promise("cluster-peer-names")
def test_the_name_of_a_living_node_is_not_given_away():
    async def run() -> None:
        async with crowd("abc") as peers:
            for seed in ("a", "c"):
                other = peers.make("c", transport=Elsewhere(peers.network, "c:2"), seeds=[seed])
                with pytest.raises(RejectedError, match="'c' is that of a living node at 'c'"):
                    async with other:
                        raise AssertionError
            assert peers.agree()

    simulate(run)


@pytest.mark.promise("cluster-peer-names")
def test_a_process_that_starts_anew_elsewhere_takes_its_name_over_at_once():
    async def run() -> None:
        async with crowd("abc") as peers:
            await peers.crash("c")
            began = monotonic()
            await peers.open("c", transport=Elsewhere(peers.network, "c:2"))
            assert monotonic() - began < 2
            await until(lambda: {n.members["c"].address for n in peers.nodes.values()} == {"c:2"})
            await sleep(10)
            assert peers.agree()

    simulate(run)


@pytest.mark.promise("cluster-peer-names")
def test_of_two_processes_with_one_name_that_meet_the_older_ends():
    """Both have started while the network was cut."""

    async def run() -> None:
        network = MemoryNetwork(delay=0.001)
        network.isolate("b", "twin:2")
        async with anyio.create_task_group() as tasks:
            peers = Crowd(network, tasks)
            await peers.open("a")
            with pytest.raises(RejectedError, match="at 'twin:2' has taken the name 'twin'"):
                async with peers.make("twin", transport=Elsewhere(network, "twin:1")):
                    await peers.open("b", seeds=["a"])
                    await peers.open(
                        "twin", transport=Elsewhere(network, "twin:2"), seeds=["b", "a"]
                    )
                    await sleep(5)
                    network.heal()
                    await sleep(120)
            await until(peers.agree)
            tasks.cancel_scope.cancel()

    simulate(run)


@pytest.mark.promise("cluster-bad-input")
def test_a_node_without_the_secret_does_not_get_in():
    async def run() -> None:
        async with crowd("ab", secret="of all of us") as peers:
            for secret in ("another", None):
                stranger = peers.make("c", secret=secret)
                with pytest.raises(SecretMismatchError, match="'a' has another secret"):
                    async with stranger:
                        raise AssertionError
            await peers.open("d", secret="of all of us")
            await until(peers.agree)

    simulate(run)


@pytest.mark.promise("cluster-bad-input")
def test_a_node_of_another_cluster_does_not_get_in():
    async def run() -> None:
        async with crowd("ab", cluster="prod") as peers:
            stranger = peers.make("c", cluster="test")
            with pytest.raises(RejectedError, match="'a' is of cluster 'prod', and this node of"):
                async with stranger:
                    raise AssertionError
            assert peers.nodes["a"].statistics().rejected == 1

    simulate(run)


@pytest.mark.promise("cluster-bad-input")
@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"name": ""}, ValueError, "name"),
        ({"name": "a b"}, ValueError, "name"),
        ({"name": 17}, TypeError, "name"),
        ({"transport": "a"}, TypeError, "transport.check must be a function, not None"),
        ({"seeds": "a"}, TypeError, r"seeds must be several addresses, such as \['a'\]"),
        ({"seeds": [""]}, ValueError, "seeds"),
        ({"seeds": None}, TypeError, "seeds must be several addresses, not None"),
        ({"seeds": [17]}, TypeError, "seeds"),
        ({"swim": 1.0}, TypeError, "swim must be a Swim"),
        ({"secret": ""}, ValueError, "secret must not be empty"),
        ({"secret": 17}, TypeError, "secret"),
        ({"cluster": ""}, ValueError, "cluster"),
        ({"cluster": "a b"}, ValueError, "cluster"),
        ({"inbox": 0}, ValueError, "inbox"),
    ],
)
def test_wrong_values_are_refused(options, error, named):
    with pytest.raises(error, match=named):
        PeerNode(**{"name": "a", "transport": MemoryTransport(MemoryNetwork())} | options)


@pytest.mark.promise("cluster-peer-public")
def test_a_node_that_strangers_can_reach_needs_a_secret():
    transport = Elsewhere(MemoryNetwork(), "203.0.113.7:7946")
    transport.public = True
    with pytest.raises(ValueError, match="secret must be given"):
        PeerNode("a", transport=transport)
    PeerNode("a", transport=transport, secret="long and random")


@pytest.mark.promise("cluster-bad-input")
async def test_watchers_and_handlers_must_be_functions():
    node = PeerNode("a", transport=MemoryTransport(MemoryNetwork()))

    async def watcher(_member: object) -> None: ...

    wrong: list[Any] = [17, watcher]
    for each in wrong:
        with pytest.raises(TypeError, match="watcher must be a"):
            node.on_change(each)
    with pytest.raises(TypeError, match="handler must be a function"):
        node.on_message(wrong[0])


async def test_a_transport_that_cannot_listen_is_an_error_of_entering():
    async with crowd("a", swim=QUICK) as peers:
        with pytest.raises(OSError, match="'a' is taken on this network"):
            async with peers.make("a"):
                raise AssertionError


async def test_what_comes_before_a_node_is_open_is_not_heeded():
    answers: list[type] = []

    class Early(Elsewhere):
        """Hears from others before it says that it listens."""

        def serve(self, name: str, **options):
            return self._serve(name, options)

        @asynccontextmanager
        async def _serve(self, name: str, options):
            options["receive"](b"anything")
            for use in (options["answer"](b"anything"), node.broadcast("too early")):
                with pytest.raises(ClosedError, match="'a' is being opened") as caught:
                    await use
                answers.append(caught.type)
            async with super().serve(name, **options):
                yield

    node = PeerNode("a", transport=Early(MemoryNetwork(), "a:1"))
    async with node:
        assert node.statistics().rejected == 0
    assert answers == [ClosedError, ClosedError]


async def test_a_node_is_entered_once_at_a_time():
    async with crowd("a", swim=QUICK) as peers:
        with pytest.raises(RuntimeError, match="is open already"):
            async with peers.nodes["a"]:
                raise AssertionError


@pytest.mark.promise("cluster-peer-cancel")
@pytest.mark.parametrize("kinds", [("native", "scope"), ("timeout", "native-twice")])
def test_a_node_cancelled_at_any_await_leaves_nothing(kinds):
    def scenario() -> Trial:
        network = MemoryNetwork(delay=0.001)
        nodes = [
            PeerNode(name, transport=MemoryTransport(network), seeds=["a"], swim=QUICK)
            for name in "ab"
        ]

        async def work() -> None:
            async with nodes[0], nodes[1]:
                await nodes[0].broadcast("x")
                await nodes[0].send("b", "y")
                await nodes[1].send("a", "z")

        def check() -> None:
            assert network.in_flight == 0
            for node in nodes:
                with pytest.raises(ClosedError):
                    _ = node.members

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=kinds, minimum=12)


@pytest.mark.promise("cluster-peer-handlers")
def test_functions_of_the_users_that_fail_at_any_call_stop_nothing():
    def scenario(fault) -> Trial:
        network = MemoryNetwork()
        a, b = (
            PeerNode(name, transport=MemoryTransport(network), seeds=["a"], swim=QUICK)
            for name in "ab"
        )
        heard = []

        def handler(_sender: str, message: object) -> None:
            heard.append(message)
            fault()

        async def work() -> None:
            async with a, b:
                for number in range(3):
                    await a.send("b", number)

        def check() -> None:
            assert heard == [0, 1, 2]

        a.on_change(lambda _: fault())
        b.on_message(handler)
        return Trial(work(), check)

    fail_everywhere(scenario, minimum=5)
