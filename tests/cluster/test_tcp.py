"""Peers over TCP as users see them: settings, addresses, sizes, life."""

from __future__ import annotations

import pytest
from anyio import sleep

from aiopatterns.cluster import tcpboard
from aiopatterns.cluster.secret import Secret
from aiopatterns.cluster.tcp import TCPStatistics, TCPTransport
from aiopatterns.cluster.tcpcounts import Counts
from aiopatterns.cluster.transport import MAX_EXCHANGE, MAX_PACKET
from aiopatterns.core.errors import ClosedError, TimeoutExceededError
from tests.cluster.wires import until

NONE = TCPStatistics(**dict.fromkeys(TCPStatistics.__slots__, 0))


async def answer(data: bytes) -> bytes:
    return data[::-1]


def serving(transport: TCPTransport, name="a", receive=len, **more):
    """Serve a node that answers backwards."""
    return transport.serve(name, receive=receive, answer=answer, **more)


@pytest.mark.promise("cluster-bad-input")
@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        (("",), {}, ValueError, "host must be"),
        ((7,), {}, TypeError, "host must be"),
        (("http://here",), {}, ValueError, "host and port must be"),
        (("here:7000",), {}, ValueError, "host and port must be"),
        (("127.0.0.1", -1), {}, ValueError, "port must be"),
        (("127.0.0.1", 65_536), {}, ValueError, "host and port must be"),
        (("127.0.0.1", True), {}, TypeError, "port must be"),
        (("127.0.0.1", "7000"), {}, TypeError, "port must be"),
        (("127.0.0.1", 7000.0), {}, TypeError, "port must be"),
        ((), {"advertise": ""}, ValueError, "advertise must be"),
        ((), {"advertise": 7}, TypeError, "advertise must be"),
        ((), {"advertise": "here:0"}, ValueError, "advertise must be"),
        ((), {"advertise": "http://here"}, ValueError, "advertise must be"),
        ((), {"advertise": "::1"}, ValueError, "advertise must be"),
        ((), {"max_connections": 0}, ValueError, "max_connections must be"),
        ((), {"max_connections": 1.5}, TypeError, "max_connections must be"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_by_name(arguments, options, error, text):
    with pytest.raises(error, match=text):
        TCPTransport(*arguments, **options)


@pytest.mark.promise("cluster-bad-input")
@pytest.mark.parametrize("address", ["", "here", "here:x", "memory-node"])
def test_an_address_can_be_looked_at(address):
    TCPTransport().check("here:7000")
    with pytest.raises(ValueError, match='address must be "host:port"'):
        TCPTransport().check(address)


@pytest.mark.promise("cluster-peer-public")
@pytest.mark.parametrize(
    ("host", "advertise", "public"),
    [
        ("127.0.0.1", None, False),
        ("localhost", None, False),
        ("127.9.9.9", None, False),
        ("::1", None, False),
        ("[::1]", None, False),
        ("10.0.0.7", None, True),
        ("node.example", None, True),
        ("0.0.0.0", None, True),
        ("::", None, True),
        ("0.0.0.0", "10.0.0.7", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "10.0.0.7", True),  # through some proxy
        ("127.0.0.1", "127.0.0.1:9", False),
    ],
)
def test_what_others_can_reach_is_public(host, advertise, public):
    assert TCPTransport(host, advertise=advertise).public is public


@pytest.mark.real
async def test_an_address_is_known_when_it_serves():
    transport = TCPTransport()
    with pytest.raises(ClosedError, match="no address yet"):
        _ = transport.address
    async with serving(transport):
        address = transport.address
        assert address.startswith("127.0.0.1:")
    assert transport.address == address, "for those who look later"


@pytest.mark.real
@pytest.mark.parametrize(
    ("advertise", "expected"),
    [
        ("10.0.0.7", "10.0.0.7:{}"),
        ("10.0.0.7:9", "10.0.0.7:9"),
        ("node.example", "node.example:{}"),
        ("[fe80::7]", "[fe80::7]:{}"),
        ("[fe80::7]:9", "[fe80::7]:9"),
    ],
)
async def test_others_are_told_where_it_is_advertised(advertise, expected):
    transport = TCPTransport("0.0.0.0", advertise=advertise)
    async with serving(transport, secret=Secret("x")):
        port = transport.address.rpartition(":")[2]
        assert transport.address == expected.format(port)


@pytest.mark.real
async def test_who_listens_everywhere_is_called_where_this_machine_calls_from(monkeypatch):
    monkeypatch.setattr(tcpboard, "outward", {"0.0.0.0": "127.0.0.1"}.__getitem__)
    transport = TCPTransport("0.0.0.0")
    async with serving(transport, secret=Secret("x")):
        assert transport.address.startswith("127.0.0.1:")
        assert await transport.exchange(transport.address, b"me", timeout=10) == b"em"


@pytest.mark.real
async def test_two_reach_each_other_under_one_secret():
    received: list[bytes] = []
    a, b = TCPTransport(), TCPTransport("localhost")
    secret = Secret("x")
    async with serving(a, secret=secret), serving(b, "b", received.append, secret=secret):
        a.send(b.address, b"news")
        assert await a.exchange(b.address, b"state", timeout=10) == b"etats"
        await until(lambda: received == [b"news"])
        assert a.statistics() == TCPStatistics(0, 1, 1, 0, 0, 0, 0, 0)
        assert b.statistics() == TCPStatistics(1, 0, 0, 1, 0, 0, 0, 0)


@pytest.mark.real
async def test_it_serves_one_node_at_a_time_and_another_later():
    transport = TCPTransport()
    for _ in range(2):
        async with serving(transport):
            with pytest.raises(RuntimeError, match="serves a node already"):
                async with serving(transport, "b"):
                    pytest.fail("it is not open")
            assert await transport.exchange(transport.address, b"me", timeout=10) == b"em"


@pytest.mark.real
async def test_the_error_of_the_body_leaves_bare():
    error = KeyError("body")
    with pytest.raises(KeyError) as caught:
        async with serving(TCPTransport()):
            raise error
    assert caught.value is error


@pytest.mark.real
async def test_the_largest_go_through_and_larger_ones_do_not():
    received: list[int] = []
    a, b = TCPTransport(), TCPTransport()
    async with serving(a), serving(b, "b", lambda data: received.append(len(data))):
        a.send(b.address, bytes(MAX_PACKET + 1))
        a.send(b.address, bytes(MAX_PACKET))
        assert len(await a.exchange(b.address, bytes(MAX_EXCHANGE), timeout=20)) == MAX_EXCHANGE
        with pytest.raises(ValueError, match=f"data must have at most {MAX_EXCHANGE} bytes"):
            await a.exchange(b.address, bytes(MAX_EXCHANGE + 1), timeout=20)
        await until(lambda: received == [MAX_PACKET])
        assert a.statistics().dropped == 1


@pytest.mark.promise("cluster-bad-input")
@pytest.mark.real
async def test_wrong_questions_are_refused():
    transport = TCPTransport()
    with pytest.raises(ClosedError, match="not open"):
        await transport.exchange("127.0.0.1:1", b"?", timeout=1)
    transport.send("127.0.0.1:1", b"?")
    assert transport._counts == Counts(dropped=1)
    async with serving(transport):
        for timeout in (0, -1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="timeout must be"):
                await transport.exchange("127.0.0.1:1", b"?", timeout=timeout)
        with pytest.raises(OSError, match='address must be "host:port"'):
            await transport.exchange("nowhere", b"?", timeout=1)


@pytest.mark.real
async def test_no_answer_in_time_is_a_timeout():
    async def never(data: bytes) -> bytes:
        await sleep(60)
        return data

    a, b = TCPTransport(), TCPTransport()
    async with serving(a), b.serve("b", receive=len, answer=never):
        with pytest.raises(TimeoutExceededError):
            await a.exchange(b.address, b"?", timeout=0.1)


def test_a_new_transport_has_done_nothing():
    assert TCPTransport().statistics() == NONE
