"""What jobs, messages, stores and the main job read: envelopes, frames, records, journals."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from aiopatterns.core.codec import JSON, MSGPACK, Header, codec_mark, pack
from aiopatterns.core.errors import BackendError, CodecError, RemoteError
from aiopatterns.data import sqllogs
from aiopatterns.data.changelog import _CHECKPOINT
from aiopatterns.data.checkpoint import History
from aiopatterns.data.clock import Stamp
from aiopatterns.data.counter import PNCounter, merge_counters
from aiopatterns.data.draft import State
from aiopatterns.data.orset import ORSet, merge_sets
from aiopatterns.data.position import Position
from aiopatterns.data.record import Record, head, packed, unpacked
from aiopatterns.data.redisparticipant import Cell, TransactionRecord, _cell_of, _record_of
from aiopatterns.data.sagajournal import Journal, Note, StepState, read_journal
from aiopatterns.data.sagaredis import _noted_at
from aiopatterns.data.sagaredis import _record_of as _filed_of
from aiopatterns.data.sqliteparticipant import _work_of
from aiopatterns.data.sqlstore import _row_of
from aiopatterns.data.vector import VersionVector
from aiopatterns.data.version import Versioned
from aiopatterns.jobs.envelope import Envelope, ErrorRecord
from aiopatterns.jobs.envelope import Envelopes as JobEnvelopes
from aiopatterns.jobs.schedule import Schedule
from aiopatterns.jobs.signature import Signature
from aiopatterns.messaging import frames, listing, remote
from aiopatterns.messaging.callplan import CallPlan
from aiopatterns.messaging.callplan import Shape as HandlerShape
from aiopatterns.messaging.envelope import Envelopes
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.scribe import Scribe
from aiopatterns.messaging.topics import topic_name, topic_pattern
from aiopatterns.processor import wire
from aiopatterns.processor.tokens import Bag, names, take_apart, unpack, words
from tests.fuzzing.mutation import Shape
from tests.fuzzing.target import Target, driven, text

__all__ = ["TARGETS"]

JOBS = JobEnvelopes((JSON, MSGPACK))
SIGNED = JobEnvelopes(MSGPACK, signing=["k" * 16])
MESSAGES = Envelopes((JSON, MSGPACK))
SCRIBE = Scribe(MSGPACK, max_bytes=1 << 20)
CALL = Envelope("mail", ["a@b", 1], {"urgent": True}, 1e9, Header("c-1", None, 1.0, 1e9))
MESSAGE = Message(type="order.created", topic="orders", payload={"id": 17}, headers={"a": "b"})
MARK = codec_mark(MSGPACK)
JSON_MARK = codec_mark(JSON)
HEADER = pack(Header(), b"")
BODY = ["m-1", "order.created", 1, "event", "orders", None, None, None, 1, {"a": "b"}, {"id": 17}]
STAMP = Stamp(1_700_000_000_000, 0, "a")


def version(value: Any) -> Versioned:
    return Versioned("k", value, STAMP, STAMP, VersionVector({"a": 1}), "a")


ROW = packed(Record("k", 1, (version({"id": 1}),), {}, shared=False, changed_at=1e9))
LEAF = [{"id": 1}, [*STAMP], [*STAMP], {"a": 3}, "a", False, [], None]
MERGED = [*LEAF[:6], [LEAF, LEAF], LEAF]
NOTE = [StepState.DONE.value, 1, ""]
FILED = ["orders", "s-1", "v1", "running", "owner", 1, 2, b"journal"]


def opened(data: bytes) -> None:
    frame = frames.open_frame(data)
    if isinstance(frame, frames.Delivery):
        MESSAGES.decode(frame.envelope)
    elif frame.outcome is frames.Outcome.ERROR:
        assert isinstance(remote.raised(frame.body), RemoteError)
    else:
        SCRIBE.read(frame.body)


def told(data: bytes) -> None:
    found = remote.raised(data)
    str(found), repr(found)
    remote.described(found)


def record(data: bytes) -> None:
    found = unpacked(ROW._replace(body=data))
    packed(found)


def counted(data: bytes) -> None:
    state = MSGPACK.decode(data)
    left = PNCounter(state)
    assert merge_counters(None, left.state, state) == left.state


def united(data: bytes) -> None:
    state = MSGPACK.decode(data)
    left = ORSet(state)
    assert merge_sets(None, left.state, state) == left.state


def job_result(data: bytes) -> None:
    JOBS.decode_result(data)
    JOBS.decode_result(data, dict[str, int])


def checkpoint(data: bytes) -> None:
    found = _CHECKPOINT.fullmatch(text(data))
    assert found is None or int(found[2]) >= 0


def topics(data: bytes) -> None:
    topic_pattern("topic", text(data))
    topic_name("topic", text(data))


def source(data: bytes) -> None:
    found = take_apart(data.decode("utf-8", "replace"))
    names(found.code)
    words(data)


async def job(
    ids: list[int], at: datetime, *rest: str, ratio: float = 1.0, **more: bool
) -> None: ...


async def handler(payload: dict[str, tuple[int, Decimal]]) -> None: ...


JOB = Signature(job)
PLAN = CallPlan(handler, HandlerShape(handler, payload=True), None)


def called(data: bytes) -> None:
    call = JOBS.decode(data)
    JOB.convert(call.args, call.kwargs)


def handled(data: bytes) -> None:
    begun = PLAN.begin(cast("Any", SimpleNamespace(handler="h", service="s")), MSGPACK.decode(data))
    driven(cast("Coroutine[Any, Any, Any]", begun))


def decided(data: bytes) -> None:
    body = data.decode("utf-8", "replace")  # as a database gives text
    checked = sqllogs._checked("g", "commit", body)
    sqllogs._record(["g", "commit", body, checked, 1.0, "{}", 0, "", None])


TARGETS = (
    Target(
        "jobs.envelope",
        JOBS.decode,
        (JOBS.encode(CALL),),
        (
            Shape(["mail", 1e9, ["a", 1], {"b": 2}], lambda data: b"\x01" + HEADER + MARK + data),
            Shape(["mail", 1e9, [], {}], lambda data: b"\x01" + HEADER + JSON_MARK + data, "json"),
        ),
        hostile=(SIGNED.encode(CALL),),
        name="call",
    ),
    Target(
        "jobs.envelope",
        SIGNED.decode,
        (SIGNED.encode(CALL),),
        hostile=(JOBS.encode(CALL),),
        name="signed",
    ),
    Target(
        "jobs.envelope",
        job_result,
        shapes=(Shape({"a": 1}, lambda data: b"\x01" + MARK + data),),
        name="result",
    ),
    Target(
        "jobs.envelope",
        lambda data: (JOBS.read_error(data), JOBS.decode_error(data)),
        (JOBS.encode_error(ErrorRecord("E", "m", "t")),),
        (Shape(["E", "m", "t"], lambda data: b"\x01" + data),),
        name="error",
    ),
    Target(
        "jobs.schedule",
        lambda data: Schedule(text(data)),
        (b"*/5 * * * *", b"0 0 9-17/2 1,15 * mon-fri", b"0 12 L * *", b"0 0 * * 5#2"),
        errors=(ValueError,),
    ),
    Target(
        "jobs.signature",
        called,
        shapes=(
            Shape(
                ["job", 1e9, [[1, 2], "2025-01-01T00:00:00Z", "x"], {"ratio": 0.5, "extra": True}],
                lambda data: b"\x01" + HEADER + MARK + data,
            ),
        ),
    ),
    Target(
        "messaging.callplan",
        handled,
        shapes=(Shape({"a": [1, "2.50"], "b": [2, "3"]}),),
        errors=(CodecError, RemoteError),
    ),
    Target(
        "data.sqllogs",
        decided,
        shapes=(Shape([[["a", "p"]], "c", 1.0, 2.0, 1], codec="json"),),
        errors=(BackendError,),
    ),
    Target(
        "messaging.envelope",
        MESSAGES.decode,
        (MESSAGES.encode(MESSAGE),),
        (
            Shape(BODY, lambda data: HEADER + MARK + data),
            Shape(BODY, lambda data: HEADER + JSON_MARK + data, "json"),
        ),
    ),
    Target(
        "messaging.frames+messaging.scribe",
        opened,
        (
            frames.pack_delivery([1], MESSAGES.encode(MESSAGE)),
            frames.pack_delivery([1, 2, 3], MESSAGES.encode(MESSAGE)),
            frames.pack_reply(7, frames.Outcome.VALUE, SCRIBE.write({"a": 1})),
            frames.pack_reply(7, frames.Outcome.ERROR, remote.described(ValueError("no"))),
        ),
        hostile=(frames.pack_reply(7, frames.Outcome.ABSENT),),
    ),
    Target(
        "messaging.remote",
        told,
        shapes=(Shape(["ValueError", "no", "code", True, {"a": [1]}]),),
    ),
    Target(
        "messaging.listing",
        lambda data: (listing.read_listing(data), listing.read_edition(data)),
        shapes=(Shape([3, [[1, "orders.*", "g", True], [2, "x", None, False]]]),),
        errors=(),
    ),
    Target(
        "messaging.topics",
        topics,
        (b"orders.created", b"$SRV.PING"),
        hostile=(b"a.*.#",),
        errors=(ValueError,),
    ),
    Target(
        "data.record", record, (ROW.body,), (Shape([[LEAF], False]), Shape([[MERGED, LEAF], True]))
    ),
    Target(
        "data.record",
        lambda data: head("k", 1, data),
        (ROW.vectors,),
        (Shape([{"a": 3, "b": 1}]),),
        name="vectors",
    ),
    Target(
        "data.sqlstore",
        _row_of,
        shapes=(Shape(msgspec.to_builtins([*ROW], builtin_types=(bytes,))),),
    ),
    Target("data.checkpoint", History.unpack, shapes=(Shape({"reached": {"s": 3}}),), errors=()),
    Target("data.draft", State.unpack, shapes=(Shape(msgspec.to_builtins(State("a", "e", 3))),)),
    Target("data.changelog", checkpoint, (b"abcdef12:300",), errors=()),
    Target(
        "data.position",
        lambda data: Position.parse(text(data)),
        (b"16/B374D848",),
        errors=(ValueError,),
    ),
    Target(
        "data.sagajournal",
        read_journal,
        (MSGPACK.encode(Journal(b"", {"pay": Note(StepState.DONE)})),),
        (Shape([b"context", {"pay": NOTE, "ship": NOTE}, True, "why", 1e9, "c-1"]),),
    ),
    Target("data.sagaredis", _filed_of, shapes=(Shape([FILED, 1e9]),)),
    Target("data.sagaredis", _noted_at, shapes=(Shape(1e9),), name="time"),
    Target(
        "data.redisparticipant",
        _cell_of,
        (MSGPACK.encode(Cell(b"v", "g", b"n")),),
        (Shape([b"v", "g", None]),),
        name="cell",
    ),
    Target(
        "data.redisparticipant",
        _record_of,
        (MSGPACK.encode(TransactionRecord("prepared", ["k"], 1e9)),),
        (Shape(["prepared", ["k"], 1e9]),),
        name="record",
    ),
    Target("data.sqliteparticipant", _work_of, shapes=(Shape([["UPDATE t", [1, "x", None]]]),)),
    Target(
        "data.counter",
        counted,
        shapes=(Shape(PNCounter().add("a", 3).add("b", -2).state),),
        errors=(CodecError, ValueError, TypeError),
    ),
    Target(
        "data.orset",
        united,
        shapes=(Shape(ORSet().add("a", "x", "y").remove("x").state),),
        errors=(CodecError, ValueError, TypeError),
    ),
    Target(
        "processor.wire",
        wire.read_chunk,
        shapes=(Shape([1, b"/r", [[b"a.py", [b"p"]]], 10]),),
        name="chunk",
    ),
    Target(
        "processor.wire",
        wire.read_counted,
        shapes=(Shape([[[b"p", [b"a b", b"\1" * 16]]], [[b"a", b"why"]]]),),
        name="counted",
    ),
    Target(
        "processor.tokens",
        lambda data: unpack(Bag(data[:-16], data[-16:])),
        (b"a b" + b"\1" * 16,),
        name="bag",
    ),
    Target(
        "processor.tokens", source, (b"def f(x):\n    return 'a' # b\n",), errors=(), name="source"
    ),
)
