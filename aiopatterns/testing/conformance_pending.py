"""Conformance of what a group tells of itself: held, pending, lag, waiting, order, bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import create_task_group, fail_after

from aiopatterns.backends.records import GroupTurn
from aiopatterns.testing.conformance_base import PATIENCE, Conformance, refusal, timely

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend, Log

__all__ = ["PendingConformance"]

IDLE = 600.0


class PendingConformance(Conformance):
    """Tests of looking at groups; see :class:`Conformance` for what a subclass brings."""

    async def test_held_gives_what_a_lost_answer_claimed(self, backend: Backend) -> None:
        """``held``: "Return all that ``consumer`` holds now, oldest first; counts no delivery."."""
        log = await _log(backend, 4)
        claimed = (await log.turn("g", "c", GroupTurn(limit=3))).claimed
        for _ in range(3):
            assert await log.held("g", "c") == claimed
        assert await log.held("g", "other") == []
        await log.turn("g", "c", GroupTurn(acks=[claimed[1].id]))
        assert await log.held("g", "c") == [claimed[0], claimed[2]]

    async def test_held_leaves_out_what_waits(self, backend: Backend) -> None:
        """``held``: what failed and waits for its time is in nobody's hands."""
        log = await _log(backend, 2)
        first, second = await _take(log, 2)
        await log.turn("g", "c", GroupTurn(retries={first: 600.0}))
        assert [each.id for each in await log.held("g", "c")] == [second]

    async def test_pending_tells_by_whom_and_how_often(self, backend: Backend) -> None:
        """PendingEntry: "by whom, since how many seconds, how often"."""
        log = await _log(backend, 3)
        first = await _take(log, 1, "c")
        second = await _take(log, 1, "d")
        await self.pause(1)
        pending = await log.pending("g")
        assert [(each.id, each.consumer, each.deliveries) for each in pending] == [
            (first[0], "c", 1),
            (second[0], "d", 1),
        ]
        assert all(self.life(0.9) <= each.idle < PATIENCE for each in pending)
        assert [each.id for each in await log.pending("g", limit=1)] == first

    async def test_pending_holds_what_waits_for_a_retry(self, backend: Backend) -> None:
        """``pending``: "the oldest entries that are claimed or wait for a retry"."""
        log = await _log(backend, 3)
        ids = await _take(log, 3)
        await self.pause(2)
        turn = GroupTurn(retries={ids[0]: 600.0}, acks=[ids[1]])
        await log.turn("g", "c", turn)
        waiting, held = await log.pending("g")
        assert (waiting.id, waiting.consumer, waiting.deliveries) == (ids[0], "", 1)
        assert (held.id, held.consumer) == (ids[2], "c")
        assert waiting.idle < held.idle  # it counts from its return

    async def test_lag_counts_what_nobody_has_claimed(self, backend: Backend) -> None:
        """``lag``: "how many entries the group has not claimed yet"."""
        log = await _log(backend, 5)
        await log.create_group("new", after="$")
        assert await log.lag("g") == 5
        assert await log.lag("new") == 0
        ids = await _take(log, 2)
        assert await log.lag("g") == 3
        await log.turn("g", "c", GroupTurn(acks=ids, delete=True))
        assert await log.lag("g") == 3
        await log.append_many([b"x"])
        assert await log.lag("g") == 4
        assert await log.lag("new") == 1
        await log.trim(max_length=2)
        assert await log.lag("g") == 2

    @timely
    async def test_failed_then_abandoned_then_fresh(self, backend: Backend) -> None:
        """``turn``: "Claims take failed entries whose time has come, then abandoned ones, then fresh"."""
        log = await _log(backend, 4, self.name("events"))
        abandoned = await _take(log, 1, "dead")
        failed = await _take(log, 1, "c")
        await log.turn("g", "c", GroupTurn(retries={failed[0]: self.life(0.5)}))
        await self.pause(2)
        fresh = [entry.id for entry in await log.read()][2:]
        turned = await log.turn("g", "d", GroupTurn(limit=2, idle=self.life(1)))
        assert [each.id for each in turned.claimed] == [*failed, *abandoned]
        turned = await log.turn("g", "d", GroupTurn(limit=5, idle=self.life(600)))
        assert [each.id for each in turned.claimed] == fresh

    @timely
    async def test_what_comes_back_has_an_order(self, backend: Backend) -> None:
        """``turn``: failed ones "in the order of these times", abandoned ones in that of the log."""
        log = await _log(backend, 5, self.name("events"))
        ids = await _take(log, 5, "dead")
        await self.pause(1)
        await log.turn("g", "dead", GroupTurn(renews=[ids[3]]))
        await self.pause(1)
        retries = {ids[0]: self.life(0.4), ids[1]: self.life(0.2), ids[2]: self.life(0.3)}
        await log.turn("g", "dead", GroupTurn(retries=retries))
        await self.pause(1.5)
        first = await log.turn("g", "d", GroupTurn(limit=4, idle=self.life(2)))
        assert [each.id for each in first.claimed] == [ids[1], ids[2], ids[0], ids[4]]
        second = await log.turn("g", "d", GroupTurn(limit=4, idle=self.life(2)))
        assert [each.id for each in second.claimed] == [ids[3]]

    async def test_waiting_ends_when_something_arrives(self, backend: Backend) -> None:
        """``wait``: "True if a fresh entry arrived"."""
        log = await _log(backend, 0)
        woken: list[bool] = []

        async def wait() -> None:
            woken.append(await log.wait("g", timeout=PATIENCE))

        with fail_after(PATIENCE / 2):
            async with create_task_group() as group:
                group.start_soon(wait)
                await self.pause(1)
                assert woken == []
                await log.append_many([b"1"])
        assert woken == [True]
        assert len(await _take(log, 10)) == 1

    async def test_waiting_for_what_is_there(self, backend: Backend) -> None:
        """``wait``: "until there may be something to claim"; and it "claims nothing"."""
        log = await _log(backend, 1)
        with fail_after(PATIENCE / 2):
            assert await log.wait("g", timeout=PATIENCE)
            assert await log.wait("g", timeout=PATIENCE)
        assert await log.pending("g") == []
        assert await log.lag("g") == 1

    async def test_waiting_in_vain(self, backend: Backend) -> None:
        """``wait``: "False on timeout"."""
        log = await _log(backend, 1)
        await _take(log, 1)
        with fail_after(PATIENCE):
            assert not await log.wait("g", timeout=self.life(1))

    async def test_waiting_for_a_retry(self, backend: Backend) -> None:
        """``wait``: True if an entry's "time has come"."""
        log = await _log(backend, 1)
        ids = await _take(log, 1)
        await log.turn("g", "c", GroupTurn(retries={ids[0]: self.life(2)}))
        with fail_after(PATIENCE / 2):
            claimed: list[str] = []
            while not claimed:
                assert await log.wait("g", timeout=PATIENCE)
                claimed = await _take(log, 1)
        assert claimed == ids

    async def test_a_released_entry_ends_the_waiting(self, backend: Backend) -> None:
        """``wait``: a released entry is something to claim at once."""
        log = await _log(backend, 1)
        ids = await _take(log, 1)
        await log.turn("g", "c", GroupTurn(releases=ids))
        with fail_after(PATIENCE / 2):
            assert await log.wait("g", timeout=PATIENCE)
        assert await _take(log, 1, "d") == ids

    async def test_a_cancelled_wait_loses_nothing(self, backend: Backend) -> None:
        """``wait``: "cancelling it loses nothing"."""
        log = await _log(backend, 0)
        for _ in range(5):
            async with create_task_group() as group:
                group.start_soon(self._wait, log)
                await self.pause(0.1)
                await log.append_many([b"1"])
                group.cancel_scope.cancel()
            with fail_after(PATIENCE / 2):
                assert await log.wait("g", timeout=PATIENCE)
            assert len(await _take(log, 10)) == 1

    async def _wait(self, log: Log) -> None:
        await log.wait("g", timeout=PATIENCE)

    async def test_trimmed_entries_are_gone_without_harm(self, backend: Backend) -> None:
        """``append_many``: "groups may lose what they have not read", and nothing else."""
        log = await _log(backend, 6)
        held = await _take(log, 3, "c")
        await log.trim(max_length=1)
        turned = await log.turn("g", "c", GroupTurn(acks=held[:1], limit=10))
        assert turned.lost == []
        assert [each.payload for each in turned.claimed] == [b"5"]
        await self.pause(1)
        turned = await log.turn("g", "d", GroupTurn(limit=10, idle=self.life(0.5)))
        assert b"5" in [each.payload for each in turned.claimed]
        ids = [each.id for each in await log.held("g", "d")]
        assert (await log.turn("g", "d", GroupTurn(acks=ids))).lost == []

    async def test_a_deleted_group_leaves_nothing(self, backend: Backend) -> None:
        """``delete_group``: "Forget ``group``, what it holds and its dead letters"."""
        log = await _log(backend, 3)
        ids = await _take(log, 2)
        turn = GroupTurn(buried={ids[0]: b"why"}, retries={ids[1]: 600.0})
        await log.turn("g", "c", turn)
        assert await log.delete_group("g")
        await log.create_group("g")
        assert await log.pending("g") == []
        assert await log.dead("g") == []
        assert await log.lag("g") == 3
        claimed = (await log.turn("g", "d", GroupTurn(limit=10))).claimed
        assert [(each.payload, each.deliveries) for each in claimed] == [
            (b"0", 1),
            (b"1", 1),
            (b"2", 1),
        ]

    async def test_a_group_that_is_not_there(self, backend: Backend) -> None:
        """Log: every call that names a group "raises ``ValueError`` if there is none"."""
        log = await _log(backend, 1)
        for call in (
            log.held("absent", "c"),
            log.pending("absent"),
            log.lag("absent"),
            log.dead("absent"),
            log.wait("absent", timeout=0.01),
            log.requeue("absent", ["0-1"]),
        ):
            await refusal(call, (ValueError,), "absent")

    async def test_bad_input_is_refused(self, backend: Backend) -> None:
        """Groups are text of 1 to 1,024 bytes."""
        log = await _log(backend, 0)
        for call in (log.pending(""), log.lag(""), log.dead(""), log.delete_group("")):
            await refusal(call, (ValueError,), "group")
        await refusal(log.wait("", timeout=1), (ValueError,), "group")
        for bad in (-1, float("nan")):
            await refusal(log.wait("g", timeout=bad), (ValueError,), "timeout")
        await refusal(log.requeue("", ["0-1"]), (ValueError,), "group")


async def _log(backend: Backend, entries: int, name: str = "events") -> Log:
    """A log of so many numbers, with a group that has claimed none of them."""
    log = backend.log(name)
    await log.append_many([b"%d" % number for number in range(entries)])
    await log.create_group("g")
    return log


async def _take(log: Log, limit: int, consumer: str = "c") -> list[str]:
    turned = await log.turn("g", consumer, GroupTurn(limit=limit, idle=IDLE))
    return [each.id for each in turned.claimed]
