"""Conformance of the groups of a :class:`~aiopatterns.backends.protocols.Log`: turns and claims."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from anyio import create_task_group

from aiopatterns.backends.records import GroupTurn
from aiopatterns.testing.conformance_base import Conformance, refusal, timely

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend, Log
    from aiopatterns.backends.records import Claimed

__all__ = ["GroupConformance"]

IDLE = 600.0


class GroupConformance(Conformance):
    """Tests of consumer groups; see :class:`Conformance` for what a subclass brings."""

    async def test_a_group_is_made_once(self, backend: Backend) -> None:
        """``create_group``: "False if it exists"; delete_group: "False if there was none"."""
        log = backend.log("events")
        assert await log.create_group("g")
        assert not await log.create_group("g")
        assert await log.create_group("h")
        assert await log.delete_group("g")
        assert not await log.delete_group("g")
        assert await log.create_group("g")

    async def test_a_group_starts_where_it_was_told(self, backend: Backend) -> None:
        """``create_group``: "start behind ``after`` (``"$"``: the newest entry)"."""
        log = backend.log("events")
        ids = await log.append_many([b"1", b"2", b"3"])
        for group, after in (("all", "0"), ("new", "$"), ("rest", ids[0])):
            assert await log.create_group(group, after=after)
        ids += await log.append_many([b"4"])
        assert await _ids(log, "all") == ids
        assert await _ids(log, "new") == ids[3:]
        assert await _ids(log, "rest") == ids[1:]

    async def test_a_group_may_come_before_its_log(self, backend: Backend) -> None:
        """``create_group`` needs no entry."""
        log = backend.log("events")
        await log.create_group("g", after="$")
        ids = await log.append_many([b"1"])
        assert await _ids(log, "g") == ids

    async def test_without_a_group_there_is_no_turn(self, backend: Backend) -> None:
        """``turn`` raises ValueError if "there is no such group"."""
        log = backend.log("events")
        await log.append_many([b"1"])
        await refusal(log.turn("absent", "c", GroupTurn(limit=1)), (ValueError,), "absent")
        await log.create_group("g")
        await log.delete_group("g")
        await refusal(log.turn("g", "c", GroupTurn(limit=1)), (ValueError,), "g")

    async def test_entries_come_in_order_up_to_the_limit(self, backend: Backend) -> None:
        """``turn``: ``limit`` is "how many entries to claim at most, 0 for none"."""
        log = await _log(backend, 10)
        entries = await log.read()
        assert await _claim(log, 0) == []
        claimed = await _claim(log, 4)
        assert [each[:2] for each in claimed] == [each[:2] for each in entries[:4]]
        assert [each.deliveries for each in claimed] == [1] * 4
        assert len(await _claim(log, 500)) == 6
        assert await _claim(log, 500) == []

    async def test_every_entry_goes_to_one_consumer(self, backend: Backend) -> None:
        """Log: "Within a group every entry goes to one consumer at a time"."""
        log = await _log(backend, 200)
        got: list[str] = []

        async def consume(consumer: str) -> None:
            while ids := await _ids(log, "g", limit=7, consumer=consumer):
                got.extend(ids)

        async with create_task_group() as group:
            for number in range(20):
                group.start_soon(consume, f"c{number}")
        assert sorted(got) == sorted(entry.id for entry in await log.read(limit=1_000))

    async def test_groups_do_not_share(self, backend: Backend) -> None:
        """Log: "shared out among a group"; another group gets everything, too."""
        log = await _log(backend, 3)
        await log.create_group("h")
        first, second = await _ids(log, "g"), await _ids(log, "h")
        assert first == second
        assert (await log.turn("g", "c", GroupTurn(acks=first))).lost == []
        assert [each.id for each in await log.held("h", "c")] == second

    async def test_acknowledged_entries_do_not_come_back(self, backend: Backend) -> None:
        """``acks``: "Ids that are done."."""
        log = await _log(backend, 3)
        ids = await _ids(log, "g")
        turned = await log.turn("g", "c", GroupTurn(acks=ids, limit=10, idle=0.001))
        assert turned == ([], [])
        assert await log.pending("g") == []
        assert await log.held("g", "c") == []
        assert await log.length() == 3

    async def test_settling_and_claiming_is_one_step(self, backend: Backend) -> None:
        """``turn``: "Settle, renew and claim in one atomic step."."""
        log = await _log(backend, 4)
        first = await _ids(log, "g", limit=2)
        turned = await log.turn("g", "c", GroupTurn(acks=first, limit=1))
        assert [each.payload for each in turned.claimed] == [b"2"]
        assert await log.lag("g") == 1
        assert len(await log.pending("g")) == 1

    async def test_deleting_what_is_done(self, backend: Backend) -> None:
        """``delete``: "Whether acknowledged and buried entries are removed from the log itself."."""
        log = await _log(backend, 4)
        first, second, third, fourth = await _ids(log, "g")
        turn = GroupTurn(acks=[first], buried={second: b"why"}, releases=[third], delete=True)
        await log.turn("g", "c", turn)
        assert [entry.id for entry in await log.read()] == [third, fourth]
        assert (await log.dead("g"))[0][0].payload == b"1"
        await log.turn("g", "c", GroupTurn(acks=[fourth]))
        assert [entry.id for entry in await log.read()] == [third, fourth]

    async def test_a_released_entry_is_free_at_once(self, backend: Backend) -> None:
        """``releases``: "claimable at once by anybody, and this delivery is not counted"."""
        log = await _log(backend, 3)
        ids = await _ids(log, "g")
        await log.turn("g", "c", GroupTurn(releases=ids[:2]))
        assert [each.id for each in await log.held("g", "c")] == ids[2:]
        claimed = await _claim(log, 10, consumer="d")
        assert [each.id for each in claimed] == ids[:2]
        assert [each.deliveries for each in claimed] == [1, 1]

    @timely
    async def test_a_failed_entry_waits_for_its_time(self, backend: Backend) -> None:
        """``retries``: "the seconds until they may be claimed again; the delivery counts"."""
        log = await _log(backend, 2, self.name("events"))
        ids = await _ids(log, "g")
        retries = {ids[0]: self.life(3), ids[1]: self.life(0.5)}
        turned = await log.turn("g", "c", GroupTurn(retries=retries, limit=10))
        assert turned.claimed == []
        await self.pause(1)
        second = await _claim(log, 10, consumer="d")
        assert [(each.id, each.payload, each.deliveries) for each in second] == [(ids[1], b"1", 2)]
        await self.pause(3)
        first = await _claim(log, 10, consumer="d")
        assert [(each.id, each.deliveries) for each in first] == [(ids[0], 2)]

    async def test_deliveries_count_from_one(self, backend: Backend) -> None:
        """``deliveries``: "how often it was handed out, releases not counted"."""
        log = await _log(backend, 1)
        (only,) = await _ids(log, "g")
        seen: list[int] = []
        for turn in (GroupTurn(retries={only: 0.0}), GroupTurn(releases=[only])) * 3:
            await log.turn("g", "c", turn)
            await self.pause(0.2)
            claimed = await _claim(log, 1)
            seen.append(claimed[0].deliveries)
        assert seen == [2, 2, 3, 3, 4, 4]

    async def test_buried_entries_are_dead_letters(self, backend: Backend) -> None:
        """``buried``: "Ids given up, with the reason: moved to the group's dead letters."."""
        log = await _log(backend, 3)
        await log.create_group("h")
        ids = await _ids(log, "g")
        await log.turn("g", "c", GroupTurn(retries={ids[1]: 0.0}))
        await self.pause(1)
        assert await _ids(log, "g") == [ids[1]]
        await log.turn("g", "c", GroupTurn(buried={ids[0]: bytes(range(256))}))
        await log.turn("g", "c", GroupTurn(buried={ids[1]: b"second"}))
        dead = await log.dead("g")
        assert [reason for _, reason in dead] == [b"second", bytes(range(256))]
        assert [tuple(each) for each, _ in dead] == [(ids[1], b"1", 2), (ids[0], b"0", 1)]
        assert [reason for _, reason in await log.dead("g", limit=1)] == [b"second"]
        assert await log.dead("h") == []
        assert [each.id for each in await log.pending("g")] == [ids[2]]

    async def test_requeued_letters_are_handed_out_again(self, backend: Backend) -> None:
        """``requeue``: "Hand out these dead letters again, deliveries counted anew"."""
        log = await _log(backend, 3)
        await log.create_group("h", after="$")
        ids = await _ids(log, "g")
        turn = GroupTurn(buried=dict.fromkeys(ids[:2], b"why"), acks=ids[2:], delete=True)
        await log.turn("g", "c", turn)
        assert await log.requeue("g", [ids[0], "0-1", ids[2]]) == 1
        assert await log.requeue("g", [ids[0]]) == 0
        assert [each.id for each, _ in await log.dead("g")] == [ids[1]]
        claimed = await _claim(log, 10, consumer="d")
        assert [(each.payload, each.deliveries) for each in claimed] == [(b"0", 1)]
        assert await _ids(log, "h") == []
        assert (await log.turn("g", "d", GroupTurn(acks=[claimed[0].id]))).lost == []
        assert await log.requeue("g", []) == 0

    @timely
    async def test_an_abandoned_entry_comes_back(self, backend: Backend) -> None:
        """``idle``: "neither settled nor renewed may be claimed by another"."""
        log = await _log(backend, 2, self.name("events"))
        ids = await _ids(log, "g", consumer="dead")
        idle = self.life(2)
        assert await _claim(log, 10, consumer="d", idle=idle) == []
        await self.pause(1)
        await log.turn("g", "dead", GroupTurn(renews=ids[1:]))
        await self.pause(1.5)
        claimed = await _claim(log, 10, consumer="d", idle=idle)
        assert [(each.id, each.payload, each.deliveries) for each in claimed] == [(ids[0], b"0", 2)]
        await self.pause(3)
        assert await _ids(log, "g", consumer="e", idle=idle) == ids

    async def test_many_abandoned_entries_come_back_in_order(self, backend: Backend) -> None:
        """``claimed``: with more than the limit, the next turns bring the others."""
        log = await _log(backend, 5, self.name("events"))
        ids = await _ids(log, "g", consumer="dead")
        idle = self.life(0.5)
        assert await _claim(log, 10, consumer="d", idle=idle) == []
        await self.pause(1)
        found = [await _ids(log, "g", limit=2, consumer="d", idle=idle) for _ in range(4)]
        assert found == [ids[:2], ids[2:4], ids[4:], []]

    async def test_a_late_consumer_learns_what_it_lost(self, backend: Backend) -> None:
        """``lost``: ids that "are not held by this consumer any more; nothing was done for them"."""
        log = await _log(backend, 6)
        ids = await _ids(log, "g", consumer="late")
        await self.pause(1)
        assert await _ids(log, "g", consumer="d", idle=self.life(0.5)) == ids
        turn = GroupTurn([ids[0]], [ids[1]], {ids[2]: 0.0}, {ids[3]: b"why"}, [ids[4]])
        turned = await log.turn("g", "late", turn._replace(limit=10, delete=True))
        assert sorted(turned.lost) == sorted(ids[:5])
        assert turned.claimed == []
        assert [(each.id, each.deliveries) for each in await log.held("g", "d")] == [
            (each, 2) for each in ids
        ]
        assert await log.dead("g") == []
        assert await log.length() == 6

    async def test_unknown_ids_are_lost(self, backend: Backend) -> None:
        """An id that was never claimed is not held either."""
        log = await _log(backend, 2)
        first, second = (entry.id for entry in await log.read())
        turned = await log.turn("g", "c", GroupTurn(acks=[first, "0-7"], renews=[second]))
        assert sorted(turned.lost) == sorted([first, second, "0-7"])
        assert await _ids(log, "g") == [first, second]

    async def test_an_id_is_settled_once(self, backend: Backend) -> None:
        """What was acknowledged before is not held any more."""
        log = await _log(backend, 1)
        ids = await _ids(log, "g")
        assert (await log.turn("g", "c", GroupTurn(acks=ids))).lost == []
        assert (await log.turn("g", "c", GroupTurn(retries={ids[0]: 0.0}))).lost == ids
        await self.pause(0.1)
        assert await _claim(log, 10) == []

    async def test_bad_input_is_refused(self, backend: Backend) -> None:
        """Groups and consumers are text of 1 to 1,024 bytes; limits and times are no less than 0."""
        log = await _log(backend, 1)
        for bad in ("", "x" * 1025):
            await refusal(log.create_group(bad), (ValueError,), "group")
            await refusal(log.turn(bad, "c", GroupTurn()), (ValueError,), "group")
            await refusal(log.turn("g", bad, GroupTurn()), (ValueError,), "consumer")
            await refusal(log.held("g", bad), (ValueError,), "consumer")
        await refusal(log.create_group(cast("str", 7)), (TypeError,), "group")
        await refusal(log.turn("g", "c", GroupTurn(limit=-1)), (ValueError,), "limit")
        for idle in (-1, float("nan")):
            await refusal(log.turn("g", "c", GroupTurn(idle=idle)), (ValueError,), "idle")
        assert len(await _claim(log, 10)) == 1


async def _log(backend: Backend, entries: int, name: str = "events") -> Log:
    """A log of so many numbers, with a group that has claimed none of them."""
    log = backend.log(name)
    await log.append_many([b"%d" % number for number in range(entries)])
    await log.create_group("g")
    return log


async def _claim(
    log: Log, limit: int, *, consumer: str = "c", group: str = "g", idle: float = IDLE
) -> list[Claimed]:
    return (await log.turn(group, consumer, GroupTurn(limit=limit, idle=idle))).claimed


async def _ids(
    log: Log, group: str, *, limit: int = 100, consumer: str = "c", idle: float = IDLE
) -> list[str]:
    claimed = await _claim(log, limit, consumer=consumer, group=group, idle=idle)
    return [each.id for each in claimed]
