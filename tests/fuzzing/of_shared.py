"""What the lower rooms read: headers, addresses, records of a backend, caches and peers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any
from zlib import crc32

import msgspec

from aiopatterns.backends import queueevents, url
from aiopatterns.backends.publishing import Published, _decoded
from aiopatterns.backends.queue import NewJob, QueueEvent, UniqueKey
from aiopatterns.backends.redis import info, queuewire
from aiopatterns.backends.redis import log as redislog
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.cache import envelope
from aiopatterns.cache.farnames import FarNames
from aiopatterns.cache.invalidation import News
from aiopatterns.cache.rules import Rule, Rules
from aiopatterns.cluster import messages, record, tcpframes
from aiopatterns.cluster.instance import ServiceInstance
from aiopatterns.cluster.secret import PROOF_BYTES, SEAL_BYTES, Seal
from aiopatterns.cluster.tcpaddress import at_loopback, everywhere, host_and_port
from aiopatterns.core import codec
from aiopatterns.core.errors import BackendError
from aiopatterns.resilience.idempotency import _record_of
from aiopatterns.resilience.sharing import _vote_of
from tests.fuzzing.mutation import Shape
from tests.fuzzing.target import Target, text

__all__ = ["TARGETS"]


class Deaf:
    """A cache that is told what to forget; keys are looked up, as a real one does."""

    def forget(self, keys: Any) -> None:
        assert len({hash(key) for key in keys}) <= len(keys)

    forget_tags = forget

    def forget_matching(self, pattern: str) -> None:
        assert isinstance(pattern, str)

    def forget_all(self) -> None: ...


def hear(data: bytes) -> None:
    news: News[str] = News(Deaf())
    news.hear(data)
    news.look()


def rules(data: bytes) -> None:
    found = Rules.opened(data)
    found.allows(b"\x01" * 8, "user:1")
    found.allows(data[:8], "user:" + "a" * 40)
    found.sealed()


def summed(body: bytes) -> bytes:
    """A cache's envelope with the checksum that its body needs."""
    whole = envelope.sealed(VALUE, 1)
    at = len(envelope._VALUE)
    return whole[:at] + envelope._SUM.pack(crc32(body)) + body


VALUE = envelope.Envelope(b'{"id":1}', 10.0, 20.0, 0.5, (("user", b"v" * 8), ("org", b"w" * 8)))
SEALED = envelope.sealed(VALUE, 1)
BODY = SEALED[len(envelope._VALUE) + envelope._SUM.size :]


