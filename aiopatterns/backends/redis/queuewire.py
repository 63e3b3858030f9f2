"""How jobs, turns and their answers look on the wire and in the store.

A stored job is one value::

    flags 1 | priority 1 | attempts 4 | keep (ms) 8 | [size 4 | extras] | body

Flags say what else there is: 1 after, 2 a unique key, 4 limits; if nothing, there are no extras,
and no script looks beyond the first byte on the way from the enqueue to the result. Extras are a
msgpack list ``[after, [key, mode, window] or false, [[key, concurrency, interval, slack], ...]]``;
modes are d drop, t throttle, b debounce, k keep_last.
All numbers are big-endian.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from msgspec import msgpack

from aiopatterns.backends.queue import ClaimedJob, Enqueued, Outcome, StoredJob, Turned
from aiopatterns.backends.queuetimes import due_in, spacing, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiopatterns.backends.queue import Bucket, How, JobState, NewJob, Turn, UniqueMode

__all__ = [
    "HEADER",
    "enqueue_words",
    "enqueued",
    "held",
    "next_end",
    "outcome",
    "pack",
    "page",
    "turn_words",
    "turned",
]

_HEADER: Final = struct.Struct(">BBIQ")
#: Bytes before the body of a job without extras.
HEADER: Final = _HEADER.size
_AFTER, _UNIQUE, _LIMITS = 1, 2, 4
_REAPED, _QUARANTINE, _MORE, _PAUSED, _ALONE = 1, 2, 4, 8, 16
_LETTERS: Final[Mapping[How, str]] = MappingProxyType(
    {
        "done": "d",
        "dead": "x",
        "cancelled": "c",
        "release": "l",
        "retry": "r",
        "demote": "f",
    }
)
_DELAYED: Final = frozenset({"retry", "demote"})
_MODES: Final[Mapping[UniqueMode, str]] = MappingProxyType(
    {
        "drop": "d",
        "throttle": "t",
        "debounce": "b",
        "keep_last": "k",
    }
)
_STATES: Final[Mapping[bytes, JobState]] = MappingProxyType(
    {b"d": "done", b"c": "cancelled", b"x": "dead"}
)


@lru_cache(maxsize=256)
def _head(flags: int, priority: int, attempts: int, keep: float) -> bytes:
    return _HEADER.pack(flags, priority, attempts, whole(keep))


def pack(job: NewJob) -> bytes:
    """Return the stored value of a job."""
    flags = (
        (_AFTER if job.after else 0)
        | (_UNIQUE if job.unique else 0)
        | (_LIMITS if job.limits else 0)
    )
    head = _head(flags, job.priority, job.attempts, job.keep)
    if not flags:
        return head + job.body
    unique = job.unique
    key = unique and [unique.key, _MODES[unique.mode], whole(unique.window)]
    extras = msgpack.encode([job.after, key or False, [_bucket(each) for each in job.limits]])
    return b"".join((head, len(extras).to_bytes(4, "big"), extras, job.body))


def _bucket(bucket: Bucket) -> list[str | float]:
    interval, slack = (0.0, 0.0) if bucket.rate is None else spacing(bucket.rate)
    return [bucket.key, bucket.concurrency or 0, interval, slack]


def _body(value: bytes) -> bytes:
    """Return the body of a stored job."""
    if not value[0]:
        return value[HEADER:]
    return value[HEADER + 4 + int.from_bytes(value[HEADER : HEADER + 4], "big") :]


def enqueue_words(channel: str, jobs: Sequence[NewJob], *, plain: bool) -> list[Any]:
    """Return the arguments of an enqueue; ``plain``: no job needs more than its lane."""
    words: list[Any] = [channel, "1" if plain else "0"]
    add = words.append
    if plain:
        for job in jobs:
            add(job.id)
            add(_head(0, job.priority, job.attempts, job.keep) + job.body)
        return words
    for job in jobs:
        words += (job.id, pack(job), due_in(job), "" if job.at is None else whole(job.at))
    return words


def enqueued(reply: int | list[bytes], jobs: Sequence[NewJob]) -> list[Enqueued]:
    """Read the answer to an enqueue."""
    if isinstance(reply, int):
        return [Enqueued(job.id, True) for job in jobs]
    pairs = zip(jobs, reply, strict=True)
    return [Enqueued(other.decode() or job.id, not other) for job, other in pairs]


def turn_words(channel: str, turn: Turn) -> list[Any]:
    """Return the arguments of a step."""
    worker, number, lease, settled, free, progress, leave = turn
    words: list[Any] = [channel, worker, number, whole(lease), free, "1" if leave else "0", 0]
    words[6] = len(settled)
    for job_id, how, data, delay, counted in settled:
        code = _LETTERS[how]
        if how in _DELAYED:
            code += str(whole(delay))
        words += (job_id, code if counted else code.upper(), data)
    for job_id, fraction in (progress or {}).items():
        words += (job_id, repr(float(fraction)))
    return words


def turned(reply: list[Any]) -> Turned:
    """Read the answer to a step."""
    flat, tries, stale, cancels, bits, due, now, _ = reply
    alone = bool(bits & _ALONE)
    if tries:
        triples = zip(flat[::2], flat[1::2], tries, strict=True)
        claimed = [_claimed(job_id, value, tried, alone=alone) for job_id, value, tried in triples]
    else:
        claimed = [
            ClaimedJob(job_id.decode(), _body(value) if value[0] else value[HEADER:], 1, alone)
            for job_id, value in zip(flat[::2], flat[1::2], strict=True)
        ]
    return Turned(
        claimed,
        [job_id.decode() for job_id in stale],
        [job_id.decode() for job_id in cancels],
        bool(bits & _REAPED),
        bool(bits & _QUARANTINE),
        bool(bits & _MORE),
        bool(bits & _PAUSED),
        None if due < 0 else due / 1_000,
        now / 1_000,
    )


def next_end(reply: list[Any]) -> float | None:
    """Return the seconds until the lease of another worker may end, from the answer to a step."""
    end: int = reply[-1]
    return None if end < 0 else end / 1_000


def held(flat: list[Any]) -> list[ClaimedJob]:
    """Read what a worker holds."""
    rows = zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True)
    return [
        _claimed(job_id, value, tries, alone=bool(alone)) for job_id, value, tries, alone in rows
    ]


def _claimed(id: bytes, value: bytes, tries: bytes | int | None, *, alone: bool) -> ClaimedJob:
    return ClaimedJob(id.decode(), _body(value), int(tries or 0) + 1, alone)


def outcome(record: bytes) -> Outcome:
    """Read a kept outcome, or the record of a dead letter behind an ``x``."""
    state = _STATES[record[:1]]
    if state == "dead":
        tries, error, _ = _letter(record[1:])
        return Outcome("dead", error, tries)
    tries_text, _, data = record[1:].partition(b":")
    return Outcome("done" if state == "done" else "cancelled", data, int(tries_text))


def page(state: JobState, flat: list[Any]) -> list[StoredJob]:
    """Read a page of jobs in one state."""
    rows = zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True)
    return [_stored(state, job_id.decode(), value, tries, at) for job_id, value, tries, at in rows]


def _stored(state: JobState, id: str, value: bytes, tries: int, at: int) -> StoredJob:
    error = b""
    if state == "dead":
        tries, error, value = _letter(value)
    return StoredJob(id, _body(value), state, tries, error, at / 1_000)


def _letter(record: bytes) -> tuple[int, bytes, bytes]:
    """Read a dead letter: attempts, error, stored job."""
    tries, _, rest = record.partition(b" ")
    size, _, rest = rest.partition(b":")
    return int(tries), rest[: int(size)], rest[int(size) :]
