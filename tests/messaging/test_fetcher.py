"""The fetcher: renewals, poison, taking over, and its end, against a log in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio

from aiopatterns.backends import open_backend
from aiopatterns.backends.records import GroupTurn
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.messaging import Message, Stream, StreamConsumer
from aiopatterns.messaging.claim import Claim
from aiopatterns.messaging.fetcher import Fetcher
from aiopatterns.messaging.fetchterms import FetchTerms
from aiopatterns.messaging.streamevents import StreamDeliveryLost
from aiopatterns.testing import capture_events


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


TERMS = FetchTerms(
    stream="s", group="g", consumer="c", prefetch=10, max_deliveries=2, claim_idle=30.0
)


class Setting:
    """A stream with some entries and a fetcher that runs."""

    def __init__(self, stream: Stream, tasks: Any, **terms: Any) -> None:
        self.stream = stream
        self.claims: list[Claim] = []
        self.fetcher = Fetcher(
            stream.log, replace(TERMS, **terms), stream.envelopes, admit=self.claims.append
        )
        self.tasks = tasks

    async def start(self) -> Fetcher:
        await self.fetcher.prepare()
        self.tasks.start_soon(self.fetcher.run, 1.0)
        self.tasks.start_soon(self.fetcher.listen)
        return self.fetcher

    async def claimed(self, count: int) -> None:
        while len(self.claims) < count:
            await sleep(0.001)


async def test_an_entry_that_kills_whoever_takes_it_is_given_up():
    async with Stream("s", "memory://") as stream, anyio.create_task_group() as tasks:
        await stream.append_many([1, 2])
        await stream.log.create_group("g")
        for name in ("a", "b"):
            await stream.log.turn("g", name, GroupTurn(limit=1, idle=1e-6))
            await sleep(0.001)
        setting = Setting(stream, tasks, claim_idle=0.01)
        await setting.start()
        await setting.claimed(1)
        while not (letters := await stream.dead_letters(group="g")):
            await sleep(0.01)
        assert letters[0].attempts == 3
        assert "handed out 2 times" in letters[0].error
        setting.fetcher.finish()
        await sleep(0.01)
        tasks.cancel_scope.cancel()


async def test_a_claim_of_our_own_that_had_ended_is_lost_and_adopted_anew():
    async with Stream("s", "memory://") as stream, anyio.create_task_group() as tasks:
        await stream.append(1)
        setting = Setting(stream, tasks)
        fetcher = await setting.start()
        await setting.claimed(1)
        fetcher.resume(inherits=True)
        await setting.claimed(2)
        first, second = setting.claims
        assert first.lost
        assert (second.deliveries, second.message.attempt) == (2, 2)
        fetcher.ack(first)
        assert fetcher.tally.acked == 0
        fetcher.ack(second)
        assert fetcher.tally.acked == 1
        fetcher.finish()
        await sleep(0.01)
        assert (fetcher.tally.claimed, fetcher.tally.lost) == (2, 1)
        tasks.cancel_scope.cancel()


async def test_a_late_settlement_is_told():
    async with Stream("s", "memory://") as stream, anyio.create_task_group() as tasks:
        await stream.append(1)
        setting = Setting(stream, tasks)
        fetcher = await setting.start()
        await setting.claimed(1)
        await sleep(0.001)
        await stream.log.turn("g", "thief", GroupTurn(limit=1, idle=1e-6))
        with capture_events() as events:
            fetcher.ack(setting.claims[0])
            await sleep(0.01)
        fetcher.finish()
        await sleep(0.01)
        assert [type(each) for each in events] == [StreamDeliveryLost]
        tasks.cancel_scope.cancel()


async def test_a_renewal_that_is_refused_loses_the_claim():
    async with Stream("s", "memory://") as stream, anyio.create_task_group() as tasks:
        await stream.append(1)
        setting = Setting(stream, tasks, claim_idle=0.3)
        fetcher = await setting.start()
        await setting.claimed(1)
        await sleep(0.001)
        await stream.log.turn("g", "thief", GroupTurn(limit=1, idle=1e-6))
        while not setting.claims[0].lost:
            await sleep(0.01)
        await fetcher.quiet()
        fetcher.finish()
        await sleep(0.01)
        assert fetcher.tally.lost == 1
        tasks.cancel_scope.cancel()


async def test_given_back_later_is_given_back_once_and_not_if_it_is_gone():
    async with Stream("s", "memory://") as stream, anyio.create_task_group() as tasks:
        await stream.append(1)
        setting = Setting(stream, tasks)
        fetcher = await setting.start()
        await setting.claimed(1)
        fetcher.begin(setting.claims[0])
        fetcher.release_later(setting.claims[0], 0.01)
        await setting.claimed(2)
        fetcher.release_later(setting.claims[0], 0.01)
        assert not setting.claims[0].rests
        fetcher.begin(setting.claims[1])
        fetcher.release_later(setting.claims[1], 60)
        fetcher.relinquish()
        assert fetcher.tally.released == 2
        fetcher.finish()
        await sleep(0.01)
        tasks.cancel_scope.cancel()


class Dead:
    """A log that nobody answers for after a while."""

    def __init__(self, log: Any) -> None:
        self.log, self.dead = log, False

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            if self.dead:
                await sleep(0.01)
                raise BackendUnavailableError("away")
            return await getattr(self.log, name)(*args, **options)

        return call


async def test_its_end_comes_also_if_nobody_answers_any_more():
    async with open_backend("memory://") as backend, anyio.create_task_group() as tasks:
        stream = Stream("s", backend)
        await stream.append(1)
        log, claims = Dead(stream.log), list[Claim]()
        fetcher = Fetcher(wrong(log), TERMS, stream.envelopes, admit=claims.append)
        await fetcher.prepare()
        tasks.start_soon(fetcher.listen)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as running:
                running.start_soon(fetcher.run, 0.2)
                while not claims:
                    await sleep(0.001)
                log.dead = True
                fetcher.ack(claims[0])
                await sleep(0.005)
                fetcher.finish()  # a turn is on its way
        tasks.cancel_scope.cancel()


async def test_what_is_adopted_twice_is_lost_once():
    async with Stream("s", "memory://") as stream, anyio.create_task_group() as tasks:
        await stream.append(1)
        setting = Setting(stream, tasks)
        fetcher = await setting.start()
        await setting.claimed(1)
        (entry,) = await stream.log.held("g", "c")
        with capture_events() as events:
            fetcher._adopt(entry._replace(deliveries=2))
        assert [type(each) for each in events] == [StreamDeliveryLost]
        assert [each.lost for each in setting.claims] == [True, False]
        fetcher.finish()
        await sleep(0.01)
        tasks.cancel_scope.cancel()


async def test_what_went_to_others_during_an_outage_is_lost_and_waiting_goes_on():
    async with Stream("s", "memory://") as stream, anyio.create_task_group() as tasks:
        await stream.append_many([1, 2])
        log, claims = Dead(stream.log), list[Claim]()
        terms = replace(TERMS, claim_idle=0.3)
        fetcher = Fetcher(wrong(log), terms, stream.envelopes, admit=claims.append)
        await fetcher.prepare()
        tasks.start_soon(fetcher.run, 1.0)
        tasks.start_soon(fetcher.listen)
        while len(claims) < 2:
            await sleep(0.001)
        fetcher.ack(claims[0])
        await sleep(0.005)
        log.dead = True
        await sleep(0.5)  # the renewal fails
        taken = await stream.log.turn("g", "thief", GroupTurn(limit=5, idle=0.3))
        assert [each.id for each in taken.claimed] == [claims[1].id]
        fetcher.resume(inherits=True)
        log.dead = False
        while fetcher.tally.lost < 1:
            await sleep(0.01)
        assert claims[1].lost
        await stream.append(3)
        while len(claims) < 3:
            await sleep(0.01)
        fetcher.finish()
        await sleep(0.01)
        tasks.cancel_scope.cancel()


async def test_a_take_over_that_fails_is_made_again():
    async with Stream("s", "memory://") as stream, anyio.create_task_group() as tasks:
        await stream.append_many([1, 2])
        await stream.log.create_group("g")
        await stream.log.turn("g", "other", GroupTurn(limit=1))
        log, claims = Dead(stream.log), list[Claim]()
        fetcher = Fetcher(wrong(log), TERMS, stream.envelopes, admit=claims.append, fetching=False)
        await fetcher.prepare()
        tasks.start_soon(fetcher.run, 1.0)
        tasks.start_soon(fetcher.listen)
        await sleep(0.01)
        log.dead = True
        fetcher.resume(inherits=True)
        await sleep(0.05)
        log.dead = False
        while len(claims) < 2:
            await sleep(0.01)
        assert [(each.message.payload, each.deliveries) for each in claims] == [(1, 2), (2, 1)]
        fetcher.finish()
        await sleep(0.01)
        tasks.cancel_scope.cancel()


async def test_an_idle_consumer_hears_again_after_an_outage():
    async with Stream("s", "memory://") as stream, anyio.create_task_group() as tasks:
        log, claims = Dead(stream.log), list[Claim]()
        fetcher = Fetcher(wrong(log), TERMS, stream.envelopes, admit=claims.append)
        log.dead = True
        tasks.start_soon(fetcher.run, 1.0)
        tasks.start_soon(fetcher.listen)
        fetcher._resting = True  # as it is when the outage comes while it waits
        await sleep(0.1)
        log.dead = False
        await stream.append(1)
        while not claims:
            await sleep(0.01)
        fetcher.finish()
        await sleep(0.01)
        tasks.cancel_scope.cancel()


async def test_one_that_waits_and_is_lost_is_not_handed_out():
    async with Stream("s", "memory://") as stream:
        await stream.append_many([1, 2])
        async with StreamConsumer(stream, group="g") as consumer:
            while consumer.statistics().in_hand < 2:
                await sleep(0.001)
            fetcher, _ = consumer._parts
            fetcher._lose(next(iter(fetcher.held.values())))
            async with await anext(consumer) as message:
                assert message.payload == 2


class Slow:
    """A log whose turns take their time, and that notes what was read when one came."""

    def __init__(self, log: Any, claims: list[Claim]) -> None:
        self.log = log
        self.claims = claims
        self.read: list[int] = []

    async def turn(self, *args: Any) -> Any:
        self.read.append(len(self.claims))
        await sleep(0.01)
        return await self.log.turn(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


async def test_the_next_turn_is_on_its_way_before_what_has_come_is_read():
    async with Stream("s", "memory://") as stream, anyio.create_task_group() as tasks:
        await stream.append_many(range(10))
        claims = list[Claim]()
        log = Slow(stream.log, claims)
        fetcher = Fetcher(wrong(log), TERMS, stream.envelopes, admit=claims.append)
        await fetcher.prepare()
        tasks.start_soon(fetcher.run, 1.0)
        while len(claims) < 10:
            await sleep(0.001)
        assert log.read[:2] == [0, 0]  # half is taken by the first, and read during the second
        assert [each.message.payload for each in claims] == [*range(10)]
        fetcher.finish()
        await sleep(0.05)
        tasks.cancel_scope.cancel()


async def test_what_came_before_a_take_over_waits_for_its_place():
    async with Stream("s", "memory://") as stream, anyio.create_task_group() as tasks:
        await stream.append_many(range(3))
        claims = list[Claim]()
        log = Slow(stream.log, claims)
        fetcher = Fetcher(wrong(log), TERMS, stream.envelopes, admit=claims.append)
        await fetcher.prepare()
        tasks.start_soon(fetcher.run, 1.0)
        await sleep(0.005)  # the first turn is on its way
        fetcher.pause()
        fetcher.give_up()
        fetcher.resume(inherits=True)
        while len(claims) < 3:
            await sleep(0.001)
        assert [(each.message.payload, each.lost) for each in claims] == [
            (0, False),
            (1, False),
            (2, False),
        ]
        assert sorted(fetcher.held) == [each.id for each in claims]
        fetcher.finish()
        await sleep(0.05)
        tasks.cancel_scope.cancel()


async def test_a_take_over_asked_for_during_another_one_is_made_as_well():
    async with Stream("s", "memory://") as stream, anyio.create_task_group() as tasks:
        await stream.append_many(range(2))
        claims = list[Claim]()
        log = Slow(stream.log, claims)
        fetcher = Fetcher(wrong(log), TERMS, stream.envelopes, admit=claims.append, fetching=False)
        await fetcher.prepare()
        tasks.start_soon(fetcher.run, 1.0)
        fetcher.resume(inherits=True)
        await sleep(0.005)  # the first is on its way
        fetcher.pause()  # meanwhile another consumer claims, and dies
        fetcher.give_up()
        await stream.log.turn("g", "other", GroupTurn(limit=1))
        fetcher.resume(inherits=True)
        while len(claims) < 2:
            await sleep(0.001)
        assert [each.message.payload for each in claims] == [0, 1]
        fetcher.finish()
        await sleep(0.05)
        tasks.cancel_scope.cancel()


async def test_what_was_tried_elsewhere_is_tried_here_for_the_first_time():
    async with Stream("s", "memory://") as stream, anyio.create_task_group() as tasks:
        await stream.append(Message(type="passed.on", attempt=3))
        setting = Setting(stream, tasks)
        fetcher = await setting.start()
        await setting.claimed(1)
        assert setting.claims[0].message.attempt == 1
        fetcher.finish()
        await sleep(0.01)
        tasks.cancel_scope.cancel()


class Deaf(Slow):
    """A log that loses the answer to a turn, and then once does not say what is held."""

    loses = hides = False

    async def turn(self, *args: Any) -> Any:
        answer = await super().turn(*args)
        if self.loses:
            self.loses, self.hides = False, True
            raise BackendUnavailableError("the answer was lost")
        return answer

    async def held(self, *args: Any) -> Any:
        if self.hides:
            self.hides = False
            raise BackendUnavailableError("away")
        return await self.log.held(*args)


async def test_what_a_lost_answer_brought_at_the_end_is_given_back():
    async with Stream("s", "memory://") as stream:
        await stream.append_many(range(10))
        claims = list[Claim]()
        log = Deaf(stream.log, claims)
        fetcher = Fetcher(wrong(log), TERMS, stream.envelopes, admit=claims.append)
        await fetcher.prepare()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetcher.run, 5.0)
            while not claims:
                await sleep(0.001)
            log.loses = True  # of the second turn, which claims the other half and is on its way
            fetcher.finish()
        assert not log.loses
        assert not log.hides
        assert await stream.log.held("g", "c") == []
        left = await stream.log.pending("g")
        assert [(each.consumer, each.deliveries) for each in left] == [("", 0)] * 10
