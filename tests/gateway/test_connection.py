"""One connection, driven as the loop drives it: what arrives, and what that does to it."""

from __future__ import annotations

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from aiopatterns.core.clock import Alarms, Home
from aiopatterns.core.errors import UpstreamError
from aiopatterns.gateway.answer import Answer
from aiopatterns.gateway.connection import Connection
from aiopatterns.testing import simulate

HEAD = b"HTTP/1.1 200 OK\r\n"
OK = HEAD + b"content-length: 5\r\n\r\nhello"


class Wire:
    """The loop's transport."""

    def __init__(self) -> None:
        self.data = b""
        self.told: list[str] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.data += data

    def abort(self) -> None:
        self.told.append("abort")
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.told.append("pause")

    def resume_reading(self) -> None:
        self.told.append("resume")


class Keeper:
    """The pool."""

    name = "service:80"

    def __init__(self) -> None:
        self.back: list[Connection] = []
        self.gone: list[Connection] = []

    def give_back(self, connection: Connection) -> None:
        self.back.append(connection)

    def lost(self, connection: Connection) -> None:
        self.gone.append(connection)


class Pump:
    """The task that writes a body."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def cancel(self) -> None:
        self.told.append("cancel")

    async def settled(self) -> None:
        self.told.append("settled")


class Line:
    """A connection that is made, with what it stands on."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.keeper = Keeper()
        self.wire = Wire()
        self.alarms = Alarms(seconds)
        self.connection = Connection(Home(), self.keeper)
        self.connection.connection_made(self.wire)

    def ask(self, method: bytes = b"GET", *, whole: bool = True) -> Answer:
        answer = self.connection.begin(method, b"request", self.alarms, self.alarms)
        if whole:
            self.connection.sent()
        return answer

    def closed(self, answer: Answer, kind: str) -> UpstreamError:
        """Check that the exchange failed, and that the connection is closed for ever."""
        error = answer.error
        assert isinstance(error, UpstreamError)
        assert (error.kind, error.sent, error.name) == (kind, True, "service:80")
        assert (self.connection.open, self.connection.usable) == (False, False)
        assert self.keeper.gone == [self.connection]
        assert self.keeper.back == []
        return error


async def test_it_is_used_again_after_a_whole_exchange():
    line = Line()
    assert line.connection.usable
    assert not line.connection.used
    for count in (1, 2):
        answer = line.ask()
        for octet in b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + OK:
            line.connection.data_received(bytes([octet]))
        assert (answer.status, answer.whole()) == (200, b"hello")
        assert answer.headers == [(b"content-length", b"5")]
        assert line.keeper.back == [line.connection] * count
    assert line.connection.used
    assert line.wire.data == b"requestrequest"
    line.connection.drop()


async def test_a_head_without_a_body_ends_an_answer_to_head():
    line = Line()
    for head in (b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b""):
        answer = line.ask(b"HEAD")
        line.connection.data_received(HEAD + head + b"\r\n")
        assert answer.whole() == b""
    assert len(line.keeper.back) == 3
    answer = line.ask(b"HEAD")
    line.connection.data_received(HEAD + b"connection: close\r\n\r\n")
    assert answer.whole() == b""
    assert not line.connection.open


async def test_a_body_to_head_breaks_the_connection():
    line = Line()
    answer = line.ask(b"HEAD")
    line.connection.data_received(OK)
    line.closed(answer, "invalid")


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\n", OK, b"\r\n"])
async def test_what_nobody_has_asked_for_closes_it(data: bytes):
    line = Line()
    line.connection.data_received(data)
    assert not line.connection.usable
    assert line.wire.told == ["abort"]
    line.connection.drop()  # once more does nothing
    line.connection.late()
    assert line.wire.told == ["abort"]
    assert line.keeper.gone == [line.connection]


async def test_more_than_was_asked_for_closes_it():
    line = Line()
    answer = line.ask()
    line.connection.data_received(OK + OK)
    assert answer.whole() == b"hello"
    assert not line.connection.usable


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n", "coding"),
        (b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", r"HTTP/1\.0"),
        (b"HTTP/1.1 099 Low\r\n\r\n", "status 99"),
        (b"HTTP/1.1 101 S\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "switched"),
        (HEAD + b"x: " + b"a" * 70_000, "more than 65536 bytes"),
        (HEAD + b"x: " + b"a" * 70_000 + b"\r\n\r\n", "more than 65536 bytes"),
        (HEAD + b"content-length: 5\r\ncontent-length: 5\r\n\r\n", "rules of HTTP"),
    ],
)
async def test_a_head_that_breaks_the_rules(data: bytes, why: str):
    line = Line()
    answer = line.ask()
    line.connection.data_received(data)
    assert answer.status == 0
    assert why.replace("\\", "") in str(line.closed(answer, "invalid"))


async def test_a_large_body_behind_a_small_head_is_no_large_head():
    line = Line()
    answer = line.ask()
    line.connection.data_received(HEAD + b"content-length: 70000\r\n\r\n" + b"x" * 70_000)
    assert len(answer.whole() or b"") == 70_000
    assert line.wire.told == ["pause", "resume"]


