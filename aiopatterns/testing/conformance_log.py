"""Conformance of :class:`~aiopatterns.backends.protocols.Log`: appending, reading, trimming."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, cast

from anyio import create_task_group

from aiopatterns.backends.records import GroupTurn
from aiopatterns.testing.conformance_base import Conformance, refusal

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend, Log
    from aiopatterns.backends.records import Entry

__all__ = ["LogConformance"]

CALL = "call"


class LogConformance(Conformance):
    """Tests of logs without groups; see :class:`Conformance` for what a subclass brings."""

    async def test_an_empty_log(self, backend: Backend) -> None:
        """``read`` and length of a log that nobody has written to."""
        log = backend.log("events")
        assert await log.read() == []
        assert await log.length() == 0
        assert await log.trim(max_length=10) == 0
        assert await log.append_many([]) == []
        assert await log.length() == 0

    async def test_entries_are_read_as_they_were_appended(self, backend: Backend) -> None:
        """``append_many``: "Append ``payloads`` in order, all or none; return their ids."."""
        log, payloads = backend.log("events"), [b"", bytes(range(256)), b"x" * 100_000, b"1"]
        ids = await log.append_many(payloads)
        assert len(set(ids)) == 4
        entries = await log.read()
        assert [(entry.id, entry.payload) for entry in entries] == list(
            zip(ids, payloads, strict=True)
        )
        assert await log.length() == 4
        assert await backend.log("others").read() == []

    async def test_ids_grow(self, backend: Backend) -> None:
        """Entry: ids "are text; they grow, and ``sort_key`` orders them"."""
        log = backend.log("events")
        ids = [each for _ in range(50) for each in await log.append_many([b"1", b"2"])]
        entries = await _all(log)
        assert [entry.id for entry in entries] == ids
        assert all(one.sort_key < other.sort_key for one, other in pairwise(entries))

    async def test_reading_goes_on_behind_an_id(self, backend: Backend) -> None:
        """``read``: "up to ``limit`` entries whose id is above ``after``, in order"."""
        log = backend.log("events")
        ids = await log.append_many([b"%d" % number for number in range(250)])
        first = await log.read()
        assert [entry.id for entry in first] == ids[:100]
        second = await log.read(after=first[-1].id, limit=7)
        assert [entry.payload for entry in second] == [b"%d" % n for n in range(100, 107)]
        assert [entry.id for entry in await log.read(after=ids[-2])] == ids[-1:]
        assert await log.read(after=ids[-1]) == []
        assert len(await log.read(limit=10_000)) == 250

    async def test_a_repeated_call_appends_nothing(self, backend: Backend) -> None:
        """``token``: "A second call with the token ... returns the ids of the first"."""
        log = backend.log("events")
        ids = await log.append_many([b"1", b"2"], token=CALL)
        assert await log.append_many([b"1", b"2"], token=CALL) == ids
        assert await log.length() == 2
        others = await log.append_many([b"1", b"2"], token=f"another {CALL}")
        assert set(others).isdisjoint(ids)
        assert await log.length() == 4
        assert await backend.log("others").append_many([b"1", b"2"], token=CALL)
        assert await backend.log("others").length() == 2

    async def test_calls_without_a_token_are_all_different(self, backend: Backend) -> None:
        """``token``: "The client gives one by itself."."""
        log = backend.log("events")
        for _ in range(3):
            await log.append_many([b"same"])
        assert await log.length() == 3

    async def test_concurrent_calls_lose_nothing(self, backend: Backend) -> None:
        """``append_many``: "in order, all or none"."""
        log = backend.log("events")
        ids: dict[int, list[str]] = {}

        async def append(number: int) -> None:
            ids[number] = await log.append_many([b"%d" % number] * 10)

        async with create_task_group() as group:
            for number in range(50):
                group.start_soon(append, number)
        entries = await _all(log)
        assert len(entries) == 500
        for number, mine in ids.items():
            assert [entry.id for entry in entries if int(entry.payload) == number] == mine

    async def test_a_bounded_log_keeps_about_that_many(self, backend: Backend) -> None:
        """``max_length``: "Trim the log to about that many entries, never below it"."""
        log = backend.log("events")
        for number in range(30):
            await log.append_many([b"%d" % number] * 100, max_length=300)
            assert await log.length() >= min(300, 100 * (number + 1))
        assert await log.length() <= 1_000
        newest = (await log.read(limit=10_000))[-300:]
        assert {entry.payload for entry in newest} == {b"27", b"28", b"29"}

    async def test_trimming_is_exact(self, backend: Backend) -> None:
        """``trim``: "Remove the oldest entries beyond exactly ``max_length``; return how many."."""
        log = backend.log("events")
        ids = await log.append_many([b"%d" % number for number in range(57)])
        assert await log.trim(max_length=60) == 0
        assert await log.trim(max_length=13) == 44
        assert await log.length() == 13
        assert [entry.id for entry in await log.read()] == ids[44:]
        assert await log.trim(max_length=13) == 0

    async def test_trimming_can_keep_what_groups_need(self, backend: Backend) -> None:
        """``keep_unread``: keeps what a group has not claimed, holds, or has parked."""
        log = backend.log("events")
        ids = await log.append_many([b"%d" % number for number in range(1_300)])
        assert await log.trim(max_length=1_290, keep_unread=True) == 10, "nobody needs them"
        await log.create_group("fast")
        await log.create_group("slow")
        assert await log.trim(max_length=0, keep_unread=True) == 0, "nobody has claimed them"
        for group in ("fast", "slow"):
            claimed = (await log.turn(group, "c", GroupTurn(limit=1_290))).claimed
            assert len(claimed) == 1_290
            acks = [entry.id for entry in claimed]
            await log.turn(group, "c", GroupTurn(acks=acks[:700]))
        assert await log.trim(max_length=1_000, keep_unread=True) == 290
        assert await log.trim(max_length=0, keep_unread=True) == 410, "the others are held"
        assert (await log.read(limit=1))[0].id == ids[710]
        await log.turn("fast", "c", GroupTurn(acks=ids[711:], retries={ids[710]: 3_600.0}))
        await log.turn("slow", "c", GroupTurn(acks=ids[710:]))
        assert await log.trim(max_length=0, keep_unread=True) == 0, "one waits for a retry"
        await log.delete_group("fast")
        assert await log.trim(max_length=3, keep_unread=True) == 587
        assert await log.trim(max_length=0, keep_unread=True) == 3
        assert await log.length() == 0
        assert await log.trim(max_length=0, keep_unread=True) == 0
        wrong = cast("bool", "yes")
        await refusal(log.trim(max_length=0, keep_unread=wrong), (TypeError,), "keep_unread")

    async def test_ids_grow_over_a_trim(self, backend: Backend) -> None:
        """Ids grow, whatever was removed."""
        log = backend.log("events")
        await log.append_many([b"1", b"2"])
        last = (await log.read())[-1]
        await log.trim(max_length=1)
        await log.append_many([b"3"])
        assert [entry.payload for entry in await log.read(after=last.id)] == [b"3"]

    async def test_bad_input_is_refused(self, backend: Backend) -> None:
        """Values are bytes; "all or none" holds for a refused call as well."""
        log = backend.log("events")
        wrong = cast("bytes", "text")
        await refusal(log.append_many([b"1", wrong]), (TypeError,), "payload")
        await refusal(log.append_many([b"1"], token=""), (ValueError,), "token")
        for bad in (0, -1):
            await refusal(log.append_many([b"1"], max_length=bad), (ValueError,), "max_length")
        await refusal(log.trim(max_length=-1), (ValueError,), "max_length")
        assert await log.length() == 0


async def _all(log: Log) -> list[Entry]:
    """Read the whole log, page by page."""
    entries: list[Entry] = []
    after = "0"
    while page := await log.read(after=after):
        entries += page
        after = page[-1].id
    return entries
