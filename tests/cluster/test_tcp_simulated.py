"""Peers over TCP on virtual time: 200 schedules, connections that break, cancelled at every await."""

from __future__ import annotations

import pytest
from anyio import create_task_group, sleep

from aiopatterns.cluster.secret import Secret
from aiopatterns.cluster.tcp import TCPTransport
from aiopatterns.cluster.tcplink import IDLE
from aiopatterns.core.clock import rng
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere, simulate
from tests.cluster.pipes import Nets

SECRET = Secret("all peers of the test")


@pytest.fixture
def nets(monkeypatch):
    return Nets(monkeypatch)


class Peer:
    """A transport and what its node has got."""

    def __init__(self, name):
        self.name = name
        self.transport = TCPTransport()
        self.packets: list[bytes] = []

    def serve(self, answer=None):
        return self.transport.serve(
            self.name, receive=self.packets.append, answer=answer or self.answer, secret=SECRET
        )

    async def answer(self, data):
        await sleep(rng().random() / 100)
        return self.name.encode() + b":" + data

    def assert_closed(self):
        figures = self.transport.statistics()
        assert (figures.guests, figures.links) == (0, 0)
        assert figures.malformed == figures.mismatched == 0


def assert_ended(net):
    assert all(end.closed for end in net.ends)
    assert not net.listeners


@pytest.mark.promise("cluster-peer-tcp")
def test_every_answer_is_that_to_its_question_and_no_packet_comes_twice(nets):
    async def run():
        net, a, b = nets.new(), Peer("a"), Peer("b")
        async with a.serve(), b.serve():

            async def ask(number):
                question = str(number).encode()
                answer = await a.transport.exchange(b.transport.address, question, timeout=5)
                assert answer == b"b:" + question

            async with create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(ask, number)
                    a.transport.send(b.transport.address, bytes((number,)))
                    b.transport.send(a.transport.address, bytes((number,)))
            await sleep(0.1)
            expected = [bytes((number,)) for number in range(10)]
            assert a.packets == b.packets == expected
            assert len(net.ends) == 4, "one connection for each way"
        a.assert_closed()
        b.assert_closed()
        assert_ended(net)

    explore(run, range(60))


@pytest.mark.promise("cluster-peer-tcp")
def test_connections_that_break_are_made_again(nets):
    async def run():
        net, a, b = nets.new(), Peer("a"), Peer("b")
        answered, lost = [], []
        async with a.serve(), b.serve():

            async def ask(number):
                question = str(number).encode()
                try:
                    answer = await a.transport.exchange(b.transport.address, question, timeout=5)
                    assert answer == b"b:" + question
                    answered.append(number)
                except ConnectionError:
                    lost.append(number)

            async with create_task_group() as tasks:
                for number in range(12):
                    tasks.start_soon(ask, number)
                    a.transport.send(b.transport.address, bytes((number,)))
                    await sleep(rng().random() / 50)
                    if rng().random() < 0.3:
                        net.break_one()
            assert sorted(answered + lost) == [*range(12)]
            assert answered
            await sleep(0.1)  # all that broke has been noticed
            assert (
                await a.transport.exchange(b.transport.address, b"well?", timeout=5) == b"b:well?"
            )
            assert b.packets == sorted(set(b.packets)), "in order, none twice"
        a.assert_closed()
        b.assert_closed()
        assert_ended(net)

    explore(run, range(60))


def test_a_silent_connection_is_closed_by_who_has_called(nets):
    async def run():
        net, a, b = nets.new(), Peer("a"), Peer("b")
        async with a.serve(), b.serve():
            a.transport.send(b.transport.address, b"one")
            await sleep(IDLE - 1)
            assert a.transport.statistics().links == b.transport.statistics().guests == 1
            await sleep(2)
            assert a.transport.statistics().links == b.transport.statistics().guests == 0
            a.transport.send(b.transport.address, b"two")
            await sleep(1)
            assert b.packets == [b"one", b"two"]
            assert len(net.ends) == 4

    simulate(run)


@pytest.mark.promise("cluster-peer-tcp")
def test_cancelled_anywhere_nothing_is_left(nets):
    def scenario():
        net, a, b = nets.new(), Peer("a"), Peer("b")

        async def work():
            async with a.serve(), b.serve():
                a.transport.send(b.transport.address, b"news")
                await a.transport.exchange(b.transport.address, b"one", timeout=5)
                await b.transport.exchange(a.transport.address, b"two", timeout=5)

        def check():
            a.assert_closed()
            b.assert_closed()
            assert_ended(net)
            assert a.packets == []
            assert b.packets in ([], [b"news"])

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=8)


@pytest.mark.promise("cluster-peer-tcp")
def test_a_question_that_is_cancelled_anywhere_harms_no_other(nets):
    def scenario():
        nets.new()
        a, b = Peer("a"), Peer("b")
        outcome = []

        async def work():
            async with a.serve(), b.serve(), create_task_group() as tasks:
                tasks.start_soon(other)
                await a.transport.exchange(b.transport.address, b"one", timeout=5)

        async def other():
            outcome.append(await a.transport.exchange(b.transport.address, b"two", timeout=5))

        def check():
            assert outcome in ([], [b"b:two"])
            a.assert_closed()

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=5)


def test_a_node_that_fails_anywhere_refuses_and_goes_on(nets):
    def scenario(fault):
        net, a, b = nets.new(), Peer("a"), Peer("b")

        async def answer(data):
            fault()
            return data

        async def work():
            refused = 0
            async with a.serve(), b.serve(answer):
                for number in range(4):
                    try:
                        found = await a.transport.exchange(
                            b.transport.address, bytes((number,)), timeout=5
                        )
                        assert found == bytes((number,))
                    except ConnectionAbortedError:
                        refused += 1
            assert refused <= 1

        return Trial(work(), lambda: assert_ended(net))

    fail_everywhere(scenario, minimum=4)