async def test_trailers_are_dropped():
    line = Line()
    answer = line.ask()
    line.connection.data_received(
        HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\nx-trailer: 1\r\n\r\n"
    )
    assert answer.whole() == b"he"
    assert answer.headers == [(b"transfer-encoding", b"chunked")]
    assert line.keeper.back == [line.connection]


async def test_the_end_of_the_connection_ends_a_body_without_a_length():
    line = Line()
    answer = line.ask()
    line.connection.data_received(HEAD + b"\r\nhello")
    assert answer.whole() is None
    line.connection.eof_received()
    line.connection.connection_lost(None)
    assert answer.whole() == b"hello"
    assert not line.connection.usable


@pytest.mark.parametrize(
    ("data", "lost"),
    [
        (b"", None),
        (b"HTTP/1.1 200", None),
        (HEAD + b"content-length: 9\r\n\r\nhello", None),
        (HEAD + b"\r\nhello", ConnectionResetError("reset")),
    ],
)
async def test_a_connection_that_ends_too_early(data: bytes, lost: Exception | None):
    line = Line()
    answer = line.ask()
    if data:
        line.connection.data_received(data)
    assert line.connection.heard == bool(data)
    line.connection.connection_lost(lost)
    error = line.closed(answer, "closed")
    assert ("reset" if lost else "the service closed the connection") in str(error)


def test_an_answer_that_does_not_come_is_late():
    async def scenario() -> None:
        line = Line(5.0)
        answer = line.ask()
        await answer.arrival()
        assert anyio.current_time() == 5.0
        assert "no answer in time" in str(line.closed(answer, "timeout"))

    simulate(scenario)


def test_a_body_that_stops_is_late():
    async def scenario() -> None:
        line = Line(5.0)
        answer = line.ask()
        line.connection.data_received(HEAD + b"content-length: 9\r\n\r\nhello")
        assert await anext(answer) == b"hello"
        with pytest.raises(UpstreamError, match="no more of the body in time"):
            await anext(answer)
        line.closed(answer, "timeout")

    simulate(scenario)


def test_the_wait_for_an_answer_begins_when_the_request_was_written():
    async def scenario() -> None:
        line = Line(5.0)
        answer = line.ask(whole=False)
        await anyio.sleep(100)
        assert answer.error is None
        line.connection.put(b"body")
        line.connection.sent()
        await answer.arrival()
        assert anyio.current_time() == 105.0
        assert line.wire.data == b"requestbody"

    simulate(scenario)


async def test_an_answer_before_the_request_has_ended_closes_it():
    line = Line()
    pump = line.connection.pump = Pump()
    answer = line.ask(whole=False)
    line.connection.data_received(OK)
    assert answer.whole() == b"hello"
    assert pump.told == ["cancel"]
    assert not line.connection.usable
    line.connection.put(b"more")
    assert line.wire.data == b"request"
    await line.connection.settled()
    assert pump.told == ["cancel", "settled"]


async def test_a_head_before_the_request_has_ended_sets_no_alarm():
    line = Line()
    line.connection.pump = Pump()
    answer = line.ask(whole=False)
    line.connection.data_received(HEAD + b"content-length: 5\r\n\r\nhe")
    line.connection.sent()
    line.connection.data_received(b"llo")
    assert answer.whole() == b"hello"
    assert line.keeper.back == [line.connection]
    await line.connection.settled()
    line.connection.drop()


async def test_a_request_that_cannot_be_had_to_its_end_keeps_its_error():
    line = Line()
    answer = line.ask(whole=False)
    error = LookupError("the client has gone")
    line.connection.spoilt(error)
    assert answer.error is error
    assert not line.connection.open
    line.connection.spoilt(error)  # nobody is left to be told
    line.connection.pause()
    line.connection.resume()
    assert line.wire.told == ["abort"]


async def test_writing_waits_while_the_loop_holds_enough():
    line = Line()
    await line.connection.drained()
    drained: list[bool] = []

    async def drain() -> None:
        await line.connection.drained()
        drained.append(True)

    async with anyio.create_task_group() as tasks:
        line.connection.pause_writing()
        assert not line.connection.writable
        tasks.start_soon(drain)
        await wait_all_tasks_blocked()
        assert not drained
        line.connection.resume_writing()
    assert drained
    line.connection.drop()


async def test_one_that_was_given_up_while_it_was_made_is_closed():
    keeper, wire = Keeper(), Wire()
    connection = Connection(Home(), keeper)
    assert not connection.usable
    connection.drop()
    connection.connection_made(wire)
    assert wire.told == ["abort"]
    assert keeper.gone == [connection]


async def test_one_that_the_loop_closes_is_not_usable():
    line = Line()
    line.wire.closing = True
    assert not line.connection.usable
    line.connection.connection_lost(None)
    assert line.keeper.gone == [line.connection]