def answered(data: bytes) -> None:
    """Let a wire read an answer that a stranger gives."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:65_536])
        theirs.shutdown(socket.SHUT_WR)
        wire = object.__new__(Wire)
        wire._where, wire._socket = "here", ours
        wire._stream = ours.makefile("rb")
        with wire._stream:
            try:
                wire.call("PING")
            except OSError as error:
                raise BackendError(str(error)) from error


KEY = b"of this connection alone"


def framed(body: bytes) -> bytes:
    """A body as a frame with the seal that it needs."""
    size = (len(body) + SEAL_BYTES).to_bytes(4, "big")
    return size + Seal(KEY).next(body) + body


def frames(data: bytes) -> None:
    reader = tcpframes.Frames(Seal(KEY))
    for at in range(0, len(data), 1_000):
        reader.feed(data[at : at + 1_000])


def address(data: bytes) -> None:
    host, _ = host_and_port("address", text(data))
    at_loopback(host)
    everywhere(host)


def hello(data: bytes) -> None:
    head = data[: tcpframes.HEAD_BYTES].ljust(tcpframes.HEAD_BYTES, b"\0")
    more = tcpframes.rest_of_hello(head)
    assert more <= tcpframes.MAX_ADDRESS + PROOF_BYTES
    tcpframes.read_hello(data[tcpframes.HEAD_BYTES :])


def target_of(data: bytes) -> None:
    found = url.parse(text(data))
    if found.password == "secret" and data.count(b"secret") == 1:
        assert "secret" not in f"{found!r} {found.url} {url.masked(text(data))}"


INSTANCE = ServiceInstance("users", "10.0.0.1", 8_000, id="a-1", metadata={"zone": "1"})
CLAIM = ["n1", "10.0.0.1:7000", 3, 0, ""]
RUMOUR = ["n1", 5, 1, b"\x01"]
HAVE = ["n1", 5, 7, [9, 11]]


def versioned(kind: int = 1) -> Callable[[bytes], bytes]:
    return lambda data: bytes((kind,)) + data


PUBLISHED = Published(
    kind="worker", name="mails", host="h", pid=7, number="1", started_at=1e9, figures={"done": 3}
)
HEADER = ["c-1", "00-" + "a" * 32 + "-" + "b" * 16 + "-01", 1.5, 1e9, 2]
EVENTS = queueevents.pack_events(
    [QueueEvent("started", "j-1"), QueueEvent("done", "j-2", b"result")]
)
STORED = (
    queuewire.pack(NewJob("j-1", b"body")),
    queuewire.pack(NewJob("j-2", b"body", after=("j-1",), unique=UniqueKey("k"))),
)


def served(data: bytes) -> None:
    told = info.facts(data)
    info.version_of(told)
    info.EvictionRisk.of("redis://", told)


def turned(data: bytes) -> None:
    queuewire.turned([[b"j-1", data], [], [], [], 0, -1, 1_000, -1])


TARGETS = (
    Target(
        "core.codec",
        codec.unpack,
        (
            codec.pack(codec.Header(), b"payload"),
            codec.pack(codec.Header("c", None, 1.0, 2.0, 3), b""),
        ),
        (
            Shape(
                HEADER,
                lambda data: b"\x01" + min(len(data), 65_535).to_bytes(2, "big") + data + b"x",
            ),
        ),
    ),
    Target(
        "core.codec",
        codec.JSON.decode,
        shapes=(Shape({"a": [1, 2.5, None, "x"]}, codec="json"),),
        name="json",
    ),
    Target(
        "core.codec",
        codec.MSGPACK.decode,
        shapes=(Shape({"a": [1, 2.5, None, "x", b"y"]}),),
        name="msgpack",
    ),
    Target(
        "backends.url",
        target_of,
        (
            b"redis://user:secret@localhost:6379/3",
            b"rediss://:secret@[::1]:6380?ca=/x&cert=/y&key=/z",
            b"redis+sentinel://:secret@a:1,b:2/master/0?sentinel_password=secret",
            b"redis+cluster://a:1,b:2,c?tls=1",
            b"unix://:secret@/run/redis.sock?db=2",
            b"memory://",
            b"embedded:///var/data",
        ),
        errors=(ValueError,),
    ),
    Target(
        "backends.redis.wire",
        answered,
        (
            b"+PONG\r\n",
            b":12\r\n",
            b"$5\r\nhello\r\n",
            b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
            b"$-1\r\n",
        ),
        hostile=(b"-ERR no\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$99999999999999\r\n"),
        errors=(BackendError,),
    ),
    Target("backends.queueevents", lambda data: list(queueevents._unpack(data)), (EVENTS,)),
    Target("backends.redis.queuewire", turned, STORED, name="job"),
    Target(
        "backends.redis.queuewire",
        queuewire.outcome,
        (b"d3:4:null", b"c1:0:", b"x3 5:error" + STORED[0]),
        name="outcome",
    ),
    Target(
        "backends.redis.queuewire",
        lambda data: queuewire.page("dead", [b"j-1", data, 1, 1_000]),
        (b"3 5:error" + STORED[0],),
        name="letter",
    ),
    Target(
        "backends.redis.log",
        lambda data: redislog._letter(b"1-1", data),
        (b"3:5:errorpayload",),
        errors=(),
    ),
    Target(
        "backends.redis.info",
        served,
        (b"redis_version:7.0.15\r\nmaxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\n",),
        errors=(),
    ),
    Target(
        "backends.publishing",
        _decoded,
        shapes=(Shape(msgspec.to_builtins(PUBLISHED)),),
        errors=(),
    ),
    Target(
        "cache.envelope",
        lambda data: (
            envelope.opened(data, 1),
            envelope.opened(data, None),
            envelope.is_tombstone(data),
        ),
        (SEALED, envelope.tombstone(), summed(BODY)),
        errors=(),
    ),
    Target(
        "cache.envelope",
        lambda data: envelope.opened(summed(data), None),
        (BODY,),
        errors=(),
        name="summed",
    ),
    Target(
        "cache.rules",
        rules,
        (Rules(b"basemk\x00\x03", (Rule(3, 1e9, "user:*"),)).sealed(),),
        (
            Shape(
                [[4, 1e9, "org:*"], [5, 1e9, "user:*[a-z]?"]], lambda data: b"basemk\x00\x02" + data
            ),
        ),
        errors=(),
    ),
    Target(
        "cache.invalidation",
        hear,
        shapes=(
            Shape([1, b"originor", 7, 1, ["user:1", b"x", 3]]),
            Shape([1, b"originor", 7, 2, ["tag"]]),
            Shape([1, b"originor", 7, 4, ["user:*"]]),
            Shape([1, b"originor", 7, 0, []]),
        ),
        errors=(),
    ),
    Target(
        "cache.farnames",
        lambda data: FarNames("c").shown(text(data)),
        (b"cache:c:k:suser:1", b"cache:c:k:i17", b"cache:c:k:b6162", b"cache:c:k:#abc"),
        errors=(),
    ),
    Target("resilience.sharing", _vote_of, shapes=(Shape([1e9]), Shape([None]))),
    Target(
        "resilience.idempotency", _record_of, shapes=(Shape([True, b"print", "owner", b"\x01"]),)
    ),
    Target("cluster.tcpframes", frames, (framed(b"\x02\0\0\0\x01payload"),), name="frames"),
    Target(
        "cluster.tcpframes",
        lambda data: frames(framed(data)),
        (b"\x01\0\0\0\0payload",),
        name="sealed",
    ),
    Target(
        "cluster.tcpframes",
        hello,
        (tcpframes.opening(b"n" * 16, "10.0.0.1:7000", sealed=True) + b"p" * PROOF_BYTES,),
        name="hello",
    ),
    Target(
        "cluster.tcpaddress",
        address,
        (b"10.0.0.1:7000", b"[::1]:7000", b"localhost:1", b"example.org:65535"),
        errors=(ValueError,),
    ),
    Target(
        "cluster.messages",
        messages.packet_of,
        shapes=(
            Shape(["c", "n1", "10.0.0.1:7000", 3, [1, 9, "n2"], [CLAIM], [RUMOUR]], versioned()),
            Shape(["c", "n1", "10.0.0.1:7000", 3, None, [], []], versioned()),
        ),
        name="packet",
    ),
    Target(
        "cluster.messages",
        messages.request_of,
        shapes=tuple(
            Shape(["c", "n1", "10.0.0.1:7000", body], versioned())
            for body in (
                [1, [CLAIM], [HAVE], True],
                [2, "n2", 4],
                [3, [RUMOUR]],
                [4, "n2", b"letter"],
            )
        ),
        name="request",
    ),
    Target(
        "cluster.messages",
        messages.answer_of,
        shapes=tuple(
            Shape(body, versioned())
            for body in ([1, 3], [2, [CLAIM], [HAVE], [RUMOUR]], [3, "taken", "10.0.0.1:7000"])
        ),
        name="answer",
    ),
    Target(
        "cluster.record",
        lambda data: record.read("users", "a-1", data),
        shapes=(
            Shape(msgspec.json.decode(record.written(INSTANCE, "ready", epoch=5)), codec="json"),
        ),
    ),
)
