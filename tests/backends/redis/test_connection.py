from __future__ import annotations

import asyncio
import ssl

import pytest
import trustme

from aiopatterns.backends.redis.connection import Connection, connect, pack, tls_context
from aiopatterns.backends.redis.errors import LostError, RefusalError, UnsentError
from aiopatterns.backends.url import Address, parse
from aiopatterns.core.clock import sleep
from aiopatterns.testing import simulate
from tests.backends.redis.fakeserver import OK, FakeServer

PLAIN = parse("unix:///x")


class Transport(asyncio.WriteTransport):
    def __init__(self):
        super().__init__()
        self.sent = []
        self.aborted = False

    def write(self, data):
        self.sent.append(data)

    def abort(self):
        self.aborted = True

    def is_closing(self):
        return self.aborted

    def set_write_buffer_limits(self, high=None, low=None):
        assert high > 64 * 1024


def made(patience=5.0, **options):
    connection = Connection(patience, **options)
    transport = Transport()
    connection.connection_made(transport)
    return connection, transport


def waiters(number):
    return [asyncio.get_running_loop().create_future() for _ in range(number)]


async def test_replies_go_to_their_waiters_in_order():
    connection, transport = made()
    three = waiters(3)
    connection.send(b"abc", three)
    assert transport.sent == [b"abc"]
    assert list(connection.waiting) == three
    connection.data_received(b"+A\r\n:5\r\n$3\r")
    assert [each.done() for each in three] == [True, True, False]
    connection.data_received(b"\nx\r\n\r\n")
    assert [each.result() for each in three] == [b"A", 5, b"x\r\n"]
    connection.drop("end")


async def test_a_cancelled_waiter_shifts_no_reply():
    connection, _ = made()
    three = waiters(3)
    connection.send(b"", three)
    three[1].cancel()
    connection.data_received(b":1\r\n:2\r\n:3\r\n")
    assert three[0].result() == 1
    assert three[2].result() == 3
    connection.drop("end")


async def test_errors_are_values():
    connection, _ = made()
    two = waiters(2)
    connection.send(b"", two)
    connection.data_received(b"-OOM full\r\n*2\r\n:1\r\n-ERR in\r\n")
    assert type(two[0].result()) is RefusalError
    assert two[0].result().code == "OOM"
    assert type(two[1].result()[1]) is RefusalError
    connection.drop("end")


async def test_whoever_waits_learns_of_the_end_once():
    ends = []
    connection, transport = made(closed=lambda: ends.append(1))
    two = waiters(2)
    connection.send(b"", two)
    two[0].cancel()
    connection.connection_lost(OSError("cable cut"))
    connection.connection_lost(None)
    connection.drop("again")
    assert type(two[1].result()) is LostError
    assert "cable cut" in str(two[1].result())
    assert ends == [1]
    assert not connection.open
    assert transport.aborted
    assert connection.gone.done()


async def test_the_server_hangs_up():
    connection, _ = made()
    (one,) = waiters(1)
    connection.send(b"", [one])
    connection.connection_lost(None)
    assert "the server closed the connection" in str(one.result())


async def test_dropped_before_it_was_made():
    connection = Connection(5.0)
    connection.drop("never mind")
    assert connection.gone.done()
    transport = Transport()
    connection.connection_made(transport)
    assert transport.aborted
    connection.connection_lost(None)


async def test_what_is_no_redis_ends_it():
    connection, transport = made()
    (one,) = waiters(1)
    connection.send(b"", [one])
    connection.data_received(b"HTTP/1.1 400 Bad Request\r\n")
    assert "no Redis protocol" in str(one.result())
    assert transport.aborted


async def test_what_nobody_asked_for_ends_it():
    connection, transport = made()
    connection.data_received(b"+HELLO\r\n+AGAIN\r\n")
    assert transport.aborted


async def test_what_nobody_asked_for_is_pushed():
    pushed: list[object] = []
    connection, _ = made(push=pushed.append)
    (one,) = waiters(1)
    connection.send(b"", [one])
    connection.data_received(b":1\r\n*1\r\n$1\r\na\r\n")
    assert one.result() == 1
    assert pushed == [[b"a"]]
    connection.drop("end")


async def test_writing_pauses_and_resumes():
    connection, _ = made()
    resumed = []
    connection.pause_writing()
    assert not connection.writable
    connection.resumed = lambda: resumed.append(1)
    connection.resume_writing()
    assert connection.writable
    assert resumed == [1]
    connection.drop("end")


def test_silence_is_noticed_at_the_limit():
    async def scenario():
        connection, _ = made(2.0)
        two = waiters(2)
        connection.send(b"", two)
        await sleep(1.5)
        connection.data_received(b":1\r\n")  # a sign of life: two seconds more
        await sleep(1.9)
        assert not two[1].done()
        await sleep(0.2)
        assert type(two[1].result()) is LostError
        assert "silent for 2 s" in str(two[1].result())

    simulate(scenario)


def test_without_commands_there_is_no_limit():
    async def scenario():
        connection, _ = made(2.0)
        (one,) = waiters(1)
        connection.send(b"", [one])
        connection.data_received(b":1\r\n")
        await sleep(100)
        assert connection.open
        (two,) = waiters(1)
        connection.send(b"", [two])
        await sleep(1.9)
        assert connection.open
        await sleep(0.2)
        assert not connection.open

    simulate(scenario)


def test_patience_may_become_shorter_and_longer():
    async def scenario():
        connection, _ = made(100.0)
        one, two, three = waiters(3)
        connection.send(b"", [one])
        connection.data_received(b":1\r\n")
        connection.patience = 1.0
        connection.send(b"", [two])
        await sleep(0.9)
        connection.data_received(b":1\r\n")
        connection.patience = 10.0
        connection.send(b"", [three])
        await sleep(9.9)
        assert connection.open
        await sleep(0.2)
        assert not connection.open

    simulate(scenario)


@pytest.mark.real
async def test_the_greeting():
    async with FakeServer() as server:
        target = parse(f"{server.url.replace('unix://', 'unix://u:p@')}?db=3")
        connection = await connect(target, target.addresses[0], patience=5)
        assert server.seen == [
            [b"AUTH", b"u", b"p"],
            [b"SELECT", b"3"],
            [b"CLIENT", b"SETNAME", b"aiopatterns"],
        ]
        connection.drop("end")
        await connection.gone
        connection = await connect(
            parse(f"{server.url.replace('unix://', 'unix://:p@')}"),
            target.addresses[0],
            patience=5,
        )
        assert server.seen[3:] == [[b"AUTH", b"p"], [b"CLIENT", b"SETNAME", b"aiopatterns"]]
        connection.drop("end")
        await connection.gone


@pytest.mark.real
async def test_a_name_that_is_refused_does_not_matter():
    answer = lambda words: b"-NOPERM no\r\n"
    async with FakeServer(answer, greet=False) as server:
        connection = await connect(PLAIN, Address(str(server.path)), patience=5)
        assert connection.open
        connection.drop("end")
        await connection.gone


@pytest.mark.real
@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        (
            lambda words: b"-WRONGPASS no\r\n" if words[0] == b"AUTH" else OK,
            RefusalError,
            "WRONGPASS",
        ),
        (lambda words: None, UnsentError, "closed the connection"),
        (lambda words: b"HTTP/1.1\r\n", UnsentError, "no Redis protocol"),
        (lambda words: b"", UnsentError, "no answer within 0.1 s"),
    ],
)
async def test_a_greeting_that_fails(answer, kind, why):
    async with FakeServer(answer, greet=False) as server:
        target = parse(server.url.replace("unix://", "unix://:p@"))
        with pytest.raises(kind, match=why):
            await connect(target, target.addresses[0], patience=0.1 if "within" in why else 5)


@pytest.mark.real
async def test_a_connection_that_breaks_behind_its_greeting(monkeypatch):
    async def greet(connection, target):
        connection.drop("cut")

    monkeypatch.setattr("aiopatterns.backends.redis.connection._greet", greet)
    async with FakeServer() as server:
        with pytest.raises(UnsentError, match="the connection broke"):
            await connect(PLAIN, Address(str(server.path)), patience=5)


@pytest.mark.real
async def test_nobody_is_there(tmp_path):
    with pytest.raises(UnsentError, match="No such file"):
        await connect(PLAIN, Address(str(tmp_path / "none")), patience=5)
    with pytest.raises(UnsentError, match=r"127\.0\.0\.1:1"):
        await connect(PLAIN, Address("127.0.0.1", 1), patience=5)
    with pytest.raises(UnsentError, match="x" * 64):
        await connect(PLAIN, Address("x" * 64, 1), patience=5)


@pytest.mark.real
async def test_a_cancelled_attempt_leaves_nothing():
    async with FakeServer(lambda words: b"", greet=False) as server:
        task = asyncio.create_task(connect(PLAIN, Address(str(server.path)), patience=5))
        while not server.seen:
            await sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while server.writers:
            await sleep(0.001)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    home, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    leaf = authority.issue_cert("localhost")
    leaf.private_key_pem.write_to_path(home / "key")
    for each in (*leaf.cert_chain_pems, authority.cert_pem):
        each.write_to_path(home / "cert", append=True)
    return home


@pytest.mark.real
async def test_tls(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert", certificate / "key")
    seen = []

    async def serve(reader, writer):
        seen.append(await reader.readuntil(b"aiopatterns\r\n"))
        writer.write(OK)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "localhost", 0, ssl=context)
    async with server:
        address = Address("localhost", server.sockets[0].getsockname()[1])
        known = parse(f"rediss://localhost?ca={certificate}/cert")
        connection = await connect(known, address, patience=5)
        assert seen == [pack(("CLIENT", "SETNAME", "aiopatterns"))]
        connection.drop("end")
        await connection.gone
        with pytest.raises(UnsentError, match="CERTIFICATE_VERIFY_FAILED"):
            await connect(parse("rediss://localhost"), address, patience=5)
        with pytest.raises(UnsentError, match=r"cannot use '/none': .*No such file"):
            await connect(parse("rediss://localhost?ca=/none"), address, patience=5)


def test_the_certificate_of_the_client(certificate):
    target = parse(f"rediss://h?cert={certificate}/cert&key={certificate}/key")
    assert isinstance(tls_context(target), ssl.SSLContext)
